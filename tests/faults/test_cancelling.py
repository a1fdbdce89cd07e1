"""A cancel at every call of a worker, and the worker's death at every call after that."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from chalicelib.domain.jobs.job import Status
from tests.faults.provider import ScriptedAnswer
from tests.faults.report import failure_report, problems_of
from tests.faults.sampling import stride
from tests.faults.scenarios import Scenario
from tests.faults.simulation import Simulation
from tests.faults.steps import Actor, Step, end

STRIDE = stride(1)  # the distance of the deaths that are tried; each cancel starts at another one
NEVER = 10**6


class Cancelling:
    """A `Director`: a cancel at the worker's call number `cancel_at`, its death at `die_at`."""

    def __init__(self, cancel_at: int, die_at: int) -> None:
        self.cancel_at, self.die_at = cancel_at, die_at
        self.worker: Actor | None = None
        self.calls = 0
        self.reached = asyncio.Event()

    async def before(self, step: Step) -> None:
        if step.actor.role != "worker" or self.worker not in (None, step.actor):
            return
        self.worker = step.actor
        self.calls += 1
        if self.calls == self.cancel_at:
            step.note += "   <-- the job is cancelled"
            self.reached.set()
        if self.calls == self.die_at:
            step.note += "   <-- dies"
            end(step.actor)

    async def after(self, step: Step) -> None:
        return


def _run(durable: bool, cancel_at: int, die_at: int) -> tuple[Simulation, Cancelling, list[str]]:
    director = Cancelling(cancel_at, die_at)

    async def scenario(sim: Simulation) -> None:
        job = await sim.submit("cancelled", ScriptedAnswer(pieces=4, every=0.5), ScriptedAnswer(pieces=2), config={"durable": durable})
        await sim.watch(job)
        if await sim.until(director.reached.is_set, 120):
            await sim.cancel(job)

    sim = Simulation(director=director)
    problems = problems_of(sim, Scenario(scenario, (Status.CANCELLED, Status.COMPLETED)))
    return sim, director, problems


@pytest.mark.parametrize("durable", [False, True], ids=["plain", "durable"])
def test_invariants_hold_with_a_cancel_and_a_later_death_at_any_call(durable: bool) -> None:
    """The job ends once, and the subscriber holds the stored text."""
    run = partial(_run, durable)
    calls = run(NEVER, NEVER)[1].calls
    assert calls > 20

    for cancel_at in range(1, calls + 1):
        for die_at in (*range(cancel_at + cancel_at % STRIDE, calls + 1, STRIDE), NEVER):
            sim, _, problems = run(cancel_at, die_at)
            assert not problems, failure_report("cancelled", f"cancelled at call {cancel_at}, dies at call {die_at}", sim, problems)
