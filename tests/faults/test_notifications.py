"""Notifications of job ends without the change stream: the sweep alone notifies of each end once."""

from __future__ import annotations

import pytest

from tests.faults.report import failure_report, problems_of
from tests.faults.sampling import sample
from tests.faults.scenarios import SCENARIOS
from tests.faults.simulation import Simulation
from tests.faults.steps import Fault, Kind

NAME = "notified"


@pytest.mark.parametrize("kind", Kind, ids=[kind.name.lower() for kind in Kind])
def test_each_end_is_notified_of_once_without_the_change_stream_and_with_a_fault_at_any_call(kind: Kind) -> None:
    """The function may be throttled, lack a permission, or lag until the stream has dropped its records."""
    calls = len(_run()[0].steps.trace)

    for number in sample(range(1, calls + 1), kind):
        sim, problems = _run(Fault(number, kind))
        assert not problems, failure_report(NAME, f"step {number}: {kind.value}", sim, problems)


def _run(*faults: Fault) -> tuple[Simulation, list[str]]:
    sim = Simulation(faults)
    sim.follows_changes = False
    return sim, problems_of(sim, SCENARIOS[NAME])
