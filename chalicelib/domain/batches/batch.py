"""The record of a batch: many rows under one name, whose jobs are created in waves.

The record holds only what decides the next step, and nothing that grows with the number of rows:
the rows are in object storage, each job has its own record, and the counters come from the change
stream. Every change is a pure function from the current record to the next one; None means "not
now". A store writes it if the version is still the one that was read.

The range of a wave is stored before its jobs are created. If the process dies in between, another
one resumes the wave: the job ids are computed, so no job is created twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any
from zlib import crc32

from chalicelib.domain.auth.identity import Caller, Role
from chalicelib.domain.batches.counters import BatchCounts
from chalicelib.domain.jobs.bulk_operation import BulkAction
from chalicelib.domain.jobs.job import Status
from chalicelib.domain.queues.lanes import TASK_TIMEOUT
from chalicelib.domain.units import Ms

ROWS_PER_OBJECT = 250  # rows in one object in storage
WAVE_SIZE = 125  # rows whose jobs are created between two writes of the record: half an object
LOCK_MS = 30_000  # how long other workers leave a wave to the one that started it
# When the row jobs are read again, because the change stream may have lost a change.
RECHECK_MS = 15 * 60_000
MAX_RECHECK_MS = 6 * 3_600_000
MAX_ACTIONS = 10  # pending at once: they are stored in the record
# Minutes between two tasks that the sweeper sends for a batch to which nothing happens.
MAX_WAKE_INTERVAL = 16
MAX_WAKE_INTERVAL_OF_ACTIONS = 2  # a bulk operation may have finished without a change of the batch

RETRYABLE = (Status.FAILED, Status.EXPIRED, Status.INCOMPLETE)
UNFINISHED = (Status.WAITING, Status.QUEUED, Status.RETRYING, Status.HELD, Status.PROCESSING)
NOT_STARTED = UNFINISHED[:-1]


class BatchStatus(StrEnum):
    QUEUED = "queued"  # shown while no row has started; never stored
    PROCESSING = "processing"
    COMPLETED = "completed"
    COMPLETED_WITH_FAILURES = "completed_with_failures"
    FAILED = "failed"  # see `FailReason`
    CANCELLED = "cancelled"


class FailReason(StrEnum):
    """Why a batch is `failed`."""

    FAILURE_TOLERANCE = "failure_tolerance"  # more rows failed than it tolerates
    ROWS_GONE = "rows_gone"  # its rows have expired


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchAction:
    """A bulk operation over the rows of a batch. The batch is not finished while one is pending."""

    bulk_id: str
    action: BulkAction
    states: tuple[Status, ...]  # the statuses of the jobs that it applies to
    not_before: Ms = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The stored record. Immutable: the functions below return the next version."""

    id: str
    tenant: str
    user: str  # the submitter, who owns the jobs too
    key_id: str  # the API key that it was submitted with
    role: str  # the role of that key
    total: int  # number of rows
    created_at: Ms
    updated_at: Ms
    name: str | None = None
    type: str = "general"  # job type of the rows
    model: str = ""
    lane: str = "low"
    batch_size: int | None = None  # rows released as one group; None: all rows are one group
    delay: float = 0.0  # seconds between two groups
    parallel_limit: int | None = None  # rows that may be unfinished at once; None: no limit
    # Share of failed rows beyond which the batch fails; None: never.
    failure_tolerance: float | None = None
    ordered: bool = True  # rows are released in the order of the input
    version: int = 1
    status: BatchStatus = BatchStatus.PROCESSING
    reason: str | None = None  # a `FailReason`
    released: int = 0  # the rows before this number have jobs
    wave_end: int = 0  # the rows up to this number may have jobs, while a wave is being released
    locked_until: Ms = 0  # until then other workers do not advance the batch
    next_at: Ms = 0  # the next group is not released before
    run: int = 1  # grows each time that ended rows are started again
    run_started_at: Ms | None = None
    # Rows that had ended when this run started; the speed is measured from there.
    run_started_with: int = 0
    actions: tuple[BatchAction, ...] = ()  # pending bulk operations
    recheck_at: Ms = 0  # when the row jobs are read again
    cancelled_at: Ms | None = None
    finished_at: Ms | None = None  # set when every row has ended and no action is pending
    notified: bool = False  # whether the notifications of its end are in the outbox
    # Recipients of those: `email:...`, `slack:...` or `webhook:<URL>`
    notify_targets: tuple[str, ...] = ()
    # Fields that only a newer version of the code knows: they are stored again unchanged.
    unknown_fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_active(self) -> bool:
        """Whether rows may still be released or are still running."""
        return self.status is BatchStatus.PROCESSING

    def is_visible_to(self, caller: Caller) -> bool:
        """Whether `caller` may see the batch: users see their own, higher roles their tenant's.

        A ticket that is restricted to named jobs gives access to no batch.
        """
        if caller.jobs is not None or (self.tenant != caller.tenant and not caller.all_tenants):
            return False
        return caller.role != Role.USER or self.user == caller.user

    @property
    def is_releasing(self) -> bool:
        """Whether a wave was started and has not been finished."""
        return self.wave_end > self.released


