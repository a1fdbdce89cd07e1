"""Limits of job types: both hold, and the jobs that wait for them start fairly, each held once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import pytest

from chalicelib.domain.auth.identity import Caller
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.jobs.job_type import JobType, Limits
from chalicelib.domain.jobs.transitions import claim
from chalicelib.domain.limits.circuit_breaker import CircuitBreaker, force_open
from chalicelib.domain.limits.tenant_limits import TenantLimits
from chalicelib.domain.limits.type_rate import ACCOUNT
from chalicelib.domain.queues.wakeup import Grant, WakeUp
from chalicelib.ports import QueueMessage
from chalicelib.services.jobs.cancel_job import cancel_job
from chalicelib.services.worker.process_messages import process_messages
from chalicelib.services.worker.run_task import TaskRun
from chalicelib.settings import Settings, SettingsError
from tests.kit.failing_store import refusing
from tests.kit.provider import Script
from tests.kit.task_types import chore, chore_world, run_to_end, with_job_types
from tests.kit.world import ALICE, World, kill


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
    return world.container.jobs.slots["y:chore#0"]


def counted_starts(world: World) -> int:
    frames = world.container.rates.frames(ACCOUNT, "chore", world.clock.now())
    return sum(sum(frame.requests) for frame in frames)


def test_a_hundred_limited_jobs_keep_both_limits_and_are_held_once_each() -> None:
    """Two at once and five a minute. Nothing is written while they wait."""
    handler = RecordingHandler(1.0, 4.0)
    world = chore_world(handler, limits=Limits(concurrency=2, per_minute=5))
    jobs = submitted(world, 100)

    run_to_end(world, jobs)

    assert {world.job(job).status for job in jobs} == {Status.COMPLETED}
    assert handler.max_running <= 2
    assert handler.max_starts_per_minute() <= 5
    assert max(handler.starts) - min(handler.starts) <= 23 * 60_000  # twenty minutes, and what a window of 64 s takes
    assert hold_count(world, jobs) <= 105
    assert slots_in_use(world) == 0


def test_all_slots_stay_in_use_while_jobs_wait() -> None:
    """Only concurrency is limited here, and each job runs for 50 seconds."""
    handler = RecordingHandler(50.0)
    world = chore_world(handler, limits=Limits(concurrency=2))
    jobs = submitted(world, 20)

    run_to_end(world, jobs)

    assert handler.max_running == 2
    assert max(handler.starts) - min(handler.starts) <= 10 * 55_000
    assert hold_count(world, jobs) <= 25
    assert slots_in_use(world) == 0


def test_the_job_of_another_tenant_hardly_waits_behind_a_thousand() -> None:
    """Tenants take turns at the limit of a type."""
    handler = RecordingHandler(0.1)
    world = chore_world(handler, limits=Limits(per_minute=60))
    many = submitted(world, 200)
    other = Caller(**{**{name: getattr(ALICE, name) for name in ("user", "role", "key_id", "key_hash")}, "tenant": "other"})
    run_to_end(world, many[:70])
    stranger = world.submit(None, input=1, job_type="chore", caller=other)
    began = world.clock.now()
    run_to_end(world, [stranger])

    assert (world.job(stranger).started_at or 0) - began <= 20_000


def test_a_tenant_with_three_times_the_weight_starts_three_times_as_many_jobs() -> None:
    """Of a type of which sixty start in a minute, while both tenants wait."""
    world = chore_world(RecordingHandler(0.1), limits=Limits(per_minute=60))
    heavy = TenantLimits(tenant="other", version=1, weight=3.0)
    world.container.tenant_limits.replace(replace(heavy, version=0), heavy)
    other = Caller(**{**{name: getattr(ALICE, name) for name in ("user", "role", "key_id", "key_hash")}, "tenant": "other"})
    for number in range(300):
        world.submit(None, input=number, job_type="chore")
        last = world.submit(None, input=number, job_type="chore", caller=other)

    run_to_end(world, [last])

    started = Counter(job.tenant for job in world.container.jobs.records.values() if job.started_at is not None)
    assert started["other"] == 300
    assert 100 <= started["acme"] <= 160  # a third, and what started at once in the first minute


def test_a_rate_limited_job_says_why_it_waits_and_uses_no_attempt() -> None:
    world = chore_world(RecordingHandler(1.0), limits=Limits(per_minute=1))
    first, second = submitted(world, 2)
    world.deliver("work")
    world.deliver("work")

    held = world.job(second)

    assert world.job(first).status is Status.COMPLETED
    assert (held.status, held.reason, held.cause, held.attempt, held.tries) == (Status.HELD, "type_rate", "type:chore", 0, 0)
    assert 55_000 <= (held.resume_at or 0) - world.job(first).created_at <= 66_000
    assert counted_starts(world) == 1


def test_a_job_without_a_slot_is_held_for_type_concurrency() -> None:
    world = chore_world(RecordingHandler(5.0), limits=Limits(concurrency=1))
    jobs = submitted(world, 2)

    async def scenario() -> None:
        await asyncio.gather(*invocations(world))

    world.loop.run_until_complete(scenario())

    held = next(world.job(job) for job in jobs if world.job(job).status is Status.HELD)

    assert (held.reason, held.cause) == ("type_concurrency", "type:chore")


def test_a_duplicate_wake_up_takes_one_slot_and_counts_one_start() -> None:
    handler = RecordingHandler(1.0)
    world = chore_world(handler, limits=Limits(concurrency=2, per_minute=5))
    (job,) = submitted(world, 1)
    world.deliver("work", [world.wake(job), world.wake(job)])

    assert (world.job(job).attempt, counted_starts(world), len(handler.starts), slots_in_use(world)) == (1, 1, 1, 0)


def test_a_granted_start_is_counted_once() -> None:
    """By the scheduler, whose grant is good for some seconds; later the job counts its own."""
    world = chore_world(RecordingHandler(1.0), limits=Limits(per_minute=5))
    first, second = submitted(world, 2)
    now = world.clock.now()
    world.container.rates.take(ACCOUNT, "chore", 0, 2, now)

    for job, late in ((first, 1), (second, 10)):
        world.clock.advance(late)
        wake_up = WakeUp(job.id, job.generation, Grant("type:chore", now))
        world.deliver("work", [QueueMessage(wake_up.to_json(), f"r{late}")])

    assert [world.job(job).status for job in (first, second)] == [Status.COMPLETED] * 2
    assert counted_starts(world) == 2


def test_a_grant_that_comes_twice_stays_counted() -> None:
    """The copy whose claim comes too late gives nothing back, because the worker that has the job uses it."""
    world = chore_world(RecordingHandler(1.0), limits=Limits(concurrency=2, per_minute=5))
    (job,) = submitted(world, 1)
    now, real = world.clock.now(), world.container.leases.open
    world.container.rates.take(ACCOUNT, "chore", 0, 1, now)

    def open_and_lose(lease: Any) -> None:
        real(lease)
        claimed = claim(world.job(job), job.generation, "another worker", now)
        assert claimed is not None
        world.container.jobs.replace(world.job(job), claimed)

    world.container.leases.open = open_and_lose  # type: ignore[method-assign]
    world.deliver("work", [QueueMessage(WakeUp(job.id, job.generation, Grant("type:chore", now)).to_json(), "r")])

    assert (world.job(job).owner, world.job(job).attempt, counted_starts(world)) == ("another worker", 1, 1)


def test_a_grant_is_given_back_if_the_job_waits_for_something_else() -> None:
    world = chore_world(RecordingHandler(1.0), limits=Limits(concurrency=1, per_minute=5))
    (job,) = submitted(world, 1)
    world.container.jobs.slots["y:chore#0"] = 1
    now = world.clock.now()
    world.container.rates.take(ACCOUNT, "chore", 0, 1, now)

    world.deliver("work", [QueueMessage(WakeUp(job.id, job.generation, Grant("type:chore", now)).to_json(), "r")])

    assert (world.job(job).status, world.job(job).reason, counted_starts(world)) == (Status.HELD, "type_concurrency", 0)


def test_the_slot_of_a_dead_worker_is_given_back_when_its_job_is_recovered() -> None:
    """However long the job ran, its slot was its own until then."""
    world = chore_world(RecordingHandler(5.0), limits=Limits(concurrency=1))
    (job,) = submitted(world, 1)
    kill(world, 2.0)
    world.clock.advance(20)
    assert slots_in_use(world) == 1

    run_to_end(world, [job])
    assert (world.job(job).status, slots_in_use(world)) == (Status.COMPLETED, 0)


def test_a_job_cancelled_between_gate_and_claim_takes_no_slot_and_counts_no_start() -> None:
    world = chore_world(RecordingHandler(1.0), limits=Limits(concurrency=1, per_minute=5))
    (job,) = submitted(world, 1)
    real = world.container.leases.open

    def open_and_cancel(lease: Any) -> None:
        real(lease)
        cancel_job(world.container, world.job(job))

    world.container.leases.open = open_and_cancel  # type: ignore[method-assign]
    world.deliver("work")

    assert (world.job(job).status, slots_in_use(world), counted_starts(world)) == (Status.CANCELLED, 0, 0)


def test_a_job_that_expires_in_the_line_delays_nobody() -> None:
    world = chore_world(RecordingHandler(0.1), limits=Limits(per_minute=1))
    (first,) = submitted(world, 1)
    world.deliver("work")
    late = world.submit(None, input=1, job_type="chore", expires_in=30)
    third = world.submit(None, input=2, job_type="chore")

    run_to_end(world, [late, third])

    assert world.job(late).status is Status.EXPIRED
    assert (world.job(third).started_at or 0) - (world.job(first).started_at or 0) <= 90_000


@pytest.mark.parametrize(("store", "method"), [("jobs", "slots_taken"), ("rates", "take")])
def test_a_job_waits_some_seconds_while_the_limits_of_its_type_cannot_be_read(store: str, method: str) -> None:
    """A limit protects something, so nothing starts without it."""
    world = chore_world(RecordingHandler(0.1), limits=Limits(concurrency=1, per_minute=5))
    (job,) = submitted(world, 1)
    with refusing(getattr(world.container, store), method, 10**6):
        world.deliver("work")
    held = world.job(job)

    run_to_end(world, [job])

    assert (held.status, held.reason, held.cause) == (Status.HELD, "limits_unknown", None)
    assert world.job(job).status is Status.COMPLETED


def test_only_types_with_limits_ask_for_slots_and_starts() -> None:
    world = chore_world(RecordingHandler(0.1))
    jobs = [*submitted(world, 3), world.submit("Say hello.")]
    with refusing(world.container.jobs, "slots_taken", 99) as slots, refusing(world.container.rates, "take", 99) as starts:
        world.deliver()

    assert [world.job(job).status for job in jobs] == [Status.COMPLETED] * 4
    assert (slots, starts) == ([0], [0])


def _general_type(limits: Limits) -> JobType:
    return JobType(name="general", title="G", description="G.", instructions="Do it.", limits=limits)


def test_a_job_held_by_the_circuit_takes_no_slot_of_its_type_and_counts_no_start() -> None:
    world = World(Script(deltas=["whole"]), job_type=with_job_types(_general_type(Limits(concurrency=1, per_minute=1))))
    opened = force_open(CircuitBreaker(model="gpt-4o-mini"), "ops", None, "holder", world.clock.now())
    world.container.circuit_breakers.replace(CircuitBreaker(model="gpt-4o-mini"), opened)
    job = world.submit("Say hello.")
    with refusing(world.container.rates, "take", 99) as starts:
        world.deliver("normal")

    assert (world.job(job).status, world.job(job).reason) == (Status.HELD, "circuit_open")
    assert (starts, +world.container.jobs.slots) == ([0], Counter())


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
