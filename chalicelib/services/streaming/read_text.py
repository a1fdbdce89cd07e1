"""Read a job's text from any offset, for late subscribers, replays, polls and event streams."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from chalicelib.domain.errors import ChunkConflict, ResultExpired
from chalicelib.domain.execution.transcript import join_chunks
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.ports import Chunks, Results

MAX_SLICE_LENGTH = 400_000  # code points; each takes at most 12 bytes as Lambda encodes it, and a response may have 6 MB


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSlice:
    """The text of an attempt in `[offset, next_offset)`. `done`: the attempt has no more text.

    `events` and `progress` come from the transcript; they are empty once it has expired.
    """

    attempt: int
    offset: int
    text: str
    done: bool
    events: tuple[dict[str, Any], ...] = ()
    progress: dict[str, Any] = field(default_factory=dict)

    @property
    def next_offset(self) -> int:
        return self.offset + len(self.text)


def read_text(chunks: Chunks, results: Results, job: Job, offset: int, attempt: int | None = None) -> TextSlice:
    """Read the text of `attempt` (default: the job's present one) from `offset` on.

    Text that the transcript no longer has comes from the attempt's result, which is kept longer.

    Raises:
        ResultExpired: both have expired.
    """
    number = job.attempt if attempt is None else attempt
    is_current = number == job.attempt
    if number < 1 or number > job.attempt:
        return TextSlice(attempt=number, offset=offset, text="", done=number > 0 or job.status.is_terminal)
    has_ended = not is_current or not (job.status is Status.PROCESSING or job.is_resumable)
    length = job.length if is_current and has_ended else None
    found = chunks.read(job.id, number, offset)
    try:
        text = join_chunks(found, offset, length)
        is_short = length is not None and offset + len(text) < length
    except ChunkConflict:  # the first chunks have expired
        text, is_short = "", True
    if is_short:
        text = _from_result(results, job, number, offset, length)
    elif not is_current:  # only the result knows where an earlier attempt ends; without one, the chunks are all there is
        result = results.get(job.id, number)
        text = result.text[offset:] if result is not None else text
    cut = text[:MAX_SLICE_LENGTH]
    return TextSlice(
        attempt=number,
        offset=offset,
        text=cut,
        done=has_ended and len(cut) == len(text),
        events=tuple(event for chunk in found for event in chunk.events),
        progress=found[-1].progress if found else {},
    )


def _from_result(results: Results, job: Job, attempt: int, offset: int, length: int | None) -> str:
    result = results.get(job.id, attempt)
    if result is None:
        raise ResultExpired
    return result.text[offset:length]
