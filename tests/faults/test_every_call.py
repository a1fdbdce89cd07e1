"""Whatever one thing goes wrong, at whichever call: the promise holds."""

from __future__ import annotations

import pytest

from chalicelib.domain.jobs.job import Job
from tests.faults.cloud import Cloud
from tests.faults.reach import some
from tests.faults.report import report, told
from tests.faults.scenarios import SCENARIOS
from tests.faults.steps import Fault, Kind

WITHIN = 300_000  # ms: a lease, a sweep, and a look at what waits for its wake-up
ANSWERS = (Kind.REPEATED, Kind.UNANSWERED, Kind.REFUSED)  # where nobody dies or stands still
DEATHS = (Kind.DIES_BEFORE, Kind.DIES_AFTER)  # at every single call; of the others every third is tried, each kind beginning elsewhere
NOTICED = ("cancelled", "cancelled_and_retried")  # where a few milliseconds more decide how much text there is


def _look(cloud: Cloud) -> list[tuple[object, ...]]:
    """What came of the jobs and of the provider, times and the order in which jobs of one batch began apart."""
    heads = cloud.real.jobs.heads.values()
    ends = [(job.status, job.generation, job.attempt, job.run, job.tries, job.crashes, job.length, job.cost, job.error) for job in heads]
    return [*ends, tuple(sorted(len(answer.sent.split()) for answer in cloud.history.answers))]


def _crashes(cloud: Cloud) -> int:
    return sum(job.crashes for job in cloud.real.jobs.heads.values())


def _late(cloud: Cloud) -> list[str]:
    return [f"{job.id} took too long" for job in cloud.real.jobs.heads.values() if _took(job) > WITHIN]


def _took(job: Job) -> int:
    return (job.finished_at or 0) - job.queued_at


@pytest.mark.parametrize("name", SCENARIOS)
def test_invariants_hold_without_faults(name: str) -> None:
    cloud, problems = told(SCENARIOS[name])

    assert not problems, report(name, "no fault", cloud, problems)
    assert len(cloud.steps.trace) > 40


@pytest.mark.parametrize("kind", Kind, ids=[kind.name.lower() for kind in Kind])
@pytest.mark.parametrize("name", SCENARIOS)
def test_invariants_hold_with_a_fault_at_any_call(name: str, kind: Kind) -> None:
    """Calls of ports and events of the provider; a repeat by the SDK has no effect at all."""
    scenario = SCENARIOS[name]
    undisturbed = told(scenario)[0]
    expected = _look(undisturbed)

    for number in some(range(1, len(undisturbed.steps.trace) + 1), kind, 1 if kind in DEATHS else 3):
        cloud, problems = told(scenario, [Fault(number, kind)])
        problems += _late(cloud)
        if kind in ANSWERS and "retried" not in name:  # a retry may come before the worker hears of the end that it wrote
            problems += [f"a worker that lives believes that it was fenced: {fact}" for fact, _ in cloud.world.facts if "fenced" in fact]
        if kind in ANSWERS and _crashes(cloud) > _crashes(undisturbed):
            problems.append(f"a worker that lives was taken for dead: {_crashes(cloud)} crashes")
        if kind is Kind.REPEATED and name not in NOTICED and _look(cloud) != expected:
            problems.append(f"it came to {_look(cloud)} and not to {expected}")
        assert not problems, report(name, f"step {number}: {kind.value}", cloud, problems)
