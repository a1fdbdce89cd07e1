"""How many of all possible faults a run tries.

All of them take a core half an hour: `HEADRACE_FAULTS=all`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from tests.faults.steps import Kind

ALL = os.environ.get("HEADRACE_FAULTS") == "all"
# A process that dies or freezes before a call leaves the state that the effect of its last call left, so deaths are
# tried after every call. Freezes before and after a call are together two or three calls apart.
STRIDE = {Kind.DIES_AFTER: 1, Kind.FREEZES_BEFORE: 5, Kind.FREEZES_AFTER: 5}
OTHER_STRIDE = 3


def sample(numbers: Sequence[int], kind: Kind) -> Sequence[int]:
    """Return the calls at which this kind of fault is tried.

    Each kind starts at another call, so that together they cover all calls.
    """
    every = 1 if ALL else STRIDE.get(kind, OTHER_STRIDE)
    return numbers[list(Kind).index(kind) % every :: every]


def stride(length: int) -> int:
    """Return the distance between two tried moments: `length`, or three times that if sampled."""
    return length if ALL else 3 * length
