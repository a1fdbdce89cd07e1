"""How often frames are sent and chunks are written. The cost of streaming is decided here.

Frames are the largest AWS cost of a streamed job and share the account's request quota with REST,
so they are frequent only at the beginning, when a user waits for the first words. A chunk costs one
write per KB, so chunks are larger while no client reads the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class StreamingMode(StrEnum):
    """How a job is streamed: `config.streaming_mode`."""

    REALTIME = "realtime"
    BATCHED = "batched"  # one token frame a second
    NONE = "none"  # no token frames


@dataclass(frozen=True)
class FramePace:
    """Seconds between two token frames to one socket; None: no token frames."""

    opening: float | None = 0.1  # at the beginning
    steady: float | None = 0.25  # later
    opening_lasts: float = 3.0

    def pause(self, elapsed: float) -> float | None:
        """Return the pause after a frame that was sent `elapsed` seconds after the first."""
        return self.opening if elapsed < self.opening_lasts else self.steady


def frame_pace(mode: str, frames_per_second: float = 4.0) -> FramePace:
    """Return the pace of a streaming mode.

    `frames_per_second`: the steady rate of `realtime`, a setting of the stage.
    """
    if mode == StreamingMode.NONE:
        return FramePace(None, None)
    if mode == StreamingMode.BATCHED:
        return FramePace(1.0, 1.0)
    steady = 1 / frames_per_second
    return FramePace(min(0.1, steady), steady)


@dataclass(frozen=True)
class LogPace:
    """When the transcript writer stores its next chunk.

    A chunk costs one write unit per KB however the text is cut, but each write is a request. So a
    chunk is written when it is large enough or old enough, and at once during the first seconds,
    for clients that subscribe early.
    """

    tick: float = 1.0  # seconds between two checks
    early: float = 3.0  # seconds from the first text during which every check writes
    every: float = 4.0  # seconds after which a chunk of any size is written
    # Code points at which a chunk is written: with its keys just below one write unit.
    enough: int = 900

    def is_due(self, elapsed: float, since_last: float, pending: int, *, watched: bool) -> bool:
        """Return whether to write a chunk now.

        Args:
            elapsed: Seconds since the first text.
            since_last: Seconds since the last chunk.
            pending: Code points that are not stored yet.
            watched: A client reads the stored chunks.
        """
        return elapsed <= self.early or watched or pending >= self.enough or since_last >= self.every


def log_pace(mode: str) -> LogPace:
    """Return the pace of a streaming mode.

    In mode `none` no client streams the job, so chunks are written rarely.
    """
    return LogPace(tick=5.0, early=0.0, every=15.0, enough=8_000) if mode == StreamingMode.NONE else LogPace()
