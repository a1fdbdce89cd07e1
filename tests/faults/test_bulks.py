"""Bulk retries and deletions with one fault at any call: every job is handled once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any
from unittest.mock import patch

import pytest

from chalicelib.domain.auth.identity import Caller, Role
from chalicelib.domain.failures import RequestRefused
from chalicelib.domain.jobs.bulk_operation import BulkAction
from chalicelib.domain.jobs.job import Status
from chalicelib.services.idempotency import IdempotentRequest
from chalicelib.services.jobs import bulk_operations
from chalicelib.services.jobs.bulk_operations import BulkRequest, StartedBulk, start_bulk
from chalicelib.services.jobs.wake_bulk_operations import wake_stalled_bulk_operations
from chalicelib.services.maintenance.sweep_lines import sweep_lines
from chalicelib.services.maintenance.sweeper import sweep
from tests.faults.invariants import violations
from tests.faults.provider import ScriptedAnswer
from tests.faults.sampling import sample
from tests.faults.simulation import MAX_SECONDS, SWEEP_EVERY, SWEEP_PHASE, Stuck, TaskSimulation
from tests.faults.step_ports import StepPort
from tests.faults.steps import Fault, Kind

OLGA = Caller(tenant="acme", user="olga", role=Role.OPERATOR, key_id="key_2", key_hash="hash")
JOBS = 3
SCHEDULE_MS = 40_000


class BulkSimulation(TaskSimulation):
    """A simulation with an operator who starts bulk operations.

    Messages advance those that their request did not finish, and the schedule wakes the others.
    """

    def _install_ports(self) -> None:
        super()._install_ports()
        self.world.container.job_data = StepPort("job_data", self.real.job_data, self.steps)  # type: ignore[assignment]
        self.world.container.bulk_operations = StepPort("bulk_operations", self.real.bulk_operations, self.steps)  # type: ignore[assignment]

    def unfinished(self) -> str:
        unfinished = [bulk.id for bulk in self.real.bulk_operations.rows.values() if bulk.finished_at is None]
        return ", ".join(filter(None, [super().unfinished(), f"bulk operations {unfinished}" if unfinished else ""]))

    async def submit_failing(self) -> list[str]:
        """Submit jobs whose first run fails permanently, with a text and a result.

        Return their ids.
        """
        scripts = (ScriptedAnswer(pieces=2, error=RequestRefused("No.")), ScriptedAnswer(pieces=2))
        ids = [await self.submit(f"failing {number}", *scripts) for number in range(JOBS)]
        await self.until(lambda: all(self.job(job_id).status is Status.FAILED for job_id in ids))
        return ids

    async def start_bulk(self, bulk: BulkRequest, *, repeat: bool) -> None:
        """Request a bulk operation. With `repeat`, repeat it under one key, as the CLI does."""
        idempotent = IdempotentRequest.of(OLGA, "POST /bulk", f"key {bulk.ids}", [bulk.action.value])

        def start() -> StartedBulk:
            return start_bulk(self.world.container, OLGA, bulk, idempotent)

        await (self.request(start) if repeat else self.run_call("api", start))

    async def _sweep(self) -> None:
        """Invoke the three scheduled functions, which run at the same time."""
        await asyncio.sleep(SWEEP_PHASE)
        ctx = self.world.container
        while True:
            self.spawn(self.run_call("sweep", sweep, ctx))
            self.spawn(self.run_call("sweep_lines", sweep_lines, ctx, self.world.clock.now() + SCHEDULE_MS))
            self.spawn(self.run_call("sweep_bulk_operations", wake_stalled_bulk_operations, ctx, self.world.clock.now() + SCHEDULE_MS))
            await asyncio.sleep(SWEEP_EVERY)


class MessageSimulation(BulkSimulation):
    """Requests leave all jobs of an operation to messages."""

    def run(self, scenario: Any) -> None:
        with patch.object(bulk_operations, "INLINE_MAX_JOBS", 0):
            super().run(scenario)


ScenarioFunction = Callable[[BulkSimulation], Coroutine[Any, Any, None]]
ALL_FAILED = {"status": Status.FAILED.value}


async def retry_all(sim: BulkSimulation) -> None:
    await sim.submit_failing()
    await sim.start_bulk(BulkRequest(action=BulkAction.RETRY, filters=ALL_FAILED), repeat=True)


async def retry_named(sim: BulkSimulation) -> None:
    await sim.start_bulk(BulkRequest(action=BulkAction.RETRY, ids=tuple(await sim.submit_failing())), repeat=True)


async def purge(sim: BulkSimulation) -> None:
    await sim.submit_failing()
    await sim.start_bulk(BulkRequest(action=BulkAction.DELETE, filters=ALL_FAILED), repeat=True)


async def delete_named_once(sim: BulkSimulation) -> None:
    """The operator does not repeat the request, whatever the response is."""
    await sim.start_bulk(BulkRequest(action=BulkAction.DELETE, ids=tuple(await sim.submit_failing())), repeat=False)


async def retry_by_messages(sim: BulkSimulation) -> None:
    """An operation for each job: one more than have their turn at once."""
    for job_id in await sim.submit_failing():
        await sim.start_bulk(BulkRequest(action=BulkAction.RETRY, ids=(job_id,)), repeat=True)


async def purge_by_messages(sim: BulkSimulation) -> None:
    await sim.submit_failing()
    await sim.start_bulk(BulkRequest(action=BulkAction.DELETE, filters=ALL_FAILED), repeat=True)


def run_scenario(scenario: ScenarioFunction, faults: Sequence[Fault] = ()) -> tuple[BulkSimulation, list[str]]:
    sim = (MessageSimulation if scenario in BY_MESSAGES else BulkSimulation)(faults)
    try:
        sim.run(scenario)  # type: ignore[arg-type]
    except Stuck as stuck:
        return sim, [f"stuck within {MAX_SECONDS / 3600:g} h: {stuck}"]
    wrong = _not_deleted(sim) if scenario in (purge, delete_named_once, purge_by_messages) else _not_retried(sim)
    return sim, [*violations(sim), *wrong]


def _not_retried(sim: BulkSimulation) -> list[str]:
    """Each job has completed in its second run, and the bulk operation counts every job as done."""
    jobs = sim.real.jobs.records.values()
    wrong = [f"{job.id[-3:]} is {job.status}, run {job.run}" for job in jobs if (job.status, job.run) != (Status.COMPLETED, 2)]
    bulks = sim.real.bulk_operations.rows.values()
    counts = tuple(sum(getattr(bulk, name) for bulk in bulks) for name in ("matched", "done", "skipped", "failed", "not_found"))
    return [*wrong, *([f"the bulk operations count {counts}"] if counts != (JOBS, JOBS, 0, 0, 0) else [])]


def _not_deleted(sim: BulkSimulation) -> list[str]:
    """Each job is deleted with all its data; or, if no bulk operation was stored, none is."""
    bulks, jobs = list(sim.real.bulk_operations.rows.values()), sim.real.jobs.records
    left = [f"{job_id[-3:]}: {rows}" for job_id in sim.history.versions if (rows := sim.real.job_data.rows(job_id))]
    if not bulks:
        unchanged = len(jobs) == JOBS and not any(job.is_deleted for job in jobs.values())
        return [] if unchanged else [f"there is no bulk operation, and {len(jobs)} jobs are left"]
    wrong = [f"{job_id[-3:]} is not deleted" for job_id in jobs] + left
    [bulk] = bulks
    counted = (bulk.matched, bulk.done) == (JOBS, JOBS)
    return [*wrong, *([] if counted else [f"the bulk operation counts {bulk.done} done of {bulk.matched}"])]


BY_MESSAGES: tuple[ScenarioFunction, ...] = (retry_by_messages, purge_by_messages)
SCENARIOS: tuple[ScenarioFunction, ...] = (retry_all, retry_named, purge, delete_named_once, *BY_MESSAGES)


def _calls(sim: BulkSimulation) -> list[int]:
    """Return the calls from the first one of the request that starts the bulk operation."""
    create = next(step for step in sim.steps.trace if step.name.startswith("bulk_operations.create"))
    first = next(step.number for step in sim.steps.trace if step.actor is create.actor)
    return list(range(first, len(sim.steps.trace) + 1))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_invariants_hold_without_faults(scenario: ScenarioFunction) -> None:
    sim, problems = run_scenario(scenario)

    assert not problems, problems
    assert len(_calls(sim)) > 10
    assert any(step.actor.role == "tasks" for step in sim.steps.trace) == (scenario in BY_MESSAGES)
    assert not sim.real.bulk_operations.order


@pytest.mark.parametrize("kind", Kind, ids=[kind.name.lower() for kind in Kind])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_invariants_hold_with_a_fault_at_any_call(scenario: ScenarioFunction, kind: Kind) -> None:
    """The operation continues after the fault and handles no job twice."""
    for number in sample(_calls(run_scenario(scenario)[0]), kind):
        sim, problems = run_scenario(scenario, [Fault(number, kind)])
        assert not problems, "\n".join([f"{scenario.__name__}, step {number}: {kind.value}", *problems, sim.steps.formatted()])
