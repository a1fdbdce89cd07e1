"""How often an environment reads the limits of tenants, and what it does if it cannot."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chalicelib.adapters.memory.all import InMemoryAdapters
from chalicelib.domain.errors import Unavailable, UnreadableRecord
from chalicelib.domain.limits.tenant_limits import TenantLimits
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
