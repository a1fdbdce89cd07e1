"""Two or three faults in one run, at random calls. The seed is printed."""

from __future__ import annotations

import os
from random import Random

import pytest

from tests.faults.report import SEED, failure_report, run_scenario
from tests.faults.sampling import drawn
from tests.faults.scenarios import SCENARIOS
from tests.faults.steps import Fault, Kind

PAIRS = int(os.environ.get("HEADRACE_FAULT_PAIRS") or drawn(1_500))
GROUPS = 4
MAX_FIRST, MAX_DISTANCE = 110, 60  # steps


def _draw(random: Random) -> list[Fault]:
    """Draw faults that are near each other. Distant ones would act like single faults."""
    step, faults = 0, []
    for _ in range(random.choice((2, 2, 3))):
        step += random.randint(1, MAX_DISTANCE if faults else MAX_FIRST)
        faults.append(Fault(step, random.choice(list(Kind))))
    return faults


@pytest.mark.parametrize("group", range(GROUPS))
def test_invariants_hold_with_several_faults(group: int) -> None:
    """`HEADRACE_FAULT_SEED` and `HEADRACE_FAULT_PAIRS` draw other faults, and more."""
    for number in range(group, PAIRS, GROUPS):
        random = Random(f"{SEED}/{number}")
        name, faults = random.choice(list(SCENARIOS)), _draw(random)
        sim, problems = run_scenario(SCENARIOS[name], faults)
        what = ", ".join(f"step {fault.step}: {fault.kind.value}" for fault in faults)
        assert not problems, failure_report(name, f"HEADRACE_FAULT_SEED={SEED}, pair {number}: {what}", sim, problems)
