"""The log reader: keeps the text of an attempt in the transcript table, a chunk at a time."""

from __future__ import annotations

from chalicelib.domain.errors import ChunkConflict
from chalicelib.domain.execution.transcript import Chunk, join_chunks
from chalicelib.domain.jobs import transitions
from chalicelib.domain.streaming.pacing import LogPace
from chalicelib.domain.text import MAX_CHUNK_POINTS, split_text
from chalicelib.services.retrying import offload_with_retry
from chalicelib.services.worker.attempt import Attempt
from chalicelib.services.worker.context import WorkerContext
from chalicelib.services.worker.progress_snapshot import progress_of

TEXT_RETENTION_DAYS = 7


async def write_transcript(ctx: WorkerContext, attempt: Attempt, pace: LogPace) -> None:
    """Write chunks until the text is complete and all of it is acknowledged.

    One put at a time, each at the acknowledged end of the log [7]: so the log of an attempt never has a hole.

    Raises:
        ChunkConflict: another worker writes this attempt's log, so this one has been fenced.
        Unavailable: the table could not be reached; what was acknowledged stays.
    """
    kept, seen_events = attempt.output.begins_at, 0
    await attempt.output.wait_until(lambda: len(attempt.output.transcript) > kept or attempt.output.complete)
    began = last = ctx.clock.now()
    while True:
        if not attempt.output.complete:
            await attempt.output.pause(pace.tick)
        now = ctx.clock.now()
        pending = len(attempt.output.transcript) - kept
        watched = attempt.watched_until > now
        if pending and (attempt.output.complete or pace.is_due((now - began) / 1000, (now - last) / 1000, pending, watched=watched)):
            events, seen_events = (
                [event for event in attempt.output.events[seen_events:] if event["kind"] != "progress"],
                len(attempt.output.events),
            )
            kept, last = await _write(ctx, attempt, kept, events), now
        elif attempt.output.complete:
            return


async def _write(ctx: WorkerContext, attempt: Attempt, kept: int, events: list[dict[str, object]]) -> int:
    """Put all text beyond `kept`; the answer is the new acknowledged end."""
    now = ctx.clock.now()
    for text in split_text(attempt.output.transcript.read_from(kept), MAX_CHUNK_POINTS):
        sequence, sequence_offset = attempt.output.resume_cursor(kept + len(text))
        chunk = Chunk(
            job_id=attempt.job.id,
            attempt=attempt.number,
            start=kept,
            text=text,
            at=now,
            progress=progress_of(attempt, now),
            events=tuple(events),
            sequence=sequence,
            sequence_offset=sequence_offset,
            ttl=now // 1000 + TEXT_RETENTION_DAYS * 86_400,
        )
        try:
            await offload_with_retry(ctx, ctx.chunks.append, chunk)
        except ChunkConflict:
            return await _what_is_kept(ctx, attempt, kept)
        kept, events = chunk.end, []
    return kept


async def _what_is_kept(ctx: WorkerContext, attempt: Attempt, kept: int) -> int:
    """The end of the log after another worker of this durable attempt, fenced since, wrote one more chunk of the same text [7].

    Raises:
        ChunkConflict: it is this worker that was fenced, or it is another text.
    """
    job = await offload_with_retry(ctx, ctx.jobs.get, attempt.job.id)
    if job is None or not job.is_resumable or not transitions.owns(job, attempt.generation, attempt.owner):
        raise ChunkConflict
    text, ours = (
        join_chunks(await offload_with_retry(ctx, ctx.chunks.read, job.id, attempt.number, kept), kept),
        attempt.output.transcript.read_from(kept),
    )
    same = min(len(text), len(ours))
    if text[:same] != ours[:same]:
        raise ChunkConflict
    return kept + same
