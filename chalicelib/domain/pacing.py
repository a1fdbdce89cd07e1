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
    """When the log reader writes its next chunk, in seconds since the attempt's first text."""

    early: tuple[float, ...] = (1.0, 2.0, 3.0)
    every: float = 4.0
    watched_every: float = 1.0
    enough_bytes: int = 900  # just below one write unit with its keys

    def next_at(self, written_at: float, *, watched: bool) -> float:
        """The latest time of the next chunk after one at `written_at`."""
        for moment in self.early:
            if written_at < moment:
                return moment
        return written_at + (self.watched_every if watched else self.every)


def log_pace(mode: str) -> LogPace:
    """Nobody watches a job of mode `none`, so its text is kept at longer intervals."""
    if mode == "none":
        return LogPace(early=(), every=15.0, enough_bytes=8_000)
    return LogPace()
