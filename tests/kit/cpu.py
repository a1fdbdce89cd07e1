"""CPU time as multiples of a fixed piece of work, so that a slow or busy machine fails no test."""

from __future__ import annotations

import time
from collections.abc import Callable


def unit_of_work() -> float:
    """Return the CPU seconds that a fixed piece of work takes now; some hundredths of a second."""
    began, total = time.process_time(), 0
    for number in range(400_000):
        total += number * number % 7
    return time.process_time() - began


def units_of(work: Callable[[], object]) -> float:
    """Return the CPU time of `work` as a multiple of the unit."""
    began = time.process_time()
    work()
    return (time.process_time() - began) / unit_of_work()
