"""How fast models write, as measured on completed jobs."""

from __future__ import annotations

from typing import Protocol

from chalicelib.domain.metrics.throughput import Throughput
from chalicelib.domain.units import Ms


class ThroughputStats(Protocol):
    """Reads the throughput counters of completed jobs."""

    def get(self, job_type: str, model: str, now: Ms) -> Throughput:
        """Return the throughput of this week and the last; `UNMEASURED` if there were no jobs.

        Not read consistently. One request.
        """
