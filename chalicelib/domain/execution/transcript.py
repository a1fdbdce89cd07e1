"""The append-only text of one attempt, and the chunks in which it is kept.

One writer appends; every reader holds an offset of its own and takes `since(offset)` when it is ready for more. So a slow reader costs
only itself, and what arrives meanwhile is simply part of its next piece.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from chalicelib.domain.errors import ChunkConflict


class Transcript:
    """The text of attempt `attempt`, in memory. Appending costs O(1), reading costs what is read."""

    def __init__(self, attempt: int) -> None:
        self.attempt = attempt
        self._parts: list[str] = []
        self._ends: list[int] = []

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def append(self, text: str) -> None:
        if text:
            self._ends.append(len(self) + len(text))
            self._parts.append(text)

    def read_from(self, offset: int) -> str:
        """The text from `offset` (code points) to the end; empty when there is none. What lies before the beginning is the beginning."""
        offset = max(0, offset)
        if offset >= len(self):
            return ""
        first = bisect_right(self._ends, offset)
        begin = self._ends[first - 1] if first else 0
        tail = "".join(self._parts[first:])
        return tail[offset - begin :]

    @property
    def text(self) -> str:
        if len(self._parts) > 1:
            self._parts, self._ends = ["".join(self._parts)], [len(self)]
        return self._parts[0] if self._parts else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A stretch of one attempt's text as it is kept, `[start, start + len(text))`, with the progress at its end.

    `events` are the stages and milestones that were reached in it, so that the history costs no write of its own.
    `sequence` and `sequence_offset` name the provider's last event whose text is wholly kept: from there a durable stream goes on.
    """

    job_id: str
    attempt: int
    start: int
    text: str
    at: int
    progress: dict[str, Any] = field(default_factory=dict)
    events: tuple[dict[str, Any], ...] = ()
    sequence: int | None = None
    sequence_offset: int | None = None
    ttl: int | None = None

    @property
    def end(self) -> int:
        return self.start + len(self.text)


def join_chunks(chunks: Iterable[Chunk], offset: int, length: int | None = None) -> str:
    """The text from `offset` that the chunks hold, in the order of their ends, not beyond `length`.

    Chunks may overlap (two workers of one durable response cut it differently): what is known already is skipped.

    Raises:
        ChunkConflict: a stretch is missing between two chunks, which the engine never writes.
    """
    at, parts = offset, []
    for chunk in chunks:
        if chunk.end <= at:
            continue
        if chunk.start > at:
            raise ChunkConflict(f"nothing is kept of {at}:{chunk.start} of attempt {chunk.attempt}")
        parts.append(chunk.text[at - chunk.start :])
        at = chunk.end
    text = "".join(parts)
    return text if length is None else text[: max(0, length - offset)]
