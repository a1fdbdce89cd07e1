"""Small batches with one fault at any call: each row has one job, and the counters are exact."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from chalicelib.consumers.count_jobs import count_job_changes
from chalicelib.domain.batches.batch import Batch, BatchStatus
from chalicelib.domain.batches.counters import BatchCounts, counter_key, counter_partition
from chalicelib.domain.batches.options import BatchOptions
from chalicelib.domain.batches.row import Row
from chalicelib.domain.errors import BatchNotRetryable
from chalicelib.domain.failures import RequestRefused
from chalicelib.domain.ids import job_id_of_row
from chalicelib.domain.jobs.job import Status
from chalicelib.domain.jobs.submission import Submission
from chalicelib.services.batches import manage_batch
from chalicelib.services.batches.submit_batch import prepare_batch, submit_batch
from chalicelib.services.batches.wake_batches import wake_stalled_batches
from chalicelib.services.idempotency import IdempotentRequest
from chalicelib.services.jobs.wake_bulk_operations import wake_stalled_bulk_operations
from chalicelib.services.maintenance.sweep_lines import sweep_lines
from chalicelib.services.maintenance.sweeper import sweep
from tests.faults.invariants import violations
from tests.faults.processes import Change
from tests.faults.provider import ScriptedAnswer
from tests.faults.sampling import sample
from tests.faults.simulation import LANE, MAX_SECONDS, SWEEP_EVERY, SWEEP_PHASE, Simulation, Stuck, TaskSimulation
from tests.faults.step_ports import StepPort
from tests.faults.steps import Fault, Kind
from tests.kit.world import ALICE

ROWS = 5
SCHEDULE_MS = 40_000
FAILS = ScriptedAnswer(pieces=1, error=RequestRefused("No."))


class BatchSimulation(TaskSimulation):
    """A simulation that also releases rows, counts jobs and runs batch actions."""

    def _install_ports(self) -> None:
        super()._install_ports()
        for name in ("batches", "batch_rows", "counters", "bulk_operations"):
            setattr(self.world.container, name, StepPort(name, getattr(self.real, name), self.steps))
        self._counted: asyncio.Queue[Change] = asyncio.Queue()
        self._counting = False

    def _on_change(self, before: Any, new: Any) -> None:
        super()._on_change(before, new)
        self._counted.put_nowait((new.id, before, new))

    def start(self) -> None:
        super().start()
        self.spawn(self._count())

    def unfinished(self) -> str:
        unfinished = {
            "batches": sorted(self.real.batches.open),
            "bulk operations": [bulk.id for bulk in self.real.bulk_operations.rows.values() if bulk.finished_at is None],
            "counting": self._counted.qsize() + self._counting,
        }
        return ", ".join(filter(None, [super().unfinished(), *(f"{name} {what}" for name, what in unfinished.items() if what)]))

    async def _count(self) -> None:
        """Pass all waiting changes to `count_job_changes`, until it succeeds."""
        while True:
            changes = [await self._counted.get()]
            self._counting = True
            await asyncio.sleep(0.5)
            while not self._counted.empty():
                changes.append(self._counted.get_nowait())
            while isinstance(await self.run_call("count", count_job_changes, self.world.container, changes), BaseException):
                await asyncio.sleep(1.0)
            self._counting = False

    async def _sweep(self) -> None:
        """Invoke the four scheduled functions, which run at the same time."""
        await asyncio.sleep(SWEEP_PHASE)
        ctx = self.world.container
        while True:
            until = self.world.clock.now() + SCHEDULE_MS
            self.spawn(self.run_call("sweep", sweep, ctx))
            self.spawn(self.run_call("sweep_lines", sweep_lines, ctx, until))
            self.spawn(self.run_call("sweep_batches", wake_stalled_batches, ctx, until))
            self.spawn(self.run_call("sweep_bulk_operations", wake_stalled_bulk_operations, ctx, until))
            await asyncio.sleep(SWEEP_EVERY)

    # ---- the API's users

    async def submit_rows(self, *scripts: Sequence[ScriptedAnswer], **options: Any) -> str:
        """Submit a batch with one row for each script. Repeats have the same idempotency key."""
        rows = [Row(number=number, prompt=f"row {number}") for number in range(len(scripts))]
        self.provider.scripts |= {f"row {number}": list(script) for number, script in enumerate(scripts)}
        idempotent = IdempotentRequest.of(ALICE, "POST /batches", "key", "rows")

        def submit() -> str:
            ctx = self.world.container
            prepared = prepare_batch(ctx, ALICE, BatchOptions(**options), Submission(priority=LANE), rows)
            return submit_batch(ctx, ALICE, prepared, idempotent).batch.id

        return str(await self.request(submit))

    async def cancel_batch(self, batch_id: str) -> None:
        def cancel() -> None:
            ctx = self.world.container
            manage_batch.cancel_batch(ctx, manage_batch.get_batch(ctx.batches, ALICE, batch_id))

        await self.request(cancel)

    async def retry_batch(self, batch_id: str, *, cancelled: bool = False) -> None:
        idempotent = IdempotentRequest.of(ALICE, "retry-failed", "key", batch_id)

        def retry() -> None:
            ctx = self.world.container
            manage_batch.retry_failed(ctx, manage_batch.get_batch(ctx.batches, ALICE, batch_id), idempotent, cancelled=cancelled)

        await self.request(retry)

    def batch(self, batch_id: str) -> Batch:
        return self.real.batches.rows[batch_id]

    def jobs_of(self, batch_id: str) -> dict[int, Any]:
        """Return the existing job records of a batch, by row number."""
        found = {number: self.real.jobs.records.get(job_id_of_row(batch_id, number)) for number in range(self.batch(batch_id).total)}
        return {number: job for number, job in found.items() if job is not None}


class UncountedSimulation(BatchSimulation):
    """The counting function receives no change record."""

    def _on_change(self, before: Any, new: Any) -> None:
        Simulation._on_change(self, before, new)


ScenarioFunction = Callable[[BatchSimulation], Coroutine[Any, Any, None]]


async def released(sim: BatchSimulation) -> None:
    await sim.submit_rows(*[[ScriptedAnswer(pieces=1)]] * ROWS, batch_size=2)


async def parallel_limit(sim: BatchSimulation) -> None:
    await sim.submit_rows(*[[ScriptedAnswer(pieces=1)]] * ROWS, parallel_limit=2)


async def delayed_waves(sim: BatchSimulation) -> None:
    await sim.submit_rows(*[[ScriptedAnswer(pieces=1)]] * ROWS, batch_size=2, delay=20)


async def cancelled(sim: BatchSimulation) -> None:
    batch_id = await sim.submit_rows(*[[ScriptedAnswer(pieces=4)]] * ROWS, batch_size=2)
    await sim.until(lambda: bool(sim.jobs_of(batch_id)))
    await sim.cancel_batch(batch_id)


async def retried(sim: BatchSimulation) -> None:
    batch_id = await sim.submit_rows([FAILS, ScriptedAnswer(pieces=1)], [ScriptedAnswer(pieces=1)], [FAILS, ScriptedAnswer(pieces=1)])
    await sim.until(lambda: sim.batch(batch_id).finished_at is not None)
    await sim.retry_batch(batch_id)


async def failure_tolerance(sim: BatchSimulation) -> None:
    await sim.submit_rows([FAILS], [FAILS], *[[ScriptedAnswer(pieces=1)]] * 3, parallel_limit=2, failure_tolerance=0.2)


EXPECTED: dict[ScenarioFunction, Callable[[Counter[str]], bool]] = {
    released: lambda ends: ends == {"completed": ROWS},
    parallel_limit: lambda ends: ends == {"completed": ROWS},
    delayed_waves: lambda ends: ends == {"completed": ROWS},
    cancelled: lambda ends: set(ends) <= {"completed", "cancelled"},
    retried: lambda ends: ends == {"completed": 3},
    failure_tolerance: lambda ends: ends["failed"] == 2,
}
STATUSES = {
    released: {BatchStatus.COMPLETED},
    parallel_limit: {BatchStatus.COMPLETED},
    delayed_waves: {BatchStatus.COMPLETED},
    cancelled: {BatchStatus.CANCELLED, BatchStatus.COMPLETED},  # it may have completed before the cancel
    retried: {BatchStatus.COMPLETED},
    failure_tolerance: {BatchStatus.FAILED, BatchStatus.COMPLETED_WITH_FAILURES},
}


def run_scenario(scenario: ScenarioFunction, faults: Sequence[Fault] = ()) -> tuple[BatchSimulation, list[str]]:
    sim = BatchSimulation(faults)
    try:
        sim.run(scenario)  # type: ignore[arg-type]
    except Stuck as stuck:
        return sim, [f"stuck within {MAX_SECONDS / 3600:g} h: {stuck}"]
    return sim, [*violations(sim), *_wrong(sim, scenario)]


def _wrong(sim: BatchSimulation, scenario: ScenarioFunction) -> list[str]:
    [batch] = sim.real.batches.rows.values()
    jobs = sim.jobs_of(batch.id)
    ends = Counter(job.status.value for job in jobs.values())
    found = [f"{len(jobs)} of {len(sim.real.jobs.records)} jobs are rows"] if len(jobs) != len(sim.real.jobs.records) else []
    found += [] if EXPECTED[scenario](ends) else [f"the rows ended as {dict(ends)}"]
    found += [] if batch.status in STATUSES[scenario] else [f"the batch is {batch.status}"]
    found += [] if batch.finished_at is not None and batch.notified else ["the batch has not ended"]
    found += [f"{job.id[-3:]} has had {job.run} runs" for job in jobs.values() if job.run > (2 if scenario is retried else 1)]
    found += _miscounted(sim, batch, jobs)
    dead_letters = sim.real.queues.dead_lettered["stream"]
    return found + ([f"dead letters: {dead_letters}"] if dead_letters else [])


def _miscounted(sim: BatchSimulation, batch: Batch, jobs: dict[int, Any]) -> list[str]:
    """Compare the counters with the job records. Costs are in nano-dollars and must be equal."""
    counts = BatchCounts.of(sim.real.counters.counters.get(counter_key(batch.id), {}))
    status = Counter(job.status for job in jobs.values())
    expected = {
        "known": len(jobs),
        "completed": status[Status.COMPLETED],
        "failed": status[Status.FAILED],
        "cancelled": status[Status.CANCELLED],
        "queued": 0,
        "processing": 0,
        "waiting": 0,
        "cost": sum(job.cost or 0 for job in jobs.values()),
        "output": sum(job.usage.output for job in jobs.values() if job.usage),
    }
    counted = {name: getattr(counts, name) for name in expected}
    wrong = [f"the counters have {counted}, the records {expected}"] if counted != expected else []
    failed = {number for number, job in jobs.items() if job.status is Status.FAILED}
    listed = {
        int(name[1:])
        for (pk, sk), numbers in sim.real.counters.counters.items()
        if pk == counter_partition(batch.id) and sk != "counts"
        for name, n in numbers.items()
        if name.startswith("r") and n
    }
    return wrong + ([f"rows {listed} are counted as failed, rows {failed} have failed"] if listed != failed else [])


@pytest.mark.parametrize("scenario", EXPECTED, ids=lambda scenario: scenario.__name__)
def test_invariants_hold_without_faults(scenario: ScenarioFunction) -> None:
    sim, problems = run_scenario(scenario)

    assert not problems, "\n".join([*problems, sim.steps.formatted()])
    assert len(_calls(sim)) > 40


def _calls(sim: BatchSimulation) -> list[int]:
    """Return the calls of the API, the task function and the counting function.

    Other tests inject faults into workers and sweeps.
    """
    return [step.number for step in sim.steps.trace if step.actor.role in ("api", "tasks", "count")]


@pytest.mark.parametrize("kind", Kind, ids=[kind.name.lower() for kind in Kind])
@pytest.mark.parametrize("scenario", EXPECTED, ids=lambda scenario: scenario.__name__)
def test_invariants_hold_with_a_fault_at_any_call(scenario: ScenarioFunction, kind: Kind) -> None:
    """The process dies, freezes beyond its time and resumes, or loses a response."""
    for number in sample(_calls(run_scenario(scenario)[0]), kind):
        sim, problems = run_scenario(scenario, [Fault(number, kind)])
        assert not problems, "\n".join([f"{scenario.__name__}, step {number}: {kind.value}", *problems, sim.steps.formatted()])


def test_replaying_the_change_stream_changes_no_batch_count() -> None:
    sim = BatchSimulation()

    async def scenario(_: Simulation) -> None:
        await retried(sim)
        await sim.wait_until_idle()
        for change in sim.changes:
            sim._counted.put_nowait(change)

    sim.run(scenario)

    assert not _wrong(sim, retried)


def test_batch_ends_without_any_change_record() -> None:
    """The batch re-checks the job records of its rows instead."""
    sim = UncountedSimulation()

    sim.run(released)  # type: ignore[arg-type]

    assert not _wrong(sim, released)
    assert "count" not in {step.actor.role for step in sim.steps.trace}


def test_cancelled_batch_completes_after_a_retry() -> None:
    sim = BatchSimulation()

    async def scenario(_: Simulation) -> None:
        await cancelled(sim)
        [batch_id] = sim.real.batches.rows
        while True:
            try:
                await sim.retry_batch(batch_id, cancelled=True)
            except BatchNotRetryable:
                await asyncio.sleep(10)
            else:
                return

    sim.run(scenario)

    [batch] = sim.real.batches.rows.values()
    assert (batch.status, Counter(job.status for job in sim.jobs_of(batch.id).values())) == (
        BatchStatus.COMPLETED,
        {Status.COMPLETED: ROWS},
    )
    assert not _miscounted(sim, batch, sim.jobs_of(batch.id))
