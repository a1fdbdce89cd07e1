"""How fast models write, as measured."""

from __future__ import annotations

from typing import Protocol

from chalicelib.domain.metrics.throughput import Throughput
from chalicelib.domain.units import Ms


class ThroughputStats(Protocol):
    """What the counters of completed jobs say. Where nothing was counted yet: `UNMEASURED`."""

    def get(self, job_type: str, model: str, now: Ms) -> Throughput:
        """By the jobs of this week and the last: one request, not read consistently."""
