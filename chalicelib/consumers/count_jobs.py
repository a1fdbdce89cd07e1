"""Update job and batch counters from the change stream, then advance and broadcast batches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from chalicelib.consumers.change_loop import TIME_BUDGET_MS as COUNTING_MS
from chalicelib.consumers.change_loop import Change
from chalicelib.domain.batches.batch import Batch, needs_attention
from chalicelib.domain.batches.counters import BatchCounts
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.queues.lanes import STREAM
from chalicelib.domain.units import Ms
from chalicelib.services.batches.broadcast_progress import TIME_BUDGET_MS, broadcast_batch_progress
from chalicelib.services.batches.context import BatchContext, enqueue_advance, load_counts
from chalicelib.services.metrics.count_jobs import count_jobs
from chalicelib.services.retrying import call_with_retry

PAGE_SIZE = 100  # jobs whose count marks are read together


def count_job_changes(ctx: BatchContext, changes: Iterable[Change]) -> None:
    """Count the newest image of each job, then advance and broadcast the batches they belong to.

    A change that cannot be read is left out: the job's next change makes up for it, or the recount
    of its batch. A job that cannot be counted goes to the dead-letter queue. Neither stops the
    others.

    Raises:
        Unavailable: the counters did not answer. The stream delivers the batch again; count marks
            prevent double counting (protocol rule 21: mark and counters in one transaction).
    """
    until = ctx.clock.now() + COUNTING_MS
    newest: dict[str, Job] = {}
    ends: set[str] = set()
    for job_id, before, after in changes:
        if after is None:
            continue
        if job_id not in newest or newest[job_id].version < after.version:
            newest[job_id] = after
        if after.status.is_terminal and (before is None or not before.status.is_terminal):
            ends.add(job_id)
    jobs = list(newest.values())
    for start in range(0, len(jobs), PAGE_SIZE):
        _count(ctx, jobs[start : start + PAGE_SIZE], until)
    ended_rows: defaultdict[tuple[str, str], list[Job]] = defaultdict(list)
    for job in jobs:
        if job.batch_id is not None:
            ended_rows[job.tenant, job.batch_id] += [job] if job.id in ends and job.status.is_terminal else []
    _broadcast(ctx, _advance_batches(ctx, sorted(ended_rows)), ended_rows)


def _count(ctx: BatchContext, jobs: Sequence[Job], until: Ms) -> None:
    """Count the jobs in one call; if that fails, count each alone to isolate the bad record."""
    try:
        uncounted = call_with_retry(ctx.clock, partial(count_jobs, ctx.counters, ctx.clock, jobs), until)
    except Unavailable:
        raise
    except Exception as exc:  # noqa: BLE001 - a record that always fails would block its shard for a day and then be lost
        if len(jobs) == 1:
            ctx.log("change_not_counted", job_id=jobs[0].id, error=exc)
            _send_to_dead_letter(ctx, jobs[0].id, f"not counted: {type(exc).__name__}", until)
            return
        for job in jobs:
            _count(ctx, [job], until)
        return
    for job_id in uncounted:
        _send_to_dead_letter(ctx, job_id, "not counted: every try lost to a concurrent counter", until)


def _advance_batches(ctx: BatchContext, batch_keys: Iterable[tuple[str, str]]) -> list[tuple[Batch, BatchCounts]]:
    """Enqueue an advance of each batch that needs one. Returns all batches with their counts."""
    found = []
    for tenant, batch_id in batch_keys:
        try:
            batch = ctx.batches.get(tenant, batch_id)
            if batch is None:
                continue
            counts = load_counts(ctx, batch_id)
            found.append((batch, counts))
            if needs_attention(batch, counts, ctx.clock.now()):
                enqueue_advance(ctx.queues, batch)
        except Unavailable as exc:  # the counts are stored; the sweeper advances the batch
            ctx.log("batch_advance_not_enqueued", batch_id=batch_id, tenant=tenant, error=exc)
    return found


def _broadcast(
    ctx: BatchContext, batches: Iterable[tuple[Batch, BatchCounts]], ended_rows: Mapping[tuple[str, str], Sequence[Job]]
) -> None:
    """Broadcast batch progress. Runs last, so that a slow socket never delays counting."""
    until = ctx.clock.now() + TIME_BUDGET_MS
    for batch, counts in batches:
        broadcast_batch_progress(ctx, batch, counts, until, ended_rows[batch.tenant, batch.id])


def _send_to_dead_letter(ctx: BatchContext, job_id: str, reason: str, until: Ms) -> None:
    call_with_retry(ctx.clock, partial(ctx.queues.send_to_dead_letter, STREAM, job_id, reason), until)
