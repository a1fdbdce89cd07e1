"""Broadcasts of job ends: a failing record is retried, blocks no other and is not lost."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chalicelib.consumers.broadcast_job_end import broadcast_job_ends
from chalicelib.consumers.change_loop import TIME_BUDGET_MS, Change, DeadLetterFailed
from chalicelib.domain.errors import Throttled
from chalicelib.domain.jobs.job import Status
from tests.kit.failing_store import refusing
from tests.kit.world import World


def ended(world: World, prompt: str = "Say hello.", connection: str = "c1") -> Change:
    """Complete a job that has a subscriber. Return the change, which has not been broadcast."""
    job = world.submit(prompt)
    world.watch(job, connection)
    after = replace(job, status=Status.COMPLETED, version=2, due_at=None, length=0, finished_at=world.clock.now())
    world.container.jobs.records[job.id] = after
    return job.id, job, after


def broadcast(world: World, *changes: Change) -> None:
    broadcast_job_ends(world.container, changes)


def dead_letters(world: World) -> list[str]:
    return [body for body, _ in world.container.queues.dead_lettered["stream"]]


def test_a_throttled_broadcast_is_retried() -> None:
    """Two throttles delay the frame by less than a second."""
    world = World()
    change = ended(world)

    with refusing(world.container.subscriptions, "for_job", 2):
        broadcast(world, change)

    assert [frame["event"] for frame in world.frames()] == ["job_completed"]
    assert dead_letters(world) == []
    assert world.loop.moment < 1


def test_a_record_whose_store_stays_down_goes_to_the_dead_letter_queue() -> None:
    """The other record is broadcast."""
    world = World()
    lost, other = ended(world), ended(world, "another", "c2")
    for_job = world.container.subscriptions.for_job

    def for_other_jobs(job_id: str) -> object:
        if job_id == lost[0]:
            raise Throttled
        return for_job(job_id)

    world.container.subscriptions.for_job = for_other_jobs  # type: ignore[assignment, method-assign]
    broadcast(world, lost, other)

    assert dead_letters(world) == [lost[0]]
    assert [frame["event"] for frame in world.frames("c2")] == ["job_completed"]


def test_all_records_of_a_call_share_one_retry_budget() -> None:
    """A hundred failing records must fit into the function's time."""
    world = World()
    changes = [ended(world, str(number), f"c{number}") for number in range(100)]

    with refusing(world.container.subscriptions, "for_job", 10**6):
        broadcast(world, *changes)

    assert world.loop.moment * 1000 <= TIME_BUDGET_MS
    assert len(dead_letters(world)) == 100


def test_a_non_retryable_error_dead_letters_its_record_at_once() -> None:
    world = World()
    change = ended(world)

    with refusing(world.container.subscriptions, "for_job", 1, ValueError):
        broadcast(world, change)

    assert dead_letters(world) == [change[0]]
    assert world.loop.moment == 0


def test_an_end_that_cannot_be_dead_lettered_is_redelivered() -> None:
    """The other record is broadcast first."""
    world = World()
    other, broken = ended(world), ended(world, "broken", "c2")

    with (
        refusing(world.container.subscriptions, "for_job", 1, ValueError),
        refusing(world.container.queues, "send_to_dead_letter", 4),
        pytest.raises(DeadLetterFailed, match="1 records"),
    ):
        broadcast(world, broken, other)
    assert [frame["event"] for frame in world.frames()] == ["job_completed"]
    assert dead_letters(world) == []

    with refusing(world.container.subscriptions, "for_job", 1, ValueError):
        broadcast(world, broken, other)
    assert dead_letters(world) == [broken[0]]


def test_sending_to_the_dead_letter_queue_is_retried() -> None:
    world = World()
    change = ended(world)

    with (
        refusing(world.container.subscriptions, "for_job", 1, ValueError),
        refusing(world.container.queues, "send_to_dead_letter", 3),
    ):
        broadcast(world, change)

    assert dead_letters(world) == [change[0]]


def test_a_change_that_cannot_be_read_is_logged_and_stops_no_other() -> None:
    """Another version of the code wrote it. A dead letter would name a job that is well."""
    world = World()
    other = ended(world)

    broadcast(world, ("job_1", None, None), other)

    assert [frame["event"] for frame in world.frames()] == ["job_completed"]
    assert dead_letters(world) == []
    assert ("change_unreadable", {"job_id": "job_1"}) in world.log_lines
