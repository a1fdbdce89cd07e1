"""How many of all possible faults a run tries.

All of them take a core half an hour: `HEADRACE_FAULTS=all`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from tests.faults.steps import Kind

ALL = os.environ.get("HEADRACE_FAULTS") == "all"


def sample(numbers: Sequence[int], kind: Kind, every: int) -> Sequence[int]:
    """Return every `every`-th call.

    Each kind of fault starts at another call, so that together they cover all calls.
    """
    return numbers if ALL else numbers[list(Kind).index(kind) % every :: every]


def stride(length: int) -> int:
    """Return the distance between two tried moments: `length`, or three times that if sampled."""
    return length if ALL else 3 * length
