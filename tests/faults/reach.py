"""How much of all that could go wrong is tried each time: all of it takes a core half an hour. `HEADRACE_FAULTS=all` tries it."""

from __future__ import annotations

import os
from collections.abc import Sequence

from tests.faults.steps import Kind

ALL = os.environ.get("HEADRACE_FAULTS") == "all"


def some(numbers: Sequence[int], kind: Kind, every: int) -> Sequence[int]:
    """Every so many of the calls, each kind of fault beginning at another, so that together they strike at all of them."""
    return numbers if ALL else numbers[list(Kind).index(kind) % every :: every]


def stride(length: int) -> int:
    """How far the next moment is from the one before."""
    return length if ALL else 2 * length
