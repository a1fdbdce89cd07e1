"""The append-only text of one attempt, and the chunks in which it is stored.

One writer appends. Every reader has its own offset and calls `read_from(offset)` when it is ready
for more, so a slow reader delays nothing else: text that arrives meanwhile is part of its next
piece.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from chalicelib.domain.errors import ChunkConflict


class Transcript:
    """The text of one attempt in memory.

    Appending is O(1); reading is linear in the text that is returned.
    """

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
        """Return the text from `offset` (code points) to the end.

        A negative offset means the beginning.
        """
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
    """A stored part of the text of one attempt: the range `[start, start + len(text))`."""

    job_id: str
    attempt: int
    start: int  # offset in code points
    text: str
    at: int  # when it was written, milliseconds since 1970
    progress: dict[str, Any] = field(default_factory=dict)  # at its end
    # Stages and milestones reached in it, so that the history needs no extra writes.
    events: tuple[dict[str, Any], ...] = ()
    # The provider's last event whose text is completely stored; a durable stream resumes after it.
    sequence: int | None = None
    sequence_offset: int | None = None  # where the text of that event ends
    ttl: int | None = None  # seconds since 1970

    @property
    def end(self) -> int:
        return self.start + len(self.text)


def join_chunks(chunks: Iterable[Chunk], offset: int, length: int | None = None) -> str:
    """Return the text from `offset` that the chunks hold, not beyond `length`.

    The chunks are in the order of their ends.

    Chunks may overlap, because two workers of one durable response cut it differently; overlapping
    text is skipped.

    Raises:
        ChunkConflict: text is missing between two chunks; workers never write such a gap.
    """
    at, parts = offset, []
    for chunk in chunks:
        if chunk.end <= at:
            continue
        if chunk.start > at:
            raise ChunkConflict(f"the text {at}:{chunk.start} of attempt {chunk.attempt} is missing")
        parts.append(chunk.text[at - chunk.start :])
        at = chunk.end
    text = "".join(parts)
    return text if length is None else text[: max(0, length - offset)]
