"""Store the text of an attempt in chunks while it is produced."""

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

    One put is in flight at a time, at the acknowledged end of the log, so the log never has a hole
    (protocol rule 7: chunks are appended where none ends).

    Raises:
        ChunkConflict: another worker writes the log of this attempt, so this worker is fenced.
        Unavailable: the table did not answer; acknowledged chunks stay.
    """
    stored, events_stored = attempt.output.begins_at, 0
    await attempt.output.wait_until(lambda: len(attempt.output.transcript) > stored or attempt.output.complete)
    started_at = last_write_at = ctx.clock.now()
    while True:
        if not attempt.output.complete:
            await attempt.output.pause(pace.tick)
        now = ctx.clock.now()
        pending = len(attempt.output.transcript) - stored
        watched = attempt.watched_until > now
        elapsed, since_write = (now - started_at) / 1000, (now - last_write_at) / 1000
        if pending and (attempt.output.complete or pace.is_due(elapsed, since_write, pending, watched=watched)):
            events = [event for event in attempt.output.events[events_stored:] if event["kind"] != "progress"]
            events_stored = len(attempt.output.events)
            stored, last_write_at = await _write(ctx, attempt, stored, events), now
        elif attempt.output.complete:
            return


async def _write(ctx: WorkerContext, attempt: Attempt, stored: int, events: list[dict[str, object]]) -> int:
    """Store all text beyond the offset `stored` and return the new acknowledged end."""
    now = ctx.clock.now()
    for text in split_text(attempt.output.transcript.read_from(stored), MAX_CHUNK_POINTS):
        sequence, sequence_offset = attempt.output.resume_cursor(stored + len(text))
        chunk = Chunk(
            job_id=attempt.job.id,
            attempt=attempt.number,
            start=stored,
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
            return await _reconcile(ctx, attempt, stored)
        stored, events = chunk.end, []
    return stored


async def _reconcile(ctx: WorkerContext, attempt: Attempt, stored: int) -> int:
    """Compare the stored text with this worker's, after a conflict
    (protocol rule 7: chunks are appended where none ends).

    An earlier worker of this durable attempt may have written one more chunk before it was fenced.

    Returns: the end of the text that both have.

    Raises:
        ChunkConflict: this worker is the fenced one, or the texts differ.
    """
    job = await offload_with_retry(ctx, ctx.jobs.get, attempt.job.id)
    if job is None or not job.is_resumable or not transitions.owns(job, attempt.generation, attempt.owner):
        raise ChunkConflict
    chunks = await offload_with_retry(ctx, ctx.chunks.read, job.id, attempt.number, stored)
    stored_text, own_text = join_chunks(chunks, stored), attempt.output.transcript.read_from(stored)
    common = min(len(stored_text), len(own_text))
    if stored_text[:common] != own_text[:common]:
        raise ChunkConflict
    return stored + common
