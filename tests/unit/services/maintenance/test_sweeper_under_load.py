"""The sweeper with more work than one run can do: bounded runs that isolate failing records."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from chalicelib.domain.errors import Unavailable
from chalicelib.domain.jobs.index_keys import due_shard
from chalicelib.domain.jobs.job import Job, JobError, Status
from chalicelib.domain.queues.lanes import HOME_QUEUES, LANES
from chalicelib.ports import Lease
from chalicelib.services.maintenance.sweeper import BUDGET_MS, MAX_PER_PARTITION
from chalicelib.services.worker.process_messages import process_messages
from tests.kit.failing_store import refusing
from tests.kit.provider import Script
from tests.kit.unreadable import make_unreadable
from tests.kit.world import World

SECOND = 1.0


def put_due(world: World, number: int, **changes: Any) -> Job:
    """Submit a job whose wake-up is lost, with changes to its record."""
    job = world.submit(f"prompt {number}")
    world.container.queues.messages[job.lane].clear()
    world.container.jobs.records[job.id] = replace(job, **changes)
    return world.container.jobs.records[job.id]


def slow_down(world: World, port: Any, method: str, seconds: float) -> None:
    """Let each call of this method take so many seconds."""
    real = getattr(port, method)

    def call(*args: Any, **named: Any) -> Any:
        world.clock.advance(seconds)
        return real(*args, **named)

    setattr(port, method, call)


def sent(world: World) -> set[str]:
    return {wake_up.job_id for _, wake_up in world.container.queues.sent}


def clear_sent(world: World) -> None:
    world.container.queues.sent.clear()


# ---- one run is bounded, and the next one continues


def test_a_sweep_run_stops_at_its_budget_and_the_next_one_continues() -> None:
    """The oldest jobs come first, and none is handled twice before all were handled once."""
    world = World()
    jobs = [put_due(world, number) for number in range(100)]
    clear_sent(world)
    slow_down(world, world.container.queues, "send", SECOND)
    world.clock.advance(130)

    began = world.clock.now()
    done = world.sweep()
    took = world.clock.now() - began
    first = sent(world)
    assert BUDGET_MS <= took <= BUDGET_MS + 2_000
    assert (done["resent"], done["deferred"]) == (40, 60)
    assert first == {job.id for job in jobs[:40]}

    world.sweep(after=20)
    world.sweep(after=20)
    assert sent(world) == {job.id for job in jobs}
    firsts = [wake_up.job_id for _, wake_up in world.container.queues.sent][:100]
    assert len(set(firsts)) == 100


def test_every_lane_and_retry_gets_a_share_of_a_short_sweep_run() -> None:
    world = World()
    waiting = [put_due(world, number) for number in range(200)]
    retry = put_due(world, 900, status=Status.RETRYING, generation=2, resume_at=world.clock.now() + 1, due_at=world.clock.now() + 120_001)
    others = [put_due(world, 901 + at, lane=lane) for at, lane in enumerate(LANES) if lane != "normal"]
    clear_sent(world)
    slow_down(world, world.container.queues, "send", SECOND)

    world.sweep(after=130)

    assert {retry.id, *(job.id for job in others)} < sent(world)
    assert len(sent(world) & {job.id for job in waiting}) == 36


def test_expired_leases_use_at_most_half_of_a_sweep_run() -> None:
    """Due jobs get the rest; the remaining leases are left to the next run."""
    world = World()
    for number in range(60):
        lease = Lease(id=f"lease-{number:02}", lane="normal", started_at=0, expires_at=world.clock.now() + number)
        world.container.leases.open(lease)
    job = put_due(world, 1)
    clear_sent(world)
    slow_down(world, world.container.leases, "fence", SECOND)

    done = world.sweep(after=130)

    assert (done["lease_reaped"], done["deferred"], done["resent"]) == (20, 40, 1)
    assert sent(world) == {job.id}
    assert min(world.container.leases.rows) == "lease-20"


# ---- failing records do not block others


def broken_for(world: World, poison: Sequence[str]) -> Callable[..., None]:
    send, bad = world.container.queues.send, set(poison)

    def broken(lane: str, wake_up: Any, tenant: str, delay: int = 0) -> None:
        if wake_up.job_id in bad:
            raise ValueError("this one can never be sent")
        send(lane, wake_up, tenant, delay)

    return broken


@pytest.mark.parametrize("count", [200, 9 * MAX_PER_PARTITION])
def test_failing_records_at_the_head_of_the_index_do_not_starve_others(count: int) -> None:
    """Even if they are more than all index partitions return in one run."""
    world = World()
    poison = [put_due(world, number).id for number in range(count)]
    world.clock.advance(1)
    healthy = [put_due(world, count + number) for number in range(20)]
    clear_sent(world)
    world.container.queues.send = broken_for(world, poison)  # type: ignore[method-assign]

    runs: list[Counter[str]] = [world.sweep(after=130 if not run else 60) for run in range(2)]

    assert sent(world) == {job.id for job in healthy}
    returned = sum(min(MAX_PER_PARTITION, filled) for filled in Counter(map(due_shard, poison)).values())
    assert (runs[0]["failed"], runs[1]["failed"]) == (returned, count - returned)


def test_unreadable_records_are_postponed_and_do_not_starve_others() -> None:
    """Another version of the code wrote them, so they are postponed by their id alone."""
    world = World()
    unreadable = {put_due(world, number).id for number in range(200)}
    world.clock.advance(1)
    healthy = [put_due(world, 200 + number) for number in range(5)]
    clear_sent(world)
    make_unreadable(world.container.jobs, *unreadable)
    world.sweep(after=130)

    assert sent(world) == {job.id for job in healthy}
    assert Counter(fact for fact, _ in world.log_lines)["job_record_unreadable"] == 200
    world.log_lines.clear()
    world.sweep(after=60)
    assert not [fact for fact, _ in world.log_lines if fact == "job_record_unreadable"]


def test_a_throttled_job_is_swept_again_in_the_next_run() -> None:
    """A throttle is no reason to postpone a job for long."""
    world = World()
    job = put_due(world, 1)
    clear_sent(world)

    with refusing(world.container.queues, "send"):
        assert world.sweep(after=130)["failed"] == 1
    world.sweep(after=60)

    assert sent(world) == {job.id}


def test_a_failing_index_partition_does_not_hide_the_others() -> None:
    """Neither do failing reads of leases or connections; each failure is logged."""
    world = World()
    retry = put_due(world, 1, status=Status.RETRYING, resume_at=world.clock.now(), due_at=world.clock.now())
    clear_sent(world)
    memory = world.container
    due = memory.jobs.due

    def fail_queues(queue: str | None, until: int, limit: int) -> list[str]:
        if queue is not None:
            raise Unavailable
        return due(queue, until, limit)

    memory.jobs.due = fail_queues  # type: ignore[method-assign]
    with refusing(memory.leases, "all", 9), refusing(memory.connections, "sample", 9):
        done = world.sweep(after=5)

    assert done["resent"] == 1
    assert sent(world) == {retry.id}
    logged = [about.get("what") for fact, about in world.log_lines if fact == "sweep_step_failed"]
    assert logged == ["leases", *HOME_QUEUES, "connections", "in_line"]


def test_a_lease_with_an_unreclaimed_job_is_kept_for_the_next_sweep() -> None:
    """The other jobs of the lease are reclaimed at once."""
    world = World(Script(deltas=["x"] * 100, every=0.1))
    jobs = [world.submit(str(number)) for number in range(3)]
    received = world.container.queues.receive("normal")

    async def crash() -> None:
        worker = asyncio.ensure_future(process_messages(world.container, "normal", received))
        await asyncio.sleep(3)
        with refusing(world.container.leases, "close", 99):
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)

    world.loop.run_until_complete(crash())
    with refusing(world.container.results, "put_if_absent"):
        assert world.sweep(after=40)["lease_kept"] == 1
    assert Counter(world.job(job).status for job in jobs) == {Status.QUEUED: 2, Status.PROCESSING: 1}
    assert all(lease.fenced for lease in world.container.leases.rows.values())

    assert world.sweep(after=60)["lease_reaped"] == 1
    assert {world.job(job).status for job in jobs} == {Status.QUEUED}


# ---- a deep queue


def drain(world: World, jobs: int, workers: int) -> None:
    """Run workers with one message at a time, and sweep every minute, until the queue is empty."""

    async def run_worker(number: int) -> None:
        await asyncio.sleep(number * 3)  # staggered, so that one is always running
        while received := world.container.queues.receive("normal", 1):
            await process_messages(world.container, "normal", received)
            world.container.queues.acknowledge("normal", [message.receipt for message in received])

    async def sweeps() -> None:
        while True:
            await asyncio.sleep(60)
            world.sweep()

    async def work() -> None:
        sweeping = asyncio.ensure_future(sweeps())
        await asyncio.gather(*(run_worker(number) for number in range(workers)))
        sweeping.cancel()

    for number in range(jobs):
        world.submit(f"prompt {number}")
        world.clock.advance(0.01)
    world.loop.run_until_complete(work())


def test_a_deep_queue_gets_no_duplicate_wake_ups() -> None:
    """The lane's watermark shows that the waiting jobs are still in the queue."""
    world = World(Script(deltas=["x"] * 90, every=0.1))

    drain(world, jobs=200, workers=3)

    assert world.loop.moment > 600
    assert {job.status for job in world.container.jobs.records.values()} == {Status.COMPLETED}
    assert len(world.container.queues.sent) == 200
    assert len(world.provider.requests) == 200


