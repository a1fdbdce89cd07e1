"""A worker freezes beyond its lease, and resumes beside its successors."""

from __future__ import annotations

import pytest

from chalicelib.domain.jobs.job import Status
from tests.faults.report import failure_report, problems_of
from tests.faults.sampling import ALL, stride
from tests.faults.scenarios import Scenario
from tests.faults.simulation import Simulation
from tests.faults.steps import Step
from tests.faults.zombie import ANSWERS, NEVER, Zombie, frozen_scenario

STRIDES = {
    "whole": 1,
    "cut": 2,
    "cancelled": 1,
    "durable": 1,
    "durable, cancelled": 2,
}  # 2: every other moment; successive runs start at another one, and neighbouring moments differ little
WRITES = ("jobs.replace", "results.put", "chunks.append", "leases.open")  # a freeze before the effect differs from one after it


def _run(name: str, zombie: Zombie) -> tuple[Simulation, list[str]]:
    sim = Simulation(director=zombie)
    problems = problems_of(sim, Scenario(frozen_scenario(name, zombie), (Status.COMPLETED, Status.CANCELLED)))
    return sim, problems


def _own_steps(name: str) -> list[Step]:
    """Return the steps of the first worker when it never freezes."""
    zombie = Zombie(NEVER, NEVER)
    sim, problems = _run(name, zombie)
    assert not problems, failure_report(name, "no worker freezes", sim, problems)
    return [step for step in sim.steps.trace if step.actor is zombie.actor]


@pytest.mark.parametrize("name", ANSWERS)
def test_invariants_hold_with_a_zombie_that_resumes_at_any_step(name: str) -> None:
    """The worker freezes at each of its calls and resumes between the steps of its successors."""
    runs, distance = 0, stride(STRIDES[name])
    for freezes_at, step in enumerate(_own_steps(name), 1):
        for after in (False, True) if step.name in WRITES else (False,):
            last = Zombie(freezes_at, NEVER, after=after)
            _run(name, last)
            for resumes_at in range(1 + freezes_at % distance, last.other_calls + 1, distance):
                zombie = Zombie(freezes_at, resumes_at, after=after, heartbeat_in_time=resumes_at % 4 == 0)
                sim, problems = _run(name, zombie)
                runs += 1
                what = f"freezes {'after' if after else 'before'} its call {freezes_at}, resumes at the others' call {resumes_at}"
                assert not problems, failure_report(name, what, sim, problems)
    assert runs > (50 if ALL else 20)
