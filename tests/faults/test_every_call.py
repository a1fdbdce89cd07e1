"""Every scenario with one fault at any call: the invariants hold."""

from __future__ import annotations

import pytest

from chalicelib.domain.jobs.job import Job
from tests.faults.report import failure_report, run_scenario
from tests.faults.sampling import sample
from tests.faults.scenarios import SCENARIOS
from tests.faults.simulation import Simulation
from tests.faults.steps import Fault, Kind

MAX_MS = 300_000  # a lease, a sweep, and a re-check of a job that waits for its wake-up
FAILED_CALLS = (Kind.REPEATED, Kind.UNANSWERED, Kind.REFUSED)  # no process dies or freezes
# A repeated call takes some milliseconds, which change the length of the text, or which of two jobs gets the only slot.
TIME_DEPENDENT = ("cancelled", "cancelled_and_retried", "limited", "crowded", "rated_by_user")


def _outcome(sim: Simulation) -> list[tuple[object, ...]]:
    """Return the end of each job and the lengths of the provider's texts, without times."""
    jobs = sim.real.jobs.records.values()
    ends = [(job.status, job.generation, job.attempt, job.run, job.tries, job.crashes, job.length, job.cost, job.error) for job in jobs]
    return [*ends, tuple(sorted(len(log.sent.split()) for log in sim.history.responses))]


def _crashes(sim: Simulation) -> int:
    return sum(job.crashes for job in sim.real.jobs.records.values())


def _late(sim: Simulation) -> list[str]:
    return [f"{job.id} took too long" for job in sim.real.jobs.records.values() if _duration(job) > MAX_MS]


def _duration(job: Job) -> int:
    return (job.finished_at or 0) - job.queued_at


@pytest.mark.parametrize("name", SCENARIOS)
def test_invariants_hold_without_faults(name: str) -> None:
    sim, problems = run_scenario(SCENARIOS[name])

    assert not problems, failure_report(name, "no fault", sim, problems)
    assert len(sim.steps.trace) > 40


@pytest.mark.parametrize("kind", Kind, ids=[kind.name.lower() for kind in Kind])
@pytest.mark.parametrize("name", SCENARIOS)
def test_invariants_hold_with_a_fault_at_any_call(name: str, kind: Kind) -> None:
    """Calls of ports and events of the provider; a repeat by the SDK has no effect at all."""
    scenario = SCENARIOS[name]
    undisturbed = run_scenario(scenario)[0]
    expected = _outcome(undisturbed)

    for number in sample(range(1, len(undisturbed.steps.trace) + 1), kind):
        sim, problems = run_scenario(scenario, [Fault(number, kind)])
        problems += _late(sim)
        if kind in FAILED_CALLS and "retried" not in name:  # the user may retry before the worker gets the response to its terminal write
            problems += [f"a living worker stopped as fenced: {event}" for event, _ in sim.world.log_lines if "fenced" in event]
        if kind in FAILED_CALLS and _crashes(sim) > _crashes(undisturbed):
            problems.append(f"a living worker was taken for dead: {_crashes(sim)} crashes")
        if kind is Kind.REPEATED and name not in TIME_DEPENDENT and _outcome(sim) != expected:
            problems.append(f"the outcome is {_outcome(sim)}, without the fault it is {expected}")
        assert not problems, failure_report(name, f"step {number}: {kind.value}", sim, problems)
