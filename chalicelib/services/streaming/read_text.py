"""Read a job's text from any offset: for late joiners, replays, polls and the slices of an event stream alike."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from chalicelib.domain.errors import ChunkConflict, ResultExpired
from chalicelib.domain.execution.transcript import join_chunks
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.ports import Chunks, Results

MAX_SLICE_LENGTH = 400_000  # code points: at most 12 bytes each as a function's runtime encodes them, which may answer 6 MB


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSlice:
    """`[offset, next_offset)` of an attempt's text. `done`: that attempt has no more.

    `events` happened in it, and `progress` is how it stood at its end, where the log still has them.
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
    """The text of `attempt` (the record's, if not said) from `offset` on.

    What the log no longer keeps is taken from the attempt's result, which is kept longer.

    Raises:
        ResultExpired: neither is kept any more.
    """
    number = job.attempt if attempt is None else attempt
    current = number == job.attempt
    if number < 1 or number > job.attempt:
        return TextSlice(attempt=number, offset=offset, text="", done=number > 0 or job.status.is_terminal)
    over = not current or not (job.status is Status.PROCESSING or job.is_resumable)
    length = job.length if current and over else None
    kept = chunks.read(job.id, number, offset)
    try:
        text = join_chunks(kept, offset, length)
        short = length is not None and offset + len(text) < length
    except ChunkConflict:  # its beginning has expired
        text, short = "", True
    if short:
        text = _from_result(results, job, number, offset, length)
    elif not current:  # its end is known only by its result; without one the log has what there is
        result = results.get(job.id, number)
        text = result.text[offset:] if result is not None else text
    cut = text[:MAX_SLICE_LENGTH]
    return TextSlice(
        attempt=number,
        offset=offset,
        text=cut,
        done=over and len(cut) == len(text),
        events=tuple(event for chunk in kept for event in chunk.events),
        progress=kept[-1].progress if kept else {},
    )


def _from_result(results: Results, job: Job, attempt: int, offset: int, length: int | None) -> str:
    result = results.get(job.id, attempt)
    if result is None:
        raise ResultExpired
    return result.text[offset:length]
