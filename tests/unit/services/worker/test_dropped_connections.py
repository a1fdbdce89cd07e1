"""Closed sockets: wherever one is noticed, its connection and subscriptions are deleted.

The sweeper probes connections, because some receive no frames.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest

from chalicelib.domain.errors import ConnectionBusy, ConnectionGone
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.streaming.subscriptions import CONNECTION_SHARDS, Connection, connection_shard
from chalicelib.services.streaming.broadcast_states import SEND_MS, broadcast_states
from chalicelib.services.streaming.prune_connections import MAX_PROBED, MIN_AGE_MS
from chalicelib.services.streaming.subscriptions import (
    close_connection,
    get_connection,
    open_connection,
    send_reply,
    subscribe,
)
from chalicelib.settings import Settings
from tests.kit.provider import Script
from tests.kit.world import ALICE, World

ENDPOINT = "https://ws/api"


def opened(world: World, connection_id: str = "c1", jobs: list[Job] | None = None) -> Connection:
    """Open a connection that subscribes to these jobs."""
    world.container.settings = Settings(max_connections=10**5, requests_per_minute=10**5)
    open_connection(world.container, connection_id, ENDPOINT, ALICE)
    for job in jobs or []:
        subscribe(world.container, get_connection(world.container, connection_id), job.id, 0, 0, None)
    return get_connection(world.container, connection_id)


def subscribers(world: World, *jobs: Job) -> list[list[str]]:
    return [[subscription.connection_id for subscription in world.container.subscriptions.for_job(job.id)] for job in jobs]


def by_a_worker(world: World, job: Job) -> None:
    world.deliver()


def by_the_change_stream(world: World, job: Job) -> None:
    ended = replace(job, status=Status.COMPLETED, length=0)
    broadcast_states(world.container, [ended], world.clock.now() + 2 * SEND_MS)


def by_subscribing(world: World, job: Job) -> None:
    with suppress(ConnectionGone):
        subscribe(world.container, get_connection(world.container, "c1"), job.id, 0, 0, None)


def by_replaying_the_end(world: World, job: Job) -> None:
    world.container.jobs.records[job.id] = replace(job, status=Status.CANCELLED, length=0, due_at=None)
    by_subscribing(world, job)


def by_a_reply(world: World, job: Job) -> None:
    with suppress(ConnectionGone):
        send_reply(world.container, ENDPOINT, "c1", {"event": "pong"})


def by_the_sweeper(world: World, job: Job) -> None:
    for _ in range(CONNECTION_SHARDS + 1):
        world.sweep(after=60)


DETECTORS = [by_a_worker, by_the_change_stream, by_subscribing, by_replaying_the_end, by_a_reply, by_the_sweeper]


@pytest.mark.parametrize("detect", DETECTORS)
def test_a_closed_socket_loses_its_connection_and_all_subscriptions(detect: Callable[[World, Job], None]) -> None:
    """Other connections stay, including a new one of the same client."""
    world = World()
    first, second = world.submit("first"), world.submit("second")
    world.container.queues.messages["normal"].pop()  # the second job is not started
    opened(world, "c1", [first, second])
    other, again = opened(world, "other", [first]), opened(world, "again", [first, second])
    world.container.sockets.gone.add("c1")

    detect(world, first)

    assert world.container.connections.get("c1") is None
    assert subscribers(world, first, second) == [["again", "other"], ["again"]]
    assert (world.container.connections.get("other"), world.container.connections.get("again")) == (other, again)


def test_a_subscription_of_a_closed_socket_is_deleted_by_the_next_frame() -> None:
    """The subscription was being written while the socket closed."""
    world = World(Script())
    job = world.submit()
    world.watch(job, "late")
    world.container.sockets.gone.add("late")

    world.deliver()

    assert subscribers(world, job) == [[]]


@pytest.mark.parametrize("detect", [by_the_change_stream, by_a_worker])
def test_a_refused_socket_loses_only_the_failing_subscription(detect: Callable[[World, Job], None]) -> None:
    """A missing permission must not disconnect every client."""
    world = World()
    first, second = world.submit("first"), world.submit("second")
    world.container.queues.messages["normal"].pop()
    opened(world, "c1", [first, second])
    world.container.sockets.refused.add("c1")

    detect(world, first)

    assert world.container.connections.get("c1") is not None
    assert subscribers(world, first, second) == [[], ["c1"]]


@pytest.mark.parametrize("busy", [1, 2])
def test_a_busy_socket_keeps_its_subscription_and_gets_the_whole_text(busy: int) -> None:
    """429, 5xx and timeouts slow down one reader only."""
    world = World()
    job = world.submit()
    opened(world, "c1", [job])
    opened(world, "c2", [job])
    world.container.sockets.busy["c1"] = busy

    world.deliver()

    assert subscribers(world, job) == [["c1", "c2"]]
    assert [world.assembled(each).text for each in ("c1", "c2")] == ["Hello, world"] * 2


def test_a_reply_to_a_busy_socket_keeps_its_connection() -> None:
    world = World()
    opened(world)
    world.container.sockets.busy["c1"] = 1

    with pytest.raises(ConnectionBusy):
        send_reply(world.container, ENDPOINT, "c1", {"event": "pong"})

    assert world.container.connections.get("c1") is not None


# ---- connections that receive no frames


def test_every_connection_is_probed_within_eight_minutes() -> None:
    """Each run probes one shard; open connections stay."""
    world = World()
    ids = [f"c{number}" for number in range(80)]
    for each in ids:
        opened(world, each)
    gone = set(ids[::2])
    world.container.sockets.gone |= gone
    world.clock.advance(MIN_AGE_MS / 1000)

    found: Counter[str] = Counter()
    for _ in range(CONNECTION_SHARDS):
        run = world.sweep(after=60)
        assert run["connection_closed"] <= len(ids) / 2
        found += run

    assert found["connection_closed"] == len(gone)
    assert {each for each in ids if world.container.connections.get(each)} == set(ids) - gone


def test_a_connection_that_is_being_opened_is_not_pruned() -> None:
    """Its row is written first, and API Gateway reports it as gone until `$connect` is answered."""
    world = World()
    world.clock.advance(_seconds_until_probe_of(world, "c1"))
    opened(world)
    world.container.sockets.gone.add("c1")

    world.sweep()

    assert world.container.connections.get("c1") is not None


def test_an_expired_connection_is_deleted_without_a_probe() -> None:
    """DynamoDB's TTL may take two days to delete its row."""
    world = World()
    job = world.submit()
    connection = opened(world, "c1", [job])
    world.container.sockets.busy["c1"] = 100
    world.clock.advance((connection.expires_at - world.clock.now()) / 1000)
    world.clock.advance(_seconds_until_probe_of(world, "c1"))

    assert world.sweep()["connection_expired"] == 1

    assert world.container.connections.get("c1") is None
    assert subscribers(world, job) == [[]]
    assert world.container.sockets.busy["c1"] == 100


