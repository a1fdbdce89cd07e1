"""Two or three things at once go wrong, anywhere: drawn by lot, from a seed that is printed."""

from __future__ import annotations

import os
from random import Random

import pytest

from tests.faults.report import SEED, report, told
from tests.faults.scenarios import SCENARIOS
from tests.faults.steps import Fault, Kind

PAIRS = int(os.environ.get("HEADRACE_FAULT_PAIRS", "600"))
GROUPS = 4
LAST, APART = 110, 60  # steps


def _draw(random: Random) -> list[Fault]:
    """Faults that are near each other, because far apart they are single ones."""
    step, faults = 0, []
    for _ in range(random.choice((2, 2, 3))):
        step += random.randint(1, APART if faults else LAST)
        faults.append(Fault(step, random.choice(list(Kind))))
    return faults


@pytest.mark.parametrize("group", range(GROUPS))
def test_invariants_hold_with_several_faults(group: int) -> None:
    """`HEADRACE_FAULT_SEED` and `HEADRACE_FAULT_PAIRS` draw other faults, and more."""
    for number in range(group, PAIRS, GROUPS):
        random = Random(f"{SEED}/{number}")
        name, faults = random.choice(list(SCENARIOS)), _draw(random)
        cloud, problems = told(SCENARIOS[name], faults)
        what = ", ".join(f"step {fault.step}: {fault.kind.value}" for fault in faults)
        assert not problems, report(name, f"HEADRACE_FAULT_SEED={SEED}, pair {number}: {what}", cloud, problems)
