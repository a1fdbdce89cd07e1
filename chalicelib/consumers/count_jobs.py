"""Update job and batch counters from the change stream, then advance and broadcast batches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from chalicelib.consumers.change_loop import Change
from chalicelib.domain.batches.batch import Batch, needs_attention
from chalicelib.domain.batches.counters import BatchCounts
from chalicelib.domain.errors import Throttled, Unavailable
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.queues.lanes import STREAM
from chalicelib.domain.units import Ms
from chalicelib.services.batches.broadcast_progress import TIME_BUDGET_MS, broadcast_batch_progress
from chalicelib.services.batches.context import BatchContext, enqueue_advance, load_counts
from chalicelib.services.metrics.count_jobs import count_jobs
from chalicelib.services.retrying import call_with_retry

PAGE_SIZE = 90  # jobs whose count marks are read together; with their counters they mostly fit into one transaction

# Milliseconds after the start of a batch, after which a step starts nothing more. A call that hangs then takes
# 15 s more; the function has 60 s.
COUNT_UNTIL_MS = 20_000
ADVANCE_UNTIL_MS = 30_000
BROADCAST_UNTIL_MS = 40_000

Rows = tuple[str, str]  # tenant and id of a batch


def count_job_changes(ctx: BatchContext, changes: Iterable[Change]) -> None:
    """Count the newest image of each job, then advance and broadcast the batches they belong to.

    A change that cannot be read is left out: the job's next change makes up for it, or the recount
    of its batch. A job that cannot be counted goes to the dead-letter queue. Neither stops the
    others.

    Raises:
        Unavailable: the counters did not answer, or other writers kept changing them. The stream
            delivers the batch again; count marks prevent double counting (protocol rule 21: mark
            and counters in one transaction).
    """
    started = ctx.clock.now()
    until = started + COUNT_UNTIL_MS
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
    ended_rows: defaultdict[Rows, list[Job]] = defaultdict(list)
    for job in jobs:
        if job.batch_id is not None:
            ended_rows[job.tenant, job.batch_id] += [job] if job.id in ends and job.status.is_terminal else []
    _broadcast(ctx, _advance_batches(ctx, sorted(ended_rows), started + ADVANCE_UNTIL_MS), ended_rows, started + BROADCAST_UNTIL_MS)


def _count(ctx: BatchContext, jobs: Sequence[Job], until: Ms) -> None:
    """Count the jobs in one call; if that fails, count each alone to isolate the bad record."""
    if ctx.clock.now() >= until:
        raise Throttled("No time was left to count all changes; the stream delivers them again.")
    try:
        uncounted = call_with_retry(ctx.clock, partial(count_jobs, ctx, jobs), until)
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
    if uncounted:
        raise Throttled(f"{len(uncounted)} changes lost every try to other counters; the stream delivers them again.")


def _advance_batches(ctx: BatchContext, batch_keys: Sequence[Rows], until: Ms) -> list[tuple[Batch, BatchCounts]]:
    """Enqueue an advance of each batch that needs one. Returns all that could be read, with their counts."""
    found = ctx.parallel_map(partial(_advance_batch, ctx, until), batch_keys)
    return [each for each in found if each is not None]


def _advance_batch(ctx: BatchContext, until: Ms, batch_key: Rows) -> tuple[Batch, BatchCounts] | None:
    tenant, batch_id = batch_key
    found = None
    try:
        if ctx.clock.now() >= until:
            raise Throttled("No time was left to advance the batch.")
        batch = ctx.batches.get(tenant, batch_id)
        if batch is not None:
            found = batch, load_counts(ctx, batch_id)
            if needs_attention(*found, ctx.clock.now()):
                enqueue_advance(ctx.queues, batch)
    except Unavailable as exc:  # the counts are stored; the sweeper advances the batch
        ctx.log("batch_advance_not_enqueued", batch_id=batch_id, tenant=tenant, error=exc)
    return found


def _broadcast(
    ctx: BatchContext, batches: Sequence[tuple[Batch, BatchCounts]], ended_rows: Mapping[Rows, Sequence[Job]], until: Ms
) -> None:
    """Broadcast batch progress. Runs last, so that a slow socket never delays counting."""
    until = min(until, ctx.clock.now() + TIME_BUDGET_MS)
    ctx.parallel_map(lambda one: broadcast_batch_progress(ctx, *one, until, ended_rows[one[0].tenant, one[0].id]), batches)


def _send_to_dead_letter(ctx: BatchContext, job_id: str, reason: str, until: Ms) -> None:
    call_with_retry(ctx.clock, partial(ctx.queues.send_to_dead_letter, STREAM, job_id, reason), until)