def test_unanswered_probes_end_the_probing_of_a_run() -> None:
    """An outage of API Gateway must not be taken for closed connections."""
    world = World()
    ids = [each for each in (f"c{number}" for number in range(200)) if connection_shard(each) == 0][:10]
    for each in ids:
        opened(world, each)
        world.container.sockets.busy[each] = 1
    world.clock.advance(60)
    world.clock.advance(_seconds_until_probe_of(world, ids[0]))

    assert world.sweep() == {"connection_unknown": 3}

    assert sum(world.container.sockets.busy.values()) == len(ids) - 3
    assert all(world.container.connections.get(each) for each in ids)


def test_a_sweep_run_probes_a_limited_number_of_connections() -> None:
    world = World()
    for each in (f"c{number}" for number in range(CONNECTION_SHARDS * MAX_PROBED * 2)):
        opened(world, each)
        world.container.sockets.gone.add(each)
    world.clock.advance(60)

    assert world.sweep(after=60)["connection_closed"] == MAX_PROBED


def test_closing_a_connection_twice_is_harmless() -> None:
    """`$disconnect` may come late or more than once."""
    world = World()
    job = world.submit()
    opened(world, "c1", [job])

    close_connection(world.container, "c1")
    close_connection(world.container, "c1")

    assert subscribers(world, job) == [[]]


def _seconds_until_probe_of(world: World, connection_id: str) -> float:
    """Seconds until the sweeper probes the shard of this connection."""
    minute = world.clock.now() // 60_000
    ahead = (connection_shard(connection_id) - minute) % CONNECTION_SHARDS or CONNECTION_SHARDS
    return ((minute + ahead) * 60_000 - world.clock.now()) / 1000
