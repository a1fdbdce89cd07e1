"""The sweeper: every unfinished job reaches its end after crashes and lost messages."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from chalicelib.domain.errors import Throttled
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.jobs.transitions import MAX_ISOLATED_CRASHES, restart
from chalicelib.services.jobs.cancel_job import cancel_job
from chalicelib.services.worker.process_messages import process_messages
from tests.kit.provider import Script
from tests.kit.world import World, kill

SLOW = Script(deltas=[f"t{n} " for n in range(100)], every=0.1)


def test_the_job_of_a_dead_worker_runs_again() -> None:
    """Its lease expires and is fenced; the job gets a new generation and a new attempt."""
    world = World(SLOW, Script(deltas=["whole"]))
    job = world.submit()
    world.watch(job)
    kill(world, 5)
    assert world.job(job).status is Status.PROCESSING

    assert not world.sweep(after=5)
    assert world.sweep(after=30)["lease_reaped"] == 1
    reclaimed = world.job(job)
    assert (reclaimed.status, reclaimed.generation, reclaimed.crashes, reclaimed.tries) == (Status.QUEUED, 2, 1, 0)
    assert reclaimed.length == len(world.log_text(job)) > 0
    [lost] = world.container.results.attempts(job.id)
    assert (lost.error_code, lost.usage.estimated if lost.usage else None) == ("worker_lost", True)
    assert reclaimed.cost == lost.cost is not None
    world.deliver()

    ended = world.job(job)
    assert (ended.status, ended.attempt) == (Status.COMPLETED, 2)
    assert world.assembled().text == "whole"
    assert not world.container.leases.rows


def test_the_sweeper_does_not_disturb_a_living_worker() -> None:
    world = World(Script(deltas=["x"] * 600, every=0.2))
    job = world.submit()

    async def sweeps() -> None:
        for _ in range(12):
            await asyncio.sleep(10)
            world.sweep()

    async def work() -> None:
        await asyncio.gather(process_messages(world.container, "normal", world.container.queues.receive("normal")), sweeps())

    world.loop.run_until_complete(work())

    assert (world.job(job).status, world.job(job).attempt) == (Status.COMPLETED, 1)


def test_the_sweeper_completes_a_job_from_its_stored_result() -> None:
    """Only the terminal write was missing, so OpenAI must not be paid twice."""
    world = World(Script(deltas=["all of it"]))
    job = world.submit()
    replaced = world.container.jobs.replace

    def fail_terminal_write(seen: Job, new: Job) -> None:
        if new.status.is_terminal:
            raise KeyError("killed")
        replaced(seen, new)

    world.container.jobs.replace = fail_terminal_write  # type: ignore[method-assign]
    with pytest.raises(Exception, match="come again"):
        world.deliver()
    world.container.jobs.replace = replaced  # type: ignore[method-assign]

    world.sweep(after=40)

    ended = world.job(job)
    assert (ended.status, ended.attempt, ended.length) == (Status.COMPLETED, 1, 9)
    assert ended.usage is not None
    assert len(world.provider.requests) == 1


def test_a_lost_wake_up_is_sent_again_with_the_same_generation() -> None:
    """The intervals grow, so that a deep queue is not filled with duplicates."""
    world = World()
    job = world.submit()
    world.container.queues.messages["normal"].clear()

    for _ in range(64):
        world.sweep(after=60)

    sent = [wake_up for _, wake_up in world.container.queues.sent]
    assert {wake_up.generation for wake_up in sent} == {1}
    assert 4 <= len(sent) <= 8
    world.deliver()
    assert world.job(job).status is Status.COMPLETED


def test_a_job_not_started_in_time_is_expired_by_the_sweeper() -> None:
    world = World()
    job = world.submit(expires_in=300.0)
    world.container.queues.messages["normal"].clear()

    for _ in range(10):
        world.sweep(after=60)

    assert world.job(job).status is Status.EXPIRED
    for lane in (None, job.lane):
        assert not world.container.jobs.due(lane, world.clock.now() + 10**9, 100)


def test_the_sweeper_cancels_a_flagged_job_whose_worker_died() -> None:
    """The text so far is kept."""
    world = World(SLOW)
    job = world.submit()
    kill(world, 5)
    cancel_job(world.container, world.job(job))

    world.sweep(after=40)

    ended = world.job(job)
    assert ended.status is Status.CANCELLED
    assert ended.length == len(world.log_text(job))


def test_a_poison_job_fails_without_failing_the_jobs_of_its_batch() -> None:
    """After a crash each job runs alone, and only repeated crashes alone fail a job."""
    world = World(SLOW)
    jobs = [world.submit(str(number)) for number in range(10)]
    poison = jobs[3]
    kill(world, 3)
    world.sweep(after=40)
    assert {world.job(job).crashes for job in jobs} == {1}

    world.provider.scripts[:] = [Script()]
    for _ in range(60):
        for message in world.container.queues.receive("normal", 1):
            if poison.id in message.body:
                world.provider.scripts[:] = [SLOW]
                kill(world, 3, [message])
                world.provider.scripts[:] = [Script()]
            else:
                world.deliver(messages=[message])
            world.container.queues.acknowledge("normal", [message.receipt])
        world.sweep(after=40)

    ends = {job.id: world.job(job) for job in jobs}
    assert ends.pop(poison.id).status is Status.FAILED
    assert world.job(poison).isolated_crashes == MAX_ISOLATED_CRASHES
    assert world.job(poison).error.code == "worker_lost"  # type: ignore[union-attr]
    assert {job.status for job in ends.values()} == {Status.COMPLETED}


def test_a_job_that_has_crashed_runs_alone() -> None:
    """It waits until the other jobs of its message batch have run."""
    world = World()
    jobs = [world.submit(str(number)) for number in range(4)]
    suspect = jobs[2]
    world.container.jobs.records[suspect.id] = replace(world.job(suspect), crashes=1)
    running_counts: list[int] = []
    stream = world.provider.stream

    def note(request: Any) -> Any:
        running_counts.append(len([job for job in world.container.jobs.records.values() if job.status is Status.PROCESSING]))
        return stream(request)

    world.provider.stream = note  # type: ignore[method-assign]
    world.deliver()
    assert world.job(suspect).status is Status.QUEUED
    world.deliver()

    assert {job.status for job in world.container.jobs.records.values()} == {Status.COMPLETED}
    assert running_counts[-1] == 1


def test_a_job_that_cannot_be_swept_does_not_block_the_others() -> None:
    world = World()
    jobs = [world.submit(str(number)) for number in range(5)]
    world.container.queues.messages["normal"].clear()
    send = world.container.queues.send

    def broken(lane: str, wake_up: Any, tenant: str, delay: int = 0) -> None:
        if wake_up.job_id == jobs[0].id:
            raise Throttled
        send(lane, wake_up, tenant, delay)

    world.container.queues.send = broken  # type: ignore[method-assign]
    done = world.sweep(after=130)

    assert (done["failed"], done["resent"]) == (1, 4)


def test_a_second_sweep_does_not_reclaim_a_job_again() -> None:
    world = World(SLOW, Script())
    job = world.submit()
    kill(world, 2)
    world.clock.advance(40)

    world.sweep()
    world.sweep()

    assert (world.job(job).generation, world.job(job).crashes) == (2, 1)


def test_due_at_is_set_exactly_while_a_job_is_unfinished() -> None:
    """Protocol rule 15: everything unfinished has `due_at`."""
    world = World(SLOW)
    replaced = world.container.jobs.replace
    seen: list[Status] = []

    def check(before: Job, after: Job) -> None:
        seen.append(after.status)
        assert (after.due_at is None) == after.status.is_terminal
        replaced(before, after)

    world.container.jobs.replace = check  # type: ignore[method-assign]
    world.submit()
    kill(world, 2)
    world.sweep(after=40)
    world.provider.scripts[:] = [Script()]
    world.deliver()

    assert seen == [Status.PROCESSING, Status.QUEUED, Status.PROCESSING, Status.COMPLETED]


@pytest.mark.parametrize("delay", [30.0, 899.0, 901.0, 86_400.0, 30 * 86_400.0])
def test_a_delayed_job_starts_once_at_its_run_at_time(delay: float) -> None:
    """Also beyond the 15 minutes by which SQS can delay a message."""
    world = World()
    job = world.submit(run_at=world.clock.now() + round(delay * 1000))
    assert (world.job(job).status, world.job(job).reason) == (Status.WAITING, "run_at")

    world.sweep()
    world.clock.advance(max(0.0, delay - 150))  # skips sweeps that find nothing due
    while world.job(job).started_at is None and world.loop.moment < delay + 300:
        if world.loop.moment % 60 < 1:
            world.sweep()
        world.deliver()
        world.clock.advance(1.0)

    ended = world.job(job)
    assert ended.status is Status.COMPLETED
    assert ended.started_at is not None
    assert 0 <= ended.started_at - job.created_at - delay * 1000 <= 5_000
    assert len(world.provider.requests) == 1
    assert len(world.container.queues.sent) == 1


def test_a_delayed_job_can_be_cancelled_or_started_now() -> None:
    """The wake-up for the original time has no effect."""
    world = World()
    first, second = (world.submit(str(n), run_at=world.clock.now() + 60_000) for n in (1, 2))
    cancel_job(world.container, first)
    again = restart(world.job(second), world.clock.now(), 1, 1)
    assert again is not None
    world.container.jobs.replace(world.job(second), again)
    world.deliver(messages=[world.wake(again)])
    world.clock.advance(61)
    world.deliver()

    assert [world.job(job).status for job in (first, second)] == [Status.CANCELLED, Status.COMPLETED]
    assert len(world.provider.requests) == 1
