"""How many of all possible faults a run tries.

All of them take a core half an hour: `HEADRACE_FAULTS=all`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from tests.faults.steps import Kind

ALL = os.environ.get("HEADRACE_FAULTS") == "all"
# A process that dies before a call leaves the state that the effect of its last call left, so deaths are tried after
# every call, and the other faults at each fifth.
EVERY = 5


def sample(numbers: Sequence[int], kind: Kind) -> Sequence[int]:
    """Return the calls at which this kind of fault is tried.

    Each kind starts at another call, so that together they cover all calls.
    """
    every = 1 if ALL or kind is Kind.DIES_AFTER else EVERY
    return numbers[list(Kind).index(kind) % every :: every]


def stride(length: int) -> int:
    """Return the distance between two tried moments: `length`, or five times that if sampled."""
    return length if ALL else EVERY * length


def drawn(draws: int) -> int:
    """Return how many random runs are tried: `draws`, or a fifth of them if sampled."""
    return draws if ALL else draws // EVERY
