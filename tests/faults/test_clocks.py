"""Clocks that are wrong, and concurrent sweepers.

They keep (protocol rule 16: act only on an unchanged record) and (protocol rule 19: clocks decide
when, never whether).
"""

from __future__ import annotations

import pytest

from chalicelib.domain.jobs.job import Status
from tests.faults.report import failure_report, problems_of
from tests.faults.sampling import stride
from tests.faults.scenarios import SCENARIOS
from tests.faults.simulation import Simulation
from tests.faults.steps import Fault, Kind

WRONG_BY = (600.0, -600.0)
DEATHS = (Kind.DIES_BEFORE, Kind.DIES_AFTER, Kind.FREEZES_BEFORE)
STRIDE = stride(2)  # the distance of the calls that are tried; scenarios start at different ones


@pytest.mark.parametrize("skew", WRONG_BY, ids=["fast", "slow"])
@pytest.mark.parametrize("name", SCENARIOS)
def test_invariants_hold_with_a_sweeper_clock_ten_minutes_wrong(name: str, skew: float) -> None:
    """A fast clock takes jobs from living workers, a slow one finds dead workers late."""
    calls = len(_run(name, 0.0)[0].steps.trace)

    for number in range(1 + calls % STRIDE, calls + 1, STRIDE):
        kind = DEATHS[number // STRIDE % len(DEATHS)]
        sim, problems = _run(name, skew, fault=Fault(number, kind))
        assert not problems, failure_report(name, f"the sweeper's clock is {skew:g} s wrong, step {number}: {kind.value}", sim, problems)


@pytest.mark.parametrize("name", ["dead_worker", "cancelled_and_retried", "not_resumed"])
def test_invariants_hold_with_three_concurrent_sweepers(name: str) -> None:
    """They find the same jobs at the same moment, and a process may die or freeze."""
    calls = len(_run(name, 0.0, sweepers=3)[0].steps.trace)

    for number in range(1 + calls % STRIDE, calls + 1, STRIDE):
        sim, problems = _run(name, 0.0, sweepers=3, fault=Fault(number, DEATHS[number // STRIDE % len(DEATHS)]))
        assert not problems, failure_report(name, f"three concurrent sweepers, step {number}", sim, problems)


def test_second_attempt_starts_by_its_own_wake_up() -> None:
    """It starts after a backoff of a second, even if the sweeper's clock is wrong."""
    for skew in (0.0, *WRONG_BY):
        sim, problems = _run("failing_first", skew)
        assert not problems

        [versions] = sim.history.versions.values()
        failed = next(version for version in versions if version.status is Status.RETRYING)
        second = next(version for version in versions if version.attempt == 2)
        assert 0 < second.updated_at - failed.updated_at < 5_000


def _run(name: str, skew: float, *, sweepers: int = 1, fault: Fault | None = None) -> tuple[Simulation, list[str]]:
    sim = Simulation([fault] if fault else [])
    sim.sweeper_skew, sim.sweepers = skew, sweepers
    return sim, problems_of(sim, SCENARIOS[name])