# ---- release


def start_wave(batch: Batch, running: int, now: Ms) -> Batch | None:
    """Start the next wave while `running` released rows have not ended.

    Returns None if it is not time, the limit is reached, or no rows are left.
    """
    if not batch.is_active or batch.is_releasing or batch.released >= batch.total or now < batch.next_at:
        return None
    size = min(WAVE_SIZE, batch.total - batch.released, ROWS_PER_OBJECT - batch.released % ROWS_PER_OBJECT)
    if batch.batch_size is not None:
        size = min(size, batch.batch_size - batch.released % batch.batch_size)
    if batch.parallel_limit is not None:
        size = min(size, batch.parallel_limit - running)
    if size <= 0:
        return None
    return _next(batch, now, wave_end=batch.released + size, locked_until=now + LOCK_MS, run_started_at=batch.run_started_at or now)


def resume_wave(batch: Batch, now: Ms) -> Batch | None:
    """Take over a wave whose worker did not finish it before its lock expired.

    Returns None if there is no such wave.
    """
    if not batch.is_active or not batch.is_releasing or now < batch.locked_until:
        return None
    return _next(batch, now, locked_until=now + LOCK_MS)


def finish_wave(batch: Batch, now: Ms) -> Batch:
    """Record that all rows of the wave have jobs.

    After the last wave of a group, the next one waits for `delay`.
    """
    group_ends = batch.batch_size is not None and batch.wave_end % batch.batch_size == 0 and batch.wave_end < batch.total
    next_at = now + round(batch.delay * 1000) if group_ends and batch.delay else batch.next_at
    return _next(batch, now, released=batch.wave_end, next_at=next_at, locked_until=max(now, next_at))


def running(batch: Batch, counts: BatchCounts) -> int:
    """Return how many released rows have not ended.

    The counts lag behind, so the true number may be lower, never higher.
    """
    return batch.released - counts.ended


def needs_counts(batch: Batch) -> bool:
    """Whether the next step depends on the counts of the released rows."""
    bounded = batch.parallel_limit is not None or batch.failure_tolerance is not None
    return bounded or not batch.is_active or batch.released >= batch.total


# ---- ends


def exceeds_tolerance(batch: Batch, counts: BatchCounts) -> bool:
    """Whether more rows have failed than the batch tolerates."""
    # A pending retry will start failed rows again.
    is_stable = batch.is_active and not batch.actions
    return is_stable and batch.failure_tolerance is not None and counts.failed > batch.failure_tolerance * batch.total


def is_done(batch: Batch, counts: BatchCounts) -> bool:
    """Whether every row has ended and nothing is pending."""
    if batch.actions or batch.finished_at is not None:
        return False
    if batch.is_active:
        return batch.released >= batch.total and counts.ended >= batch.total
    return counts.known <= counts.ended and batch.released <= counts.ended


def finish(batch: Batch, counts: BatchCounts, now: Ms) -> Batch:
    """Record the end of the batch. A cancelled or failed batch keeps that status."""
    status = batch.status
    if batch.is_active:
        status = BatchStatus.COMPLETED if counts.completed >= batch.total else BatchStatus.COMPLETED_WITH_FAILURES
    return _next(batch, now, status=status, finished_at=now, notified=False)


def mark_notified(batch: Batch, now: Ms) -> Batch:
    """Record that the notifications of its end were enqueued."""
    return _next(batch, now, notified=True)


def reopen(batch: Batch, counts: BatchCounts, now: Ms) -> Batch | None:
    """Continue a finished batch because rows of it were retried individually.

    Returns None if no row is running, or if the batch was cancelled or failed.
    """
    ended = batch.status in (BatchStatus.COMPLETED, BatchStatus.COMPLETED_WITH_FAILURES)
    if batch.finished_at is None or not ended or counts.ended >= batch.total:
        return None
    return _start_run(batch, counts, now)


def cancel(batch: Batch, bulk_ids: tuple[str, str], now: Ms) -> Batch | None:
    """Stop releasing rows and cancel the unfinished ones.

    Returns None if the batch has finished or is being cancelled.
    """
    if batch.finished_at is not None or batch.status is BatchStatus.CANCELLED:
        return None
    actions = _cancel_actions(batch, bulk_ids, UNFINISHED, now)
    changes = {"reason": None, "cancelled_at": now, "actions": actions, "locked_until": _lock_end(batch, now)}
    return _next(batch, now, status=BatchStatus.CANCELLED, **changes)


def fail(batch: Batch, bulk_ids: tuple[str, str], now: Ms, reason: FailReason = FailReason.FAILURE_TOLERANCE) -> Batch:
    """Fail the batch: rows that have not started are cancelled, running ones may finish."""
    actions = _cancel_actions(batch, bulk_ids, NOT_STARTED, now)
    return _next(batch, now, status=BatchStatus.FAILED, reason=reason, actions=actions, locked_until=_lock_end(batch, now))


