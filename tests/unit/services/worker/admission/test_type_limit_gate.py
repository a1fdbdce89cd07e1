"""Limits of job types in the worker: both limits hold, and held jobs start as reserved."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from typing import Any

import pytest

from chalicelib.domain.errors import Throttled
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.jobs.job_type import JobType, Limits
from chalicelib.domain.limits.circuit_breaker import CircuitBreaker, force_open
from chalicelib.domain.limits.type_limiter import SLOT_TTL_MS
from chalicelib.services.jobs.cancel_job import cancel_job
from chalicelib.services.worker.process_messages import process_messages
from chalicelib.services.worker.run_task import TaskRun
from chalicelib.settings import Settings, SettingsError
from tests.kit.failing_store import refusing
from tests.kit.provider import Script
from tests.kit.task_types import chore, chore_world, run_to_end, with_job_types
from tests.kit.world import World, kill


class RecordingHandler:
    """A task handler that runs for these seconds in turn, and records starts and overlaps."""

    def __init__(self, *seconds: float) -> None:
        self.starts: list[int] = []
        self.running = self.max_running = 0
        self._seconds = seconds

    async def __call__(self, task: TaskRun) -> Any:
        self.starts.append(task.context.clock.now())
        self.running += 1
        self.max_running = max(self.max_running, self.running)
        try:
            await asyncio.sleep(self._seconds[(len(self.starts) - 1) % len(self._seconds)])
        finally:
            self.running -= 1
        return "done"

    def max_starts_per_minute(self) -> int:
        """The most starts within 58 seconds.

        Messages are delayed by whole seconds, so a start may be up to two seconds late.
        """
        return max(sum(1 for other in self.starts if start <= other < start + 58_000) for start in self.starts)


def submitted(world: World, count: int, **fields: Any) -> list[Job]:
    return [world.submit(None, input=number, job_type="chore", **fields) for number in range(count)]


def hold_count(world: World, jobs: list[Job]) -> int:
    """Count the generations after the first. Each hold and each retry adds one."""
    return sum(world.job(job).generation - 1 for job in jobs)


def invocations(world: World) -> list[Coroutine[Any, Any, None]]:
    """Return an invocation of a worker for each task that waits."""
    return [process_messages(world.container, "work", [message]) for message in world.container.queues.receive("work")]


def slots_in_use(world: World) -> int:
    limiter = world.container.type_limiters.get("chore")
    return limiter.slots_in_use(world.clock.now()) if limiter else 0


def test_a_hundred_limited_jobs_keep_the_limits_and_wait_about_once_each() -> None:
    """Two at once and five a minute: each job gets a reservation and starts by it."""
    handler = RecordingHandler(1.0, 4.0)
    world = chore_world(handler, limits=Limits(concurrency=2, per_minute=5))
    jobs = submitted(world, 100)

    run_to_end(world, jobs)

    assert {world.job(job).status for job in jobs} == {Status.COMPLETED}
    assert (handler.max_running, handler.max_starts_per_minute()) == (2, 5)
    assert max(handler.starts) - min(handler.starts) <= 20 * 60_000
    assert hold_count(world, jobs) <= 105
    assert slots_in_use(world) == 0


def test_all_slots_stay_in_use_and_waiting_jobs_are_held_few_times() -> None:
    """Only concurrency is limited here, and each job runs for 50 seconds."""
    handler = RecordingHandler(50.0)
    world = chore_world(handler, limits=Limits(concurrency=2))
    jobs = submitted(world, 20)

    run_to_end(world, jobs)

    assert handler.max_running == 2
    assert max(handler.starts) - min(handler.starts) <= 20 * 50_000
    assert hold_count(world, jobs) <= 100
    assert max(world.job(job).generation for job in jobs) <= 12


def test_a_rate_limited_job_records_its_reason_and_resume_time() -> None:
    """No attempt and no try is used up."""
    world = chore_world(RecordingHandler(1.0), limits=Limits(per_minute=1))
    first, second = submitted(world, 2)
    world.deliver()

    held = world.job(second)

    assert world.job(first).status is Status.COMPLETED
    assert (held.status, held.reason, held.attempt, held.tries) == (Status.HELD, "type_rate", 0, 0)
    assert (held.resume_at or 0) - world.job(first).created_at == 60_000


def test_a_job_without_a_slot_is_held_for_type_concurrency() -> None:
    world = chore_world(RecordingHandler(5.0), limits=Limits(concurrency=1))
    jobs = submitted(world, 2)

    async def scenario() -> None:
        await asyncio.gather(*invocations(world))

    world.loop.run_until_complete(scenario())

    held = next(world.job(job) for job in jobs if world.job(job).status is Status.HELD)

    assert held.reason == "type_concurrency"


def test_a_reservation_survives_an_early_wake_up_but_not_a_late_one() -> None:
    """A reservation is kept for a minute after its time."""
    world = chore_world(RecordingHandler(0.1), limits=Limits(per_minute=1))
    jobs = submitted(world, 3)
    world.deliver()
    second, third = (world.job(job) for job in jobs[1:])
    world.deliver("work", [world.wake(second)])
    early = world.job(second)
    world.clock.advance(200)
    world.container.queues.messages["work"].clear()
    world.deliver("work", [world.wake(early), world.wake(third)])

    assert (early.status, early.resume_at) == (Status.HELD, second.resume_at)
    assert sorted(world.job(job).status for job in jobs[1:]) == [Status.COMPLETED, Status.HELD]


def test_a_duplicate_wake_up_takes_one_permit() -> None:
    """One counted start, one slot, one attempt."""
    handler = RecordingHandler(1.0)
    world = chore_world(handler, limits=Limits(concurrency=2, per_minute=5))
    (job,) = submitted(world, 1)
    world.deliver("work", [world.wake(job), world.wake(job)])

    limiter = world.container.type_limiters.get("chore")

    assert limiter is not None
    assert (world.job(job).attempt, len(limiter.recent_starts), len(handler.starts), slots_in_use(world)) == (1, 1, 1, 0)


def test_a_slot_is_renewed_while_the_job_runs() -> None:
    world = chore_world(RecordingHandler(100.0), limits=Limits(concurrency=1))
    jobs, seen = submitted(world, 2), list[int]()

    async def sample() -> None:
        for _ in range(9):
            await asyncio.sleep(10)
            seen.append(slots_in_use(world))

    async def scenario() -> None:
        await asyncio.gather(*invocations(world), sample())

    world.loop.run_until_complete(scenario())

    assert seen == [1] * 9
    assert slots_in_use(world) == 0
    assert sorted(world.job(job).status for job in jobs) == [Status.COMPLETED, Status.HELD]


def test_the_slot_of_a_dead_worker_expires() -> None:
    """The recovered job acquires a slot like any other."""
    handler = RecordingHandler(5.0)
    world = chore_world(handler, limits=Limits(concurrency=1))
    (job,) = submitted(world, 1)
    kill(world, 2.0)
    with_dead_worker = world.container.type_limiters.get("chore")
    assert with_dead_worker is not None
    world.clock.advance(SLOT_TTL_MS / 1000)

    assert slots_in_use(world) == 0
    run_to_end(world, [job])
    assert (world.job(job).status, slots_in_use(world)) == (Status.COMPLETED, 0)


def test_a_job_cancelled_between_gate_and_claim_releases_its_slot() -> None:
    world = chore_world(RecordingHandler(1.0), limits=Limits(concurrency=1))
    (job,) = submitted(world, 1)
    real = world.container.leases.open

    def open_and_cancel(lease: Any) -> None:
        real(lease)
        cancel_job(world.container, world.job(job))

    world.container.leases.open = open_and_cancel  # type: ignore[method-assign]
    world.deliver()

    assert (world.job(job).status, slots_in_use(world)) == (Status.CANCELLED, 0)


def test_a_job_gets_no_reservation_beyond_its_expiry() -> None:
    """It expires while held and does not delay the job behind it."""
    world = chore_world(RecordingHandler(0.1), limits=Limits(per_minute=1))
    (first,) = submitted(world, 1)
    world.deliver()
    late = world.submit(None, input=1, job_type="chore", expires_in=30)
    third = world.submit(None, input=2, job_type="chore")

    run_to_end(world, [late, third])

    assert world.job(late).status is Status.EXPIRED
    assert (world.job(third).started_at or 0) - (world.job(first).started_at or 0) <= 62_000


@pytest.mark.parametrize("method", ["get", "replace"])
def test_a_job_is_held_while_its_type_limiter_cannot_be_read_or_written(method: str) -> None:
    """A limit protects something, so the job waits until the limiter answers."""
    world = chore_world(RecordingHandler(0.1), limits=Limits(concurrency=1, per_minute=5))
    (job,) = submitted(world, 1)
    with refusing(world.container.type_limiters, method, 10**6):
        world.deliver()
    held = world.job(job)

    run_to_end(world, [job])

    assert (held.status, held.reason) == (Status.HELD, "type_limits_unknown")
    assert world.job(job).status is Status.COMPLETED


def test_a_limiter_write_whose_answer_was_lost_counts_once() -> None:
    world = chore_world(RecordingHandler(0.1), limits=Limits(concurrency=1, per_minute=5))
    (job,) = submitted(world, 1)
    with refusing(world.container.type_limiters, "replace", 1, Throttled, after=True):
        world.deliver()

    limiter = world.container.type_limiters.get("chore")

    assert limiter is not None
    assert (world.job(job).status, len(limiter.recent_starts), slots_in_use(world)) == (Status.COMPLETED, 1, 0)


def test_only_types_with_limits_call_the_limiter_store() -> None:
    """A limited job costs about two writes; the limiter is read once per environment."""
    calls: Counter[str] = Counter()

    def counted(world: World) -> World:
        real = world.container.type_limiters
        for name in ("get", "replace"):
            method = getattr(real, name)
            setattr(real, name, lambda *args, name=name, method=method: (calls.update([name]), method(*args))[1])
        return world

    unlimited = counted(chore_world(RecordingHandler(0.1)))
    submitted(unlimited, 3)
    unlimited.submit("Say hello.")
    unlimited.deliver()
    assert not calls

    limited = counted(chore_world(RecordingHandler(0.1), limits=Limits(concurrency=1, per_minute=5)))
    submitted(limited, 3)
    for _ in range(3):
        limited.deliver()
        limited.clock.advance(10)
    assert calls["get"] == 1
    assert calls["replace"] <= 3 * 2 + 2  # and one for each job that had to wait


def _general_type(limits: Limits) -> JobType:
    return JobType(name="general", title="G", description="G.", instructions="Do it.", limits=limits)


def test_a_job_held_by_the_circuit_occupies_no_slot_of_its_type() -> None:
    world = World(Script(deltas=["whole"]), job_type=with_job_types(_general_type(Limits(concurrency=1))))
    opened = force_open(CircuitBreaker(model="gpt-4o-mini"), "ops", None, "holder", world.clock.now())
    world.container.circuit_breakers.replace(CircuitBreaker(model="gpt-4o-mini"), opened)
    job = world.submit("Say hello.")
    world.deliver()
    held, limiter = world.job(job), world.container.type_limiters.get("general")

    assert (held.status, held.reason) == (Status.HELD, "circuit_open")
    assert limiter is not None
    assert limiter.slots_in_use(world.clock.now()) == 0


def test_a_full_job_type_does_not_block_another_type() -> None:
    slow, quick = RecordingHandler(30.0), RecordingHandler(0.1)
    world = World(
        job_type=with_job_types(chore(slow, limits=Limits(concurrency=1)), chore(quick, name="other", limits=Limits(concurrency=1)))
    )
    submitted(world, 3)
    other = world.submit(None, input=1, job_type="other")
    world.deliver()

    assert world.job(other).status is Status.COMPLETED


@pytest.mark.parametrize("setting", ["export", "export=2", "export=0/5", "export=2/5;x=1/1", "export=2/1001", "Export=1/1", "export=-1/5"])
def test_invalid_type_limits_raise_a_settings_error(setting: str) -> None:
    """The error names the setting."""
    with pytest.raises(SettingsError, match="HEADRACE_TYPE_LIMITS"):
        Settings.from_env({"HEADRACE_TYPE_LIMITS": setting})


def test_type_limits_are_read_from_the_environment() -> None:
    assert Settings.from_env({"HEADRACE_TYPE_LIMITS": " export=2/5, notification=-/100 ,"}).type_limits == (
        "export=2/5",
        "notification=-/100",
    )
