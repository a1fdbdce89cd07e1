"""Go on with a batch: whatever it needs next, by whoever has time for it, until there is nothing to do now.

It is asked for when a batch is submitted, by itself when its time is over, by what is counted from the change stream, and by the sweep.
Any two may be at it: every step is a swap of the record that was looked at.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

from chalicelib.domain.batches import batch as batch_rules
from chalicelib.domain.batches.batch import Batch, BatchAction, BatchStatus
from chalicelib.domain.batches.counters import BatchCounts
from chalicelib.domain.errors import StaleVersion, Unavailable
from chalicelib.domain.jobs.bulk_operation import BulkOperation
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.units import Ms
from chalicelib.services.batches.broadcast_progress import TIME_BUDGET_MS, broadcast_batch_progress
from chalicelib.services.batches.context import BatchContext, enqueue_advance, load_counts
from chalicelib.services.batches.notify_completion import notify_batch_completed
from chalicelib.services.batches.recount import recount_batch
from chalicelib.services.batches.release_rows import RowDefaults, RowsExpired, release_rows, rows_in_wave
from chalicelib.services.jobs import bulk_operations
from chalicelib.services.jobs.cancel_job import cancel_job

FULL_LANE_RETRY_SECONDS = 30  # until a full lane is looked at again
CLOCK_TOLERANCE_MS = 2_000  # whose message for that comes a little early, by another clock, is not turned away
ERROR_BACKOFF_MS = 600_000  # until one is tried again that failed for a reason that nobody foresaw: most likely it will again
MAX_WOKEN = 100  # open batches that a sweep wakes


@dataclass
class AdvanceRun:
    """One time of going on. `until`: what is begun must be done by then. `tells`: whether watchers may be told of an end from here.
    `common`: what the rows have in common, once it was read.
    """

    ctx: BatchContext
    until: Ms
    notifies: bool = True
    defaults: RowDefaults | None = field(default=None)


def advance_batch(ctx: BatchContext, tenant: str, batch_id: str, until: Ms, *, tells: bool = True) -> Batch | None:
    """The batch as it is afterwards, None if there is none. What did not fit before `until` is asked for again; so is the word of its end
    by a request, which reaches no sockets.
    """
    batch = ctx.batches.get(tenant, batch_id)
    shift = AdvanceRun(ctx, until, tells)
    try:
        while batch is not None:
            if ctx.clock.now() >= until:
                enqueue_advance(ctx.queues, batch)
                break
            new = _step(shift, batch)
            if new is None:
                break
            batch = new
    except StaleVersion as stale:  # somebody else is at it, too
        return stale.current if isinstance(stale.current, Batch) else batch
    except Unavailable as exc:
        ctx.log("batch_advance_deferred", batch_id=batch_id, tenant=tenant, error=exc)
    except Exception as exc:  # noqa: BLE001 - its messages would come again and again, and end as dead letters
        ctx.log("batch_advance_failed", batch_id=batch_id, tenant=tenant, error=exc)
        _put_off(ctx, tenant, batch_id)
    return batch


def wake_stalled_batches(ctx: BatchContext) -> int:
    """What the sweep does with batches: have somebody go on with those that are not at rest, and that nobody works on."""
    try:
        left = ctx.batches.stalled(ctx.clock.now(), MAX_WOKEN)
        for batch in left:
            enqueue_advance(ctx.queues, batch)
    except Unavailable as exc:  # the next sweep does it
        ctx.log("stalled_batches_not_enqueued", error=exc)
        return 0
    return len(left)


def _put_off(ctx: BatchContext, tenant: str, batch_id: str) -> None:
    batch, now = ctx.batches.get(tenant, batch_id), ctx.clock.now()
    if batch is not None:
        with suppress(StaleVersion):  # somebody else is at it
            ctx.batches.replace(batch, batch_rules.postpone(batch, now + ERROR_BACKOFF_MS, now))


def announce_completion(ctx: BatchContext, batch: Batch, counts: BatchCounts) -> None:
    """Whoever is to hear of the end of a batch hears of it here. Doing it again tells nobody anew.

    Raises:
        Unavailable: some may not have been told; repeat it.
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


def _step(shift: AdvanceRun, batch: Batch) -> Batch | None:
    """Do what comes next. None: there is nothing to do now."""
    ctx = shift.ctx
    if batch.finished_at is not None:
        return _complete(shift, batch)
    errand = next((one for one in batch.actions if one.not_before <= ctx.clock.now()), None)
    if errand is not None:
        return _run_action(shift, batch, errand)
    if batch.is_releasing and batch.is_active:
        mine = batch_rules.resume_wave(batch, ctx.clock.now())
        return _release_wave(shift, _save(ctx, batch, mine), again=True) if mine is not None else None
    counts = load_counts(ctx, batch.id) if batch_rules.needs_counts(batch) else BatchCounts()
    if batch_rules.exceeds_tolerance(batch, counts) or batch_rules.is_done(batch, counts):
        return _settle(ctx, batch)
    taken = batch_rules.start_wave(batch, batch_rules.running(batch, counts), ctx.clock.now())
    if taken is not None:
        return _start_wave(shift, batch, taken)
    return _recheck(ctx, batch)


def _save(ctx: BatchContext, seen: Batch, new: Batch) -> Batch:
    ctx.batches.replace(seen, new)
    return new