def retry(batch: Batch, bulk_id: str, counts: BatchCounts, now: Ms, *, cancelled: bool) -> Batch | None:
    """Start the failed rows again and continue releasing where the batch stopped.

    `cancelled`: the cancelled rows as well.

    Returns None if the batch was cancelled and `cancelled` is false, if a cancellation is still
    pending, if it has finished and no row can be retried, or if the maximum number of actions is
    pending.
    """
    if (batch.status is BatchStatus.CANCELLED and not cancelled) or any(one.action is BulkAction.CANCEL for one in batch.actions):
        return None
    has_rows_to_start = counts.failed or (cancelled and counts.cancelled) or batch.released < batch.total
    if (batch.finished_at is not None and not has_rows_to_start) or len(batch.actions) >= MAX_ACTIONS:
        return None
    states = (*RETRYABLE, Status.CANCELLED) if cancelled else RETRYABLE
    action = BatchAction(bulk_id=bulk_id, action=BulkAction.RETRY, states=states)
    return replace(_start_run(batch, counts, now), actions=(*batch.actions, action))


def remove_action(batch: Batch, action: BatchAction, now: Ms) -> Batch:
    """Remove an action that is done."""
    return _next(batch, now, actions=tuple(one for one in batch.actions if one != action))


def postpone_recheck(batch: Batch, now: Ms) -> Batch:
    """Schedule the next check of the row jobs. The intervals grow with the age of the run."""
    return _next(batch, now, recheck_at=now + min(MAX_RECHECK_MS, max(RECHECK_MS, now - (batch.run_started_at or batch.created_at))))


def postpone(batch: Batch, until: Ms, now: Ms) -> Batch:
    """Lock the batch until `until`: a step failed, or the lane is full."""
    return _next(batch, now, locked_until=until)


def needs_attention(batch: Batch, counts: BatchCounts, now: Ms) -> bool:
    """Whether the new counts allow a next step of the batch."""
    if batch.finished_at is not None:
        return reopen(batch, counts, now) is not None
    if exceeds_tolerance(batch, counts) or is_done(batch, counts):
        return True
    return batch.parallel_limit is not None and start_wave(batch, running(batch, counts), now) is not None


def is_to_be_woken(batch: Batch, now: Ms) -> bool:
    """Whether the sweeper, which asks once a minute, sends a task for an open batch now.

    Each minute at first, then at intervals that grow with the time since it could last go on: its
    task may not be lost but wait in a deep queue, which would otherwise fill with copies. The
    batches are spread over the minutes of an interval.
    """
    if now < batch.locked_until:
        return False
    due_actions = [action.not_before for action in batch.actions if action.not_before <= now]
    moments = (batch.locked_until, batch.next_at, batch.recheck_at or batch.created_at + RECHECK_MS, *due_actions)
    idle_minutes = (now - max(batch.updated_at, *(moment for moment in moments if moment <= now))) // 60_000
    interval = min(MAX_WAKE_INTERVAL_OF_ACTIONS if due_actions else MAX_WAKE_INTERVAL, 1 << max(0, idle_minutes.bit_length() - 1))
    return (now // 60_000 + crc32(batch.id.encode())) % interval == 0


def _cancel_actions(batch: Batch, bulk_ids: tuple[str, str], states: tuple[Status, ...], now: Ms) -> tuple[BatchAction, ...]:
    """Return the actions that cancel the row jobs.

    While a wave is being released its worker may still create jobs, so a second action runs when
    that worker has timed out.
    """
    first = BatchAction(bulk_id=bulk_ids[0], action=BulkAction.CANCEL, states=states)
    if not batch.is_releasing:
        return (first,)
    wave_is_over = max(now, batch.locked_until) + TASK_TIMEOUT * 1000
    return first, BatchAction(bulk_id=bulk_ids[1], action=BulkAction.CANCEL, states=states, not_before=wave_is_over)


def _start_run(batch: Batch, counts: BatchCounts, now: Ms) -> Batch:
    return _next(
        batch,
        now,
        status=BatchStatus.PROCESSING,
        reason=None,
        run=batch.run + 1,
        run_started_at=now,
        run_started_with=counts.completed + counts.cancelled,
        cancelled_at=None,
        finished_at=None,
        notified=False,
        recheck_at=now + RECHECK_MS,
        locked_until=_lock_end(batch, now),
    )


def _lock_end(batch: Batch, now: Ms) -> Ms:
    """Keep the lock of a wave in progress, but end a pause between groups: there is other work."""
    return batch.locked_until if batch.is_releasing else now


def _next(batch: Batch, now: Ms, **changes: Any) -> Batch:
    return replace(batch, version=batch.version + 1, updated_at=now, **changes)
