"""Clocks that are wrong, and sweeps that begin together: they decide when something happens, never whether [16, 19]."""

from __future__ import annotations

import pytest

from chalicelib.domain.jobs.job import Status
from tests.faults.cloud import Cloud
from tests.faults.report import problems_of, report
from tests.faults.scenarios import SCENARIOS
from tests.faults.steps import Fault, Kind

WRONG_BY = (600.0, -600.0)
DEATHS = (Kind.DIES_BEFORE, Kind.DIES_AFTER, Kind.FREEZES_BEFORE)
STRIDE = 4  # every fourth call, beginning in turn


@pytest.mark.parametrize("skew", WRONG_BY, ids=["fast", "slow"])
@pytest.mark.parametrize("name", SCENARIOS)
def test_invariants_hold_with_a_sweeper_clock_ten_minutes_wrong(name: str, skew: float) -> None:
    """A fast clock takes jobs from living workers, a slow one finds dead workers late."""
    calls = len(_told(name, 0.0)[0].steps.trace)

    for number in range(1 + calls % STRIDE, calls + 1, STRIDE):
        kind = DEATHS[number // STRIDE % len(DEATHS)]
        cloud, problems = _told(name, skew, fault=Fault(number, kind))
        assert not problems, report(name, f"the sweep's clock is {skew:g} s wrong, step {number}: {kind.value}", cloud, problems)


@pytest.mark.parametrize("name", ["dead_worker", "cancelled_and_retried", "not_resumed"])
def test_invariants_hold_with_three_concurrent_sweepers(name: str) -> None:
    """They find the same jobs at the same moment, and a process may die or freeze."""
    calls = len(_told(name, 0.0, sweeps=3)[0].steps.trace)

    for number in range(1 + calls % STRIDE, calls + 1, STRIDE):
        cloud, problems = _told(name, 0.0, sweeps=3, fault=Fault(number, DEATHS[number // STRIDE % len(DEATHS)]))
        assert not problems, report(name, f"three sweeps at once, step {number}", cloud, problems)


def test_second_attempt_starts_by_its_own_wake_up() -> None:
    """It starts after a backoff of a second, even if the sweeper's clock is wrong."""
    for skew in (0.0, *WRONG_BY):
        cloud, problems = _told("failing_first", skew)
        assert not problems

        [heads] = cloud.history.heads.values()
        failed = next(head for head in heads if head.status is Status.RETRYING)
        again = next(head for head in heads if head.attempt == 2)
        assert 0 < again.updated_at - failed.updated_at < 5_000


def _told(name: str, skew: float, *, sweeps: int = 1, fault: Fault | None = None) -> tuple[Cloud, list[str]]:
    cloud = Cloud([fault] if fault else [])
    cloud.skew, cloud.sweeps = skew, sweeps
    return cloud, problems_of(cloud, SCENARIOS[name])
