"""Count what the change stream says, have those batches gone on with to which it matters, and tell those who watch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from chalicelib.consumers.change_loop import TIME_BUDGET_MS as COUNTING_MS
from chalicelib.consumers.change_loop import UNREADABLE, Change, call_with_retry
from chalicelib.domain.batches.batch import Batch, needs_attention
from chalicelib.domain.batches.counters import BatchCounts
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.queues.lanes import STREAM
from chalicelib.domain.units import Ms
from chalicelib.services.batches.broadcast_progress import TIME_BUDGET_MS, broadcast_batch_progress
from chalicelib.services.batches.context import BatchContext, enqueue_advance, load_counts
from chalicelib.services.metrics.count_jobs import count_jobs

PAGE_SIZE = 100  # jobs whose marks are read together


def count_job_changes(ctx: BatchContext, changes: Iterable[Change]) -> None:
    """Count the newest image of each job. One that cannot be read, or counted, is set aside by its id and stops no other.

    Raises:
        Unavailable: the ledger did not answer; the stream gives the records again, and none is counted twice.
    """
    until = ctx.clock.now() + COUNTING_MS
    newest: dict[str, Job] = {}
    ends: set[str] = set()
    for job_id, before, after in changes:
        if after is None and before is None:
            _set_aside(ctx, job_id, UNREADABLE, until)
        elif after is not None and (job_id not in newest or newest[job_id].version < after.version):
            newest[job_id] = after
        if after is not None and after.status.is_terminal and (before is None or not before.status.is_terminal):
            ends.add(job_id)
    jobs = list(newest.values())
    for start in range(0, len(jobs), PAGE_SIZE):
        _count(ctx, jobs[start : start + PAGE_SIZE], until)
    touched: defaultdict[tuple[str, str], list[Job]] = defaultdict(list)
    for job in jobs:
        if job.batch_id is not None:
            touched[job.tenant, job.batch_id] += [job] if job.id in ends and job.status.is_terminal else []
    _tell(ctx, _advance_batches(ctx, sorted(touched)), touched)


def _count(ctx: BatchContext, jobs: Sequence[Job], until: Ms) -> None:
    """Together; or each alone, to find the one that cannot be."""
    try:
        left = call_with_retry(ctx.clock, partial(count_jobs, ctx.counters, ctx.clock, jobs), until)
    except Unavailable:
        raise
    except Exception as exc:  # noqa: BLE001 - a record that always fails would stop its shard for a day, and then be lost
        if len(jobs) == 1:
            ctx.log("change_not_counted", job_id=jobs[0].id, error=exc)
            _set_aside(ctx, jobs[0].id, f"not counted: {type(exc).__name__}", until)
            return
        for job in jobs:
            _count(ctx, [job], until)
        return
    for job_id in left:
        _set_aside(ctx, job_id, "not counted: others counted it at every try", until)


def _advance_batches(ctx: BatchContext, touched: Iterable[tuple[str, str]]) -> list[tuple[Batch, BatchCounts]]:
    """Have somebody go on with those batches that it matters to. The answer is how they all stand."""
    seen = []
    for tenant, batch_id in touched:
        try:
            batch = ctx.batches.get(tenant, batch_id)
            if batch is None:
                continue
            counts = load_counts(ctx, batch_id)
            seen.append((batch, counts))
            if needs_attention(batch, counts, ctx.clock.now()):
                enqueue_advance(ctx.queues, batch)
        except Unavailable as exc:  # what is counted is counted; the sweep goes on with the batch
            ctx.log("batch_advance_not_enqueued", batch_id=batch_id, tenant=tenant, error=exc)
    return seen


def _tell(ctx: BatchContext, seen: Iterable[tuple[Batch, BatchCounts]], ended: Mapping[tuple[str, str], Sequence[Job]]) -> None:
    """Afterwards: no row waits for a socket."""
    until = ctx.clock.now() + TIME_BUDGET_MS
    for batch, counts in seen:
        broadcast_batch_progress(ctx, batch, counts, until, ended[batch.tenant, batch.id])


def _set_aside(ctx: BatchContext, job_id: str, reason: str, until: Ms) -> None:
    call_with_retry(ctx.clock, partial(ctx.queues.send_to_dead_letter, STREAM, job_id, reason), until)
