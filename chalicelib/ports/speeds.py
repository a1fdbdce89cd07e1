"""How fast models write, as measured."""

from __future__ import annotations

from typing import Protocol

from chalicelib.domain.job import Ms
from chalicelib.domain.speed import Speed


class Speeds(Protocol):
    """What the counters of completed jobs say. Where nothing was counted yet: `UNMEASURED`."""

    def get(self, job_type: str, model: str, now: Ms) -> Speed:
        """By the jobs of this week and the last: one request, not read consistently."""
