"""The clock of the machine."""

from __future__ import annotations

import time

from chalicelib.domain.units import Ms


class SystemClock:
    """The system's time. `sleep` blocks the thread."""

    def now(self) -> Ms:
        return time.time_ns() // 1_000_000

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)
