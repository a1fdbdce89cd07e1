"""A task that kills its worker: the jobs beside it are not touched."""

from __future__ import annotations

from typing import Any

from chalicelib.domain.jobs.job import Status
from chalicelib.domain.jobs.transitions import MAX_ISOLATED_CRASHES
from chalicelib.services.worker.run_task import TaskRun
from tests.faults.invariants import violations
from tests.faults.provider import ScriptedAnswer
from tests.faults.simulation import Simulation
from tests.faults.steps import ACTOR, kill
from tests.kit.task_types import chore, with_job_types

NEIGHBOURS = 9


def test_a_task_that_kills_each_worker_fails_alone_and_its_lane_runs_once() -> None:
    """Its crashes are isolated from the first one on, so the third fails it as `worker_lost`."""
    sim = Simulation()

    async def explode(_task: TaskRun) -> Any:
        actor = ACTOR.get()
        assert actor is not None
        kill(actor)

    async def scenario(sim: Simulation) -> None:
        sim.world.container.job_type = with_job_types(chore(explode))
        for number in range(NEIGHBOURS):
            await sim.submit(f"neighbour {number}", ScriptedAnswer(pieces=8, every=2.2))
        await sim.submit("bomb", job_type="chore", input="bomb", priority="normal")

    sim.run(scenario)

    *neighbours, bomb = sim.real.jobs.records.values()
    assert (bomb.status, bomb.error and bomb.error.code) == (Status.FAILED, "worker_lost")
    assert (bomb.crashes, bomb.isolated_crashes) == (MAX_ISOLATED_CRASHES, MAX_ISOLATED_CRASHES)
    assert [(job.status, job.attempt, job.crashes) for job in neighbours] == [(Status.COMPLETED, 1, 0)] * NEIGHBOURS
    assert len(sim.history.responses) == NEIGHBOURS
    assert not violations(sim)
