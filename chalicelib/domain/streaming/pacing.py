"""How often a reader moves: pure values, so that the cost of watching is decided in one place.

A frame is the largest AWS cost of a watched job and shares the account's requests with REST, so frames are many only while somebody is
waiting for the first words. A chunk of the log costs a write a KB, so chunks grow while nobody reads the table.
"""

from __future__ import annotations

from dataclasses import dataclass

MODES = ("realtime", "batched", "none")


@dataclass(frozen=True)
class FramePace:
    """Seconds between two token frames of one socket; None: no token frames at all."""

    opening: float | None = 0.1
    steady: float | None = 0.25
    opening_lasts: float = 3.0

    def pause(self, elapsed: float) -> float | None:
        """The pause after a frame that was sent `elapsed` seconds after the reader's first."""
        return self.opening if elapsed < self.opening_lasts else self.steady


def frame_pace(mode: str, frames_per_second: float = 4.0) -> FramePace:
    """The pace of a streaming mode. `frames_per_second` is the steady rate of `realtime`, a setting that a busy fleet lowers."""
    if mode == "none":
        return FramePace(None, None)
    if mode == "batched":
        return FramePace(1.0, 1.0)
    steady = 1 / frames_per_second
    return FramePace(min(0.1, steady), steady)


@dataclass(frozen=True)
class LogPace:
    """Whether the log reader, which looks once a `tick` (seconds), writes its next chunk now.

    A chunk costs a write unit a KB however the text is cut, but each put is a request: so a fast stream is cut by time, a slow one by size,
    and the first seconds are kept at once for whoever joins early.
    """

    tick: float = 1.0
    early: float = 3.0
    every: float = 4.0
    enough: int = 900  # code points: with its keys just below one write unit

    def is_due(self, elapsed: float, since_last: float, pending: int, *, watched: bool) -> bool:
        """`elapsed` seconds since the first text, `since_last` chunk; `pending` code points; `watched`: somebody reads the table."""
        return elapsed <= self.early or watched or pending >= self.enough or since_last >= self.every


def log_pace(mode: str) -> LogPace:
    """Nobody watches a job of mode `none`, so its text is kept at longer intervals."""
    return LogPace(tick=5.0, early=0.0, every=15.0, enough=8_000) if mode == "none" else LogPace()