def test_without_watermarks_duplicate_wake_ups_come_at_growing_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of an older version report no watermark; the duplicates stay few."""
    world = World(Script(deltas=["x"] * 90, every=0.1))
    opened = world.container.leases.open
    monkeypatch.setattr(world.container.leases, "open", lambda lease: opened(replace(lease, watermark=0, watermarks={})))

    drain(world, jobs=200, workers=3)

    assert {job.status for job in world.container.jobs.records.values()} == {Status.COMPLETED}
    assert len(world.provider.requests) == 200
    assert len(world.container.queues.sent) > 200
    assert max(Counter(wake_up.job_id for _, wake_up in world.container.queues.sent).values()) <= 4  # 120, 240 and 480 s


def test_a_wake_up_lost_in_a_deep_queue_is_sent_again() -> None:
    """Once the watermark has passed the job, or no worker is left."""
    world = World(Script(deltas=["x"] * 90, every=0.1))
    lost = world.submit("lost")
    world.container.queues.messages["normal"].clear()
    world.clock.advance(1)

    drain(world, jobs=60, workers=3)
    world.sweep(after=130)
    world.deliver()

    assert world.job(lost).status is Status.COMPLETED
    assert max(Counter(wake_up.job_id for _, wake_up in world.container.queues.sent).values()) == 2


# ---- log events for alerts


def test_jobs_failed_by_the_sweeper_are_logged_with_code_and_crashes() -> None:
    """Alerts use this log line."""
    world = World(Script(deltas=["x"] * 100, every=0.1))
    job = world.submit()
    error = JobError(code="provider_overloaded", error_class="server", retryable=True, message="m", suggestion="s", attempt=1)
    late = put_due(world, 2, status=Status.RETRYING, error=error, retry_until=world.clock.now(), due_at=world.clock.now())
    world.container.jobs.records[job.id] = replace(world.job(job), isolated_crashes=2, crashes=2)
    received = [world.wake(job)]

    async def crash() -> None:
        worker = asyncio.ensure_future(process_messages(world.container, "normal", received))
        await asyncio.sleep(3)
        with refusing(world.container.leases, "close", 99):
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)

    world.loop.run_until_complete(crash())
    world.sweep(after=40)

    logged = {about["job_id"]: (about["code"], about["crashes"]) for fact, about in world.log_lines if fact == "job_failed"}
    assert logged == {job.id: ("worker_lost", 3), late.id: ("provider_overloaded", 0)}
