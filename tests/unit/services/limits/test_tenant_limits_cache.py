"""How often an environment reads the limits of tenants, and what it does if it cannot."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chalicelib.adapters.memory.all import InMemoryAdapters
from chalicelib.domain.errors import Unavailable, UnreadableRecord
from chalicelib.domain.limits.tenant_limits import MAX_INDEX_SHARDS, LimitsChange, TenantLimits, change_limits
from chalicelib.services.limits.tenant_limits_cache import TenantLimitsCache
from tests.kit.failing_store import refusing

DEFAULTS = TenantLimits(tenant="", user_concurrency=2, queued={"total": 1_000})


class Cached:
    def __init__(self) -> None:
        self.memory = InMemoryAdapters()
        self.events: list[str] = []
        self.cache = TenantLimitsCache(self.memory.tenant_limits, DEFAULTS, self.memory.clock, lambda event, **_: self.events.append(event))

    def save(self, tenant: str, **changes: Any) -> None:
        seen = self.memory.tenant_limits.get(tenant) or TenantLimits(tenant=tenant)
        self.memory.tenant_limits.replace(seen, replace(seen, version=seen.version + 1, **changes))
        self.memory.tenant_limits.reads.clear()


def test_tenant_without_limits_has_the_defaults_and_costs_no_read() -> None:
    world = Cached()
    world.save("other", concurrency=1)

    assert world.cache.get("acme") == replace(DEFAULTS, tenant="acme")
    assert world.memory.tenant_limits.reads == []


def test_limits_of_its_own_come_before_the_defaults() -> None:
    world = Cached()
    world.save("acme", concurrency=5, queued={"low": 7})

    found = world.cache.get("acme")

    assert (found.concurrency, found.user_concurrency, found.queued) == (5, 2, {"total": 1_000, "low": 7})


def test_limits_are_read_once_in_fifteen_seconds_and_a_change_holds_within_thirty() -> None:
    world = Cached()
    world.save("acme", concurrency=5)
    world.cache.get("acme")
    for _ in range(13):
        world.memory.clock.advance(1)
        world.cache.get("acme")
    assert world.memory.tenant_limits.reads == ["acme"]

    world.save("acme", concurrency=6)
    world.save("new", concurrency=1)
    world.memory.clock.advance(29)

    assert world.cache.get("acme").concurrency == 6
    assert world.cache.get("new").concurrency == 1


def test_last_limits_hold_while_the_store_does_not_answer() -> None:
    world = Cached()
    world.save("acme", concurrency=5)
    world.cache.get("acme")
    world.memory.clock.advance(60)

    with refusing(world.memory.tenant_limits, "get", 99), refusing(world.memory.tenant_limits, "tenants", 99):
        assert world.cache.get("acme").concurrency == 5

    assert world.events == ["tenant_limits_unavailable"] * 2


@pytest.mark.parametrize("call", ["tenants", "get"])
def test_limits_that_were_never_read_are_not_taken_for_none(call: str) -> None:
    """A limit protects something, so nothing starts without it."""
    world = Cached()
    world.save("acme", concurrency=5)

    with refusing(world.memory.tenant_limits, call, 99), pytest.raises(Unavailable):
        world.cache.get("acme")


def test_unreadable_limits_are_the_last_that_could_be_read_or_the_defaults() -> None:
    world = Cached()
    world.save("acme", concurrency=5)
    world.save("new", concurrency=5)
    world.cache.get("acme")
    world.memory.clock.advance(60)

    def unreadable(tenant: str) -> None:
        raise UnreadableRecord({tenant: "of a newer version"})

    vars(world.memory.tenant_limits)["get"] = unreadable

    assert world.cache.get("acme").concurrency == 5
    assert world.cache.get("new").concurrency is None
    assert world.events == ["tenant_limits_unreadable"] * 2


def test_tenant_without_limits_has_one_shard_and_costs_no_read() -> None:
    world = Cached()
    world.save("other", shards=4)

    assert (world.cache.shards_of("acme"), world.cache.shards_of("other")) == (1, 4)
    assert world.memory.tenant_limits.reads == ["other"]


def test_shards_are_all_that_there_can_be_while_the_limits_were_not_read_for_a_minute() -> None:
    """A shard too many holds nothing, and one too few hides jobs."""
    world = Cached()
    world.save("acme", shards=4)
    with refusing(world.memory.tenant_limits, "get", 99):
        assert world.cache.shards_of("acme") == MAX_INDEX_SHARDS
    assert world.cache.shards_of("acme") == 4

    with refusing(world.memory.tenant_limits, "get", 99):
        world.memory.clock.advance(59)
        assert world.cache.shards_of("acme") == 4
        world.memory.clock.advance(1)
        assert world.cache.shards_of("acme") == MAX_INDEX_SHARDS
    world.memory.clock.advance(15)
    assert world.cache.shards_of("acme") == 4


def test_shards_of_a_tenant_without_limits_are_unknown_while_the_names_were_not_read_for_a_minute() -> None:
    world = Cached()
    with refusing(world.memory.tenant_limits, "tenants", 99):
        assert world.cache.shards_of("acme") == MAX_INDEX_SHARDS
    assert world.cache.shards_of("acme") == 1

    with refusing(world.memory.tenant_limits, "tenants", 99):
        world.memory.clock.advance(59)
        assert world.cache.shards_of("acme") == 1
        world.memory.clock.advance(1)
        assert world.cache.shards_of("acme") == MAX_INDEX_SHARDS


def test_shards_of_unreadable_limits_are_all_that_there_can_be() -> None:
    world = Cached()
    world.save("acme", shards=4)

    def unreadable(tenant: str) -> None:
        raise UnreadableRecord({tenant: "of a newer version"})

    vars(world.memory.tenant_limits)["get"] = unreadable

    assert world.cache.shards_of("acme") == MAX_INDEX_SHARDS


@pytest.mark.parametrize("refused", [0, 1_000_000])
@pytest.mark.parametrize("lag", range(0, 26, 5))
def test_no_reader_has_fewer_shards_than_a_writer_uses(lag: int, refused: int) -> None:
    """Whenever the reader has read the limits, and whether or not it can read them again. The writer's clock is 25 s ahead."""
    world, limits = Cached(), TenantLimits(tenant="acme")
    store, clock = world.memory.tenant_limits, world.memory.clock
    world.cache.shards_of("acme")
    clock.advance(lag)
    for shards in (2, 8, 16):
        before, limits = limits, change_limits(limits, LimitsChange(values={"shards": shards}), "root", clock.now())
        store.replace(before, limits)
        with refusing(store, "get", refused), refusing(store, "tenants", refused):
            for _ in range(70 if shards == 2 else 200):
                clock.advance(1)
                assert limits.shards_at(clock.now() + 25_000) <= world.cache.shards_of("acme")
        assert limits.shards_at(clock.now()) == (1 if shards == 2 else shards)
