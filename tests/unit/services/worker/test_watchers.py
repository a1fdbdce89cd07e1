"""Many sockets watch one job: each gets frames, and none costs the other jobs theirs."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from chalicelib.bootstrap import Container
from chalicelib.domain.auth.identity import Key, Role
from chalicelib.domain.streaming.socket_budget import MAX_WATCHERS, WATCHERS_AT_FULL_PACE, pace_factor
from tests.kit.failing_store import refusing
from tests.kit.provider import Script
from tests.kit.world import ALICE, World

SLOW = Script(deltas=["word "] * 400, every=0.1)  # forty seconds


def with_keys(world: World, count: int) -> None:
    """Store keys `hash0`, `hash1`, ... and check them as in production."""
    for number in range(count):
        key = Key(id=f"key_{number}", hash=f"hash{number}", tenant="acme", user="alice", role=Role.USER, created_at=1)
        world.container.api_keys.put_key(key)
    del vars(world.container)["readers_of"]


def watch(world: World, job_id: str, count: int) -> None:
    """Subscribe so many sockets, each with a key of its own."""
    job = world.container.jobs.records[job_id]
    for number in range(count):
        world.watch(job, f"c{number:04}")
        [row] = [one for one in world.container.subscriptions.for_job(job_id) if one.connection_id == f"c{number:04}"]
        world.container.subscriptions.add(replace(row, key_hash=f"hash{number}"))


def frames_of(world: World, *connections: str) -> Counter[str]:
    return Counter({connection: len(world.frames(connection)) for connection in connections})


def test_the_keys_of_all_watchers_are_read_in_one_request() -> None:
    """Once when the subscriptions are read, and again when the cached keys are thirty seconds old."""
    world = World(SLOW)
    with_keys(world, MAX_WATCHERS)
    job = world.submit()
    watch(world, job.id, MAX_WATCHERS)

    with refusing(world.container.api_keys, "key", 0) as single, refusing(world.container.api_keys, "many", 0) as together:
        world.deliver()

    assert (single, together) == ([0], [2])
    assert world.assembled("c0099").done


def test_only_a_bounded_number_of_sockets_gets_frames_of_a_job() -> None:
    """Subscriptions that slipped in at the same moment get none; the oldest ones do."""
    world = World(SLOW)
    job = world.submit()
    for number in reversed(range(MAX_WATCHERS + 30)):
        world.watch(job, f"c{number:04}")

    world.deliver()

    got = [number for number in range(MAX_WATCHERS + 30) if world.frames(f"c{number:04}")]
    assert got == list(range(30, MAX_WATCHERS + 30))


@pytest.mark.parametrize(("watchers", "factor"), [(1, 1.0), (WATCHERS_AT_FULL_PACE, 1.0), (2 * WATCHERS_AT_FULL_PACE, 2.0), (100, 4.0)])
def test_frames_are_rarer_the_more_sockets_watch(watchers: int, factor: float) -> None:
    assert pace_factor(watchers) == factor


def test_a_job_with_many_watchers_sends_about_as_many_frames_as_one_with_a_quarter_of_them() -> None:
    """So the frames of the other jobs of the environment are not late. Every socket still has the whole text."""

    def posts(watchers: int) -> int:
        world = World(SLOW)
        job = world.submit()
        watch(world, job.id, watchers)
        world.deliver()
        assert all(world.assembled(f"c{number:04}").text == "word " * 400 for number in range(watchers))
        return sum(frames_of(world, *(f"c{number:04}" for number in range(watchers))).values())

    assert posts(MAX_WATCHERS) < 1.5 * posts(MAX_WATCHERS // 4)


def test_a_neighbour_of_a_job_with_a_hundred_watchers_gets_its_frames_as_if_alone() -> None:
    def frames_of_neighbour(others: int) -> int:
        world = World(SLOW)
        crowded, quiet = world.submit("crowded"), world.submit("quiet", caller=replace(ALICE, tenant="other"))
        watch(world, crowded.id, others)
        world.watch(quiet, "quiet")
        world.deliver()
        assert world.assembled("quiet").done
        return len(world.frames("quiet"))

    assert abs(frames_of_neighbour(MAX_WATCHERS) - frames_of_neighbour(0)) <= 1


def test_container_checks_the_rights_of_each_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that is unknown, revoked, of another tenant or of a viewer reads nothing."""
    world = World()
    with_keys(world, 1)
    job = world.submit()
    key = world.container.api_keys.key("hash0")
    assert key is not None
    for name, changes in {
        "revoked": {"revoked_at": 1},
        "expired": {"expires_at": 1},
        "other": {"tenant": "other"},
        "viewer": {"role": Role.VIEWER},
        "all": {"tenant": "other", "all_tenants": True, "role": Role.ADMIN},
    }.items():
        world.container.api_keys.put_key(replace(key, hash=name, **changes))  # type: ignore[arg-type]

    hashes = ["hash0", "unknown", "revoked", "expired", "other", "viewer", "all"]

    assert Container.readers_of(world.container, job, hashes) == {"hash0", "all"}
