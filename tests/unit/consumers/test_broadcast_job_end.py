"""Broadcasts from the change stream: bounded in time, never a dead letter, never a failure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from chalicelib.consumers.broadcast_job_end import TIME_BUDGET_MS, broadcast_job_ends
from chalicelib.consumers.change_loop import Change
from chalicelib.domain.errors import ConnectionBusy, Throttled
from chalicelib.domain.jobs.job import Status
from chalicelib.services.streaming.broadcast_states import SEND_MS
from tests.kit.failing_store import refusing
from tests.kit.world import World


def ended(world: World, prompt: str = "Say hello.", *connections: str) -> Change:
    """Complete a job that has subscribers. Return the change, which has not been broadcast."""
    job = world.submit(prompt)
    for connection in connections or ("c1",):
        world.watch(job, connection)
    after = replace(job, status=Status.COMPLETED, version=2, due_at=None, length=0, finished_at=world.clock.now())
    world.container.jobs.records[job.id] = after
    return job.id, job, after


def broadcast(world: World, *changes: Change) -> None:
    """Broadcast; nothing may be dead-lettered."""
    broadcast_job_ends(world.container, changes)
    assert world.container.queues.dead_lettered["stream"] == []


def skipped(world: World) -> list[dict[str, Any]]:
    return [fields for fact, fields in world.log_lines if fact == "states_not_broadcast"]


@pytest.mark.parametrize("method", ["controls", "for_job"])
def test_a_throttled_broadcast_is_retried(method: str) -> None:
    """Two throttles delay the frame by less than a second."""
    world = World()
    change = ended(world)

    with refusing(world.container.subscriptions, method, 2):
        broadcast(world, change)

    assert [frame["event"] for frame in world.frames()] == ["job_completed"]
    assert world.loop.moment < 1


@pytest.mark.parametrize("error", [Throttled, ValueError])
def test_a_job_whose_subscriptions_cannot_be_read_is_skipped_and_logged(error: type[Exception]) -> None:
    """The other job is broadcast."""
    world = World()
    lost, other = ended(world), ended(world, "another", "c2")
    for_job = world.container.subscriptions.for_job

    def for_other_jobs(job_id: str) -> object:
        if job_id == lost[0]:
            raise error
        return for_job(job_id)

    world.container.subscriptions.for_job = for_other_jobs  # type: ignore[assignment, method-assign]
    broadcast(world, lost, other)

    assert [frame["event"] for frame in world.frames("c2")] == ["job_completed"]
    assert lost[0] in [fields.get("job_id") for fields in skipped(world)]


def test_a_failing_socket_or_key_does_not_stop_the_others() -> None:
    world = World()
    change = ended(world, "x", "c1", "c2")
    post = world.container.sockets.post

    def fail(endpoint: str, connection: str, data: bytes) -> None:
        if connection == "c1":
            raise ValueError
        post(endpoint, connection, data)

    world.container.sockets.post = fail  # type: ignore[method-assign]
    broadcast(world, change)

    assert [frame["event"] for frame in world.frames("c2")] == ["job_completed"]
    assert len(skipped(world)) == 2  # the socket, and the sum


def test_all_jobs_of_a_batch_share_one_time_budget() -> None:
    """A hundred failing reads must fit into the function's time."""
    world = World()
    changes = [ended(world, str(number), f"c{number}") for number in range(100)]

    with refusing(world.container.subscriptions, "for_job", 10**6):
        broadcast(world, *changes)

    assert world.loop.moment * 1000 <= TIME_BUDGET_MS
    assert skipped(world)[-1]["jobs"] == 100


def hanging(world: World, seconds: float) -> Callable[..., None]:
    def hang(*_: Any) -> None:
        world.clock.advance(seconds)
        raise ConnectionBusy

    return hang


def test_thirty_hanging_sockets_take_no_longer_than_the_budget() -> None:
    """Even one after the other, each for as long as a post may take."""
    world = World()
    changes = [ended(world, str(job), *(f"c{job}-{number}" for number in range(10))) for job in range(3)]
    world.container.sockets.post = hanging(world, SEND_MS / 1000)  # type: ignore[method-assign]

    broadcast(world, *changes)

    assert world.loop.moment * 1000 <= TIME_BUDGET_MS
    assert skipped(world)[-1]["sockets"] > 20


def test_a_hanging_socket_gets_only_the_first_of_several_states() -> None:
    """It would take a thread again for each of them."""
    world = World()
    job_id, before, after = ended(world)
    assert before is not None
    held = replace(before, status=Status.HELD, version=2, reason="circuit_open", resume_at=world.clock.now())
    with refusing(world.container.sockets, "post", 1, ConnectionBusy) as posts:
        broadcast(world, (job_id, before, held), (job_id, held, after))

    assert posts == [1]


def test_states_of_a_job_are_sent_in_order_with_one_query() -> None:
    world = World()
    job_id, before, after = ended(world)
    assert before is not None
    held = replace(before, status=Status.HELD, version=2, reason="circuit_open", resume_at=world.clock.now())

    with refusing(world.container.subscriptions, "for_job", 0) as queries:
        broadcast(world, (job_id, None, before), (job_id, before, held), (job_id, held, after))

    assert [frame["event"] for frame in world.frames()] == ["held", "job_completed"]
    assert queries == [1]


def test_jobs_that_nobody_has_watched_cost_one_request_together() -> None:
    world = World()
    changes = []
    for number in range(60):
        job = world.submit(str(number))
        changes.append((job.id, job, replace(job, status=Status.COMPLETED, version=2, length=0)))

    with (
        refusing(world.container.subscriptions, "controls", 0) as reads,
        refusing(world.container.subscriptions, "for_job", 0) as queries,
    ):
        broadcast(world, *changes)

    assert (reads, queries) == ([1], [0])


def test_states_without_a_frame_cost_nothing() -> None:
    world = World()
    job = world.submit()
    world.watch(job)

    with refusing(world.container.subscriptions, "controls", 0) as reads:
        broadcast(world, (job.id, None, job), (job.id, job, replace(job, status=Status.PROCESSING, version=2)))

    assert reads == [0]
