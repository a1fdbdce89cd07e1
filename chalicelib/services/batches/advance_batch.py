"""Advance a batch as far as it can go now: release rows, run pending actions, complete it.

The submission, the batch itself (by delayed messages), the counters of the change stream and the
sweeper enqueue this task. Several callers may run concurrently, because every step is a
compare-and-swap of the batch record.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from chalicelib.domain.batches import batch as batch_rules
from chalicelib.domain.batches.batch import Batch, BatchAction, BatchStatus
from chalicelib.domain.batches.counters import BatchCounts
from chalicelib.domain.errors import StaleVersion, Unavailable
from chalicelib.domain.jobs.bulk_operation import BulkOperation
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.jobs.job_type import NO_MODEL
from chalicelib.domain.jobs.queue_routing import queue_for
from chalicelib.domain.units import Ms
from chalicelib.services.batches.broadcast_progress import TIME_BUDGET_MS, broadcast_batch_progress
from chalicelib.services.batches.context import BatchContext, enqueue_advance, load_counts
from chalicelib.services.batches.notify_completion import notify_batch_completed
from chalicelib.services.batches.pausing import pause_of_rows
from chalicelib.services.batches.recount import recount_batch
from chalicelib.services.batches.release_rows import LaneFull, RowDefaults, RowsExpired, release_rows, rows_in_wave
from chalicelib.services.jobs import bulk_operations
from chalicelib.services.jobs.cancel_job import cancel_job

FULL_LANE_RETRY_SECONDS = 30  # delay before a batch tries a full lane again
PAUSED_RECHECK_MS = 120_000  # when a paused batch looks again
CLOCK_TOLERANCE_MS = 2_000  # accept the retry message this much early, because clocks differ
ERROR_BACKOFF_MS = 600_000  # pause after an unforeseen error, which will most likely happen again


@dataclass
class AdvanceRun:
    """One call of `advance_batch`."""

    ctx: BatchContext
    until: Ms  # start no step after this
    notify: bool  # this process may announce the completion
    defaults: RowDefaults | None = None  # cached after they were first read


def advance_batch(ctx: BatchContext, tenant: str, batch_id: str, until: Ms, *, notify: bool = True) -> Batch | None:
    """Advance the batch until nothing is left to do now or `until` passes; then enqueue the rest.

    Args:
        notify: announce the completion from this process. An API request passes False: it cannot
            reach the sockets, so it enqueues the announcement.

    Returns:
        The batch as it is afterwards; None if it does not exist.
    """
    batch = ctx.batches.get(tenant, batch_id)
    run = AdvanceRun(ctx, until, notify)
    try:
        while batch is not None:
            if ctx.clock.now() >= until:
                enqueue_advance(ctx.queues, batch)
                break
            new = _step(run, batch)
            if new is None:
                break
            batch = new
    except StaleVersion as stale:  # another caller advances the batch
        return stale.current if isinstance(stale.current, Batch) else batch
    except Unavailable as exc:
        ctx.log("batch_advance_deferred", batch_id=batch_id, tenant=tenant, error=exc)
    except Exception as exc:  # noqa: BLE001 - otherwise its messages end as dead letters
        ctx.log("batch_advance_failed", batch_id=batch_id, tenant=tenant, error=exc)
        _postpone(ctx, tenant, batch_id)
    return batch


def _postpone(ctx: BatchContext, tenant: str, batch_id: str) -> None:
    batch, now = ctx.batches.get(tenant, batch_id), ctx.clock.now()
    if batch is not None:
        with suppress(StaleVersion):  # another caller advances the batch
            ctx.batches.replace(batch, batch_rules.postpone(batch, now + ERROR_BACKOFF_MS, now))


def announce_completion(ctx: BatchContext, batch: Batch, counts: BatchCounts) -> None:
    """Log, notify and broadcast that a batch has ended. Repeating it sends no second notification.

    Raises:
        Unavailable: some recipients may not have been notified; repeat it.
    """
    ctx.log(
        "batch_ended",
        batch_id=batch.id,
        tenant=batch.tenant,
        run=batch.run,
        status=batch.status.value,
        completed=counts.completed,
        failed=counts.failed,
        cancelled=counts.cancelled,
    )
    if batch.notify_targets:
        notify_batch_completed(ctx, batch, counts)
    broadcast_batch_progress(ctx, batch, counts, ctx.clock.now() + TIME_BUDGET_MS)


def _step(run: AdvanceRun, batch: Batch) -> Batch | None:
    """Do the next step, and return the new record. None: there is nothing to do now."""
    ctx = run.ctx
    if batch.finished_at is not None:
        return _close(run, batch)
    action = next((action for action in batch.actions if action.not_before <= ctx.clock.now()), None)
    if action is not None:
        return _run_action(run, batch, action)
    if batch.is_releasing and batch.is_active:
        resumed = batch_rules.resume_wave(batch, ctx.clock.now())
        return _release_wave(run, _save(ctx, batch, resumed), resumed=True) if resumed is not None else None
    counts = load_counts(ctx, batch.id) if batch_rules.needs_counts(batch) else BatchCounts()
    if batch_rules.exceeds_tolerance(batch, counts) or batch_rules.is_done(batch, counts):
        return _finish(ctx, batch)
    started = batch_rules.start_wave(batch, batch_rules.running(batch, counts), ctx.clock.now())
    if started is not None:
        return _start_wave(run, batch, started)
    return _recheck(ctx, batch)


def _save(ctx: BatchContext, seen: Batch, new: Batch) -> Batch:
    ctx.batches.replace(seen, new)
    return new


# ---- release


def _start_wave(run: AdvanceRun, batch: Batch, started: Batch) -> Batch | None:
    """Save the started wave and release it; if its rows are paused or their queue is full, try again later."""
    ctx, now = run.ctx, run.ctx.clock.now()
    pause = pause_of_rows(ctx, batch)
    if pause is not None:  # the resumption wakes the batch, or the sweep does
        until = min(pause.until or now + PAUSED_RECHECK_MS, now + PAUSED_RECHECK_MS)
        if batch.locked_until <= now:
            _save(ctx, batch, batch_rules.postpone(batch, until, now))
        return None
    queue = queue_for(batch.lane, is_task=batch.model == NO_MODEL)
    if ctx.queues.depth(queue) < ctx.max_lane_depth:
        return _release_wave(run, _save(ctx, batch, started), resumed=False)
    # Only one retry message per batch; otherwise every caller that finds the lane full would add one.
    if batch.locked_until <= now:
        postponed = batch_rules.postpone(batch, now + FULL_LANE_RETRY_SECONDS * 1000 - CLOCK_TOLERANCE_MS, now)
        enqueue_advance(ctx.queues, _save(ctx, batch, postponed), FULL_LANE_RETRY_SECONDS)
    return None


def _release_wave(run: AdvanceRun, batch: Batch, *, resumed: bool) -> Batch | None:
    """Create the jobs of the open wave, then save that they exist."""
    ctx = run.ctx
    try:
        jobs = release_rows(ctx, batch, _row_defaults(run, batch), rows_in_wave(ctx, batch), resumed=resumed)
    except LaneFull as full:
        _pause_wave(ctx, batch, full.jobs)
        return None
    except RowsExpired as exc:  # no row can be released any more, so the batch must end
        ctx.log("batch_rows_expired", batch_id=batch.id, tenant=batch.tenant, error=exc)
        return _save(ctx, batch, batch_rules.fail(batch, _two_bulk_ids(ctx), ctx.clock.now(), batch_rules.FailReason.ROWS_GONE))
    new = batch_rules.finish_wave(batch, ctx.clock.now())
    try:
        ctx.batches.replace(batch, new)
    except StaleVersion as stale:
        _cancel_released(ctx, stale.current, jobs)
        raise
    if new.next_at > ctx.clock.now():
        enqueue_advance(ctx.queues, new, -(-(new.next_at - ctx.clock.now()) // 1000))
        return None
    return new


def _pause_wave(ctx: BatchContext, batch: Batch, jobs: list[Job]) -> None:
    """Leave the wave open until the lanes of its rows have room again; the rows without jobs get them then."""
    now = ctx.clock.now()
    paused = batch_rules.postpone(batch, now + FULL_LANE_RETRY_SECONDS * 1000 - CLOCK_TOLERANCE_MS, now)
    try:
        ctx.batches.replace(batch, paused)
    except StaleVersion as stale:
        _cancel_released(ctx, stale.current, jobs)
        raise
    enqueue_advance(ctx.queues, paused, FULL_LANE_RETRY_SECONDS)


def _cancel_released(ctx: BatchContext, batch: Batch | None, jobs: list[Job]) -> None:
    """Cancel the jobs of a wave if the batch was cancelled, or failed, while they were created."""
    if batch is None or batch.is_active:
        return
    only = batch_rules.UNFINISHED if batch.status is BatchStatus.CANCELLED else batch_rules.NOT_STARTED
    for job in jobs:
        cancel_job(ctx, job, only)


def _row_defaults(run: AdvanceRun, batch: Batch) -> RowDefaults:
    if run.defaults is None:
        options = run.ctx.batch_rows.get_options(batch.tenant, batch.id)
        if options is None:
            raise RowsExpired
        run.defaults = RowDefaults.of(batch, options)
    return run.defaults


# ---- actions


def _run_action(run: AdvanceRun, batch: Batch, action: BatchAction) -> Batch | None:
    """Run a bulk action over the rows for the time of one message; remove it when it has finished."""
    ctx = run.ctx
    bulk = ctx.bulk_operations.get(batch.tenant, action.bulk_id)
    if bulk is None:
        bulk = _new_bulk(ctx, batch, action)
        ctx.bulk_operations.create(bulk)
    until = min(run.until, ctx.clock.now() + bulk_operations.TURN_MS)
    bulk = bulk_operations.run_bulk(ctx, bulk, until)
    if bulk.finished_at is None:
        if ctx.clock.now() >= until:
            enqueue_advance(ctx.queues, batch)  # others have their turns first
        return None  # or another caller runs it, or a store failed: the sweeper wakes the batch
    return _save(ctx, batch, batch_rules.remove_action(batch, action, ctx.clock.now()))


def _new_bulk(ctx: BatchContext, batch: Batch, action: BatchAction) -> BulkOperation:
    now = ctx.clock.now()
    return BulkOperation(
        id=action.bulk_id,
        tenant=batch.tenant,
        created_by=batch.user,
        action=action.action,
        created_at=now,
        updated_at=now,
        filters={"batch": batch.id},
        batch_id=batch.id,
        rows=batch.total,
        states=action.states,
        locked_until=now + batch_rules.LOCK_MS,
    )


# ---- completion


def _finish(ctx: BatchContext, batch: Batch) -> Batch | None:
    """Finish or fail the batch if a recount of its rows confirms the counters.

    The counters lag behind the rows, and the end of a batch is final.
    """
    recount_batch(ctx, batch)
    counts, now = load_counts(ctx, batch.id), ctx.clock.now()
    if batch_rules.exceeds_tolerance(batch, counts):
        return _save(ctx, batch, batch_rules.fail(batch, _two_bulk_ids(ctx), now))
    if batch_rules.is_done(batch, counts):
        return _save(ctx, batch, batch_rules.finish(batch, counts, now))
    return batch


def _recheck(ctx: BatchContext, batch: Batch) -> Batch | None:
    """Recount the rows of a batch that is idle for long: the change stream may have lost a record."""
    now = ctx.clock.now()
    if now < (batch.recheck_at or batch.created_at + batch_rules.RECHECK_MS):
        return None
    recount_batch(ctx, batch)
    return _save(ctx, batch, batch_rules.postpone_recheck(batch, now))


def _close(run: AdvanceRun, batch: Batch) -> Batch | None:
    """Announce the completion, then close the batch, or reopen it if rows were restarted."""
    ctx = run.ctx
    if not batch.notified and not run.notify:
        enqueue_advance(ctx.queues, batch)
        return None
    if not batch.notified:
        announce_completion(ctx, batch, load_counts(ctx, batch.id))
        batch = _save(ctx, batch, batch_rules.mark_notified(batch, ctx.clock.now()))
    reopened = batch_rules.reopen(batch, load_counts(ctx, batch.id), ctx.clock.now())
    if reopened is not None:
        return _save(ctx, batch, reopened)
    ctx.batches.mark_closed(batch)
    return None


def _two_bulk_ids(ctx: BatchContext) -> tuple[str, str]:
    return f"bulk_{ctx.new_id()}", f"bulk_{ctx.new_id()}"