# ---- release


def _start_wave(shift: AdvanceRun, batch: Batch, taken: Batch) -> Batch | None:
    ctx, now = shift.ctx, shift.ctx.clock.now()
    if ctx.queues.depth(batch.lane) < ctx.max_lane_depth:
        return _release_wave(shift, _save(ctx, batch, taken), again=False)
    if batch.locked_until <= now:  # one comes again, not everybody who finds it full: else there were more of them each minute
        put_off = batch_rules.postpone(batch, now + FULL_LANE_RETRY_SECONDS * 1000 - CLOCK_TOLERANCE_MS, now)
        enqueue_advance(ctx.queues, _save(ctx, batch, put_off), FULL_LANE_RETRY_SECONDS)
    return None


def _release_wave(shift: AdvanceRun, batch: Batch, *, again: bool) -> Batch | None:
    """Make the jobs of the open hand, then write that they are made."""
    ctx = shift.ctx
    try:
        jobs = release_rows(ctx, batch, _common(shift, batch), rows_in_wave(ctx, batch), again=again)
    except RowsExpired as exc:  # nothing more can come of it, and somebody has to be told
        ctx.log("batch_rows_expired", batch_id=batch.id, tenant=batch.tenant, error=exc)
        return _save(ctx, batch, batch_rules.fail(batch, _two_ids(ctx), ctx.clock.now(), batch_rules.FailReason.ROWS_GONE))
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


def _cancel_released(ctx: BatchContext, now: Batch | None, jobs: list[Job]) -> None:
    """The batch was cancelled, or has failed, while the hand was played: so are its jobs."""
    if now is None or now.is_active:
        return
    only = batch_rules.UNFINISHED if now.status is BatchStatus.CANCELLED else batch_rules.NOT_STARTED
    for job in jobs:
        cancel_job(ctx.clock, ctx.jobs, ctx.subscriptions, job, only)


def _common(shift: AdvanceRun, batch: Batch) -> RowDefaults:
    if shift.defaults is None:
        terms = shift.ctx.batch_rows.get_options(batch.tenant, batch.id)
        if terms is None:
            raise RowsExpired
        shift.defaults = RowDefaults.of(batch, terms)
    return shift.defaults


# ---- errands


def _run_action(shift: AdvanceRun, batch: Batch, errand: BatchAction) -> Batch | None:
    """Carry out a bulk action over its rows, as far as there is time."""
    ctx = shift.ctx
    there = ctx.bulk_operations.get(batch.tenant, errand.bulk_id)
    if there is None:
        there = _bulk_of(ctx, batch, errand)
        ctx.bulk_operations.create(there)
    done = bulk_operations.run_bulk(ctx, there, shift.until)
    if done.finished_at is None:
        if ctx.clock.now() < shift.until:
            return None  # somebody else is at it, or it cannot go on now: the sweep looks after both
        return batch
    return _save(ctx, batch, batch_rules.remove_action(batch, errand, ctx.clock.now()))


def _bulk_of(ctx: BatchContext, batch: Batch, errand: BatchAction) -> BulkOperation:
    now = ctx.clock.now()
    return BulkOperation(
        id=errand.bulk_id,
        tenant=batch.tenant,
        created_by=batch.user,
        action=errand.action,
        created_at=now,
        updated_at=now,
        filters={"batch": batch.id},
        batch_id=batch.id,
        rows=batch.total,
        states=errand.states,
        locked_until=now + batch_rules.LOCK_MS,
    )


# ---- ends


def _settle(ctx: BatchContext, batch: Batch) -> Batch | None:
    """What the counters say is believed only of the rows themselves: they are late, and an end cannot be taken back."""
    recount_batch(ctx, batch)
    counts, now = load_counts(ctx, batch.id), ctx.clock.now()
    if batch_rules.exceeds_tolerance(batch, counts):
        return _save(ctx, batch, batch_rules.fail(batch, _two_ids(ctx), now))
    if batch_rules.is_done(batch, counts):
        return _save(ctx, batch, batch_rules.finish(batch, counts, now))
    return batch


def _recheck(ctx: BatchContext, batch: Batch) -> Batch | None:
    """Nothing to do now, unless it has been so for long: then the change stream may have lost something."""
    now = ctx.clock.now()
    if now < (batch.recheck_at or batch.created_at + batch_rules.RECHECK_MS):
        return None
    recount_batch(ctx, batch)
    return _save(ctx, batch, batch_rules.postpone_recheck(batch, now))


def _complete(shift: AdvanceRun, batch: Batch) -> Batch | None:
    ctx = shift.ctx
    if not batch.notified and not shift.notifies:
        enqueue_advance(ctx.queues, batch)
        return None
    if not batch.notified:
        announce_completion(ctx, batch, load_counts(ctx, batch.id))
        batch = _save(ctx, batch, batch_rules.mark_notified(batch, ctx.clock.now()))
    again = batch_rules.reopen(batch, load_counts(ctx, batch.id), ctx.clock.now())
    if again is not None:
        return _save(ctx, batch, again)
    ctx.batches.mark_closed(batch)
    return None


def _two_ids(ctx: BatchContext) -> tuple[str, str]:
    return f"bulk_{ctx.new_id()}", f"bulk_{ctx.new_id()}"
