"""A batch: many rows under one name, released a hand at a time, and where that has come to.

The record holds what decides what happens next, and nothing that grows with the rows: those are in object storage, their jobs are the
truth about themselves, and how many are where is counted from the change stream. Every change here is a pure function from the record as
it is to the record as it should be; None means "not now". A store swaps it in if the version is still the one that was looked at.

Rows are released in hands. A hand is written down before it is played, and is played again by whoever finds it open: the ids of its jobs
are computed, so nothing is made twice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from chalicelib.domain.auth.identity import Caller, Role
from chalicelib.domain.batches.counters import BatchCounts
from chalicelib.domain.jobs.bulk_operation import BulkAction
from chalicelib.domain.jobs.job import Status
from chalicelib.domain.queues.lanes import TASK_TIMEOUT
from chalicelib.domain.units import Ms

ROWS_PER_OBJECT = 250  # rows of an object
WAVE_SIZE = 125  # rows between two notes of how far it has come: half a part
LOCK_MS = 30_000  # whoever plays a hand is left alone for so long
GROUP = 100  # rows released at a time where only `delay` was said
RECHECK_MS = 15 * 60_000  # after so long the rows themselves are looked at: the change stream may have lost something
MAX_RECHECK_MS = 6 * 3_600_000
MAX_ACTIONS = 10  # that wait at once: the record holds them
TOLERANCE = "failure_tolerance"  # the reason of a batch that failed by it
ROWS_GONE = "rows_gone"  # of one whose rows are no longer kept

RETRIED = (Status.FAILED, Status.EXPIRED, Status.INCOMPLETE)
UNFINISHED = (Status.WAITING, Status.QUEUED, Status.RETRYING, Status.HELD, Status.PROCESSING)
NOT_STARTED = UNFINISHED[:-1]


class BatchStatus(StrEnum):
    QUEUED = "queued"  # only shown: nothing of it has begun
    PROCESSING = "processing"
    COMPLETED = "completed"
    COMPLETED_WITH_FAILURES = "completed_with_failures"
    FAILED = "failed"  # more rows failed than it tolerates
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchAction:
    """A bulk action over the rows of a batch, which is not at rest before it is done. `states`: the jobs that it is for."""

    bulk_id: str
    action: BulkAction
    states: tuple[Status, ...]
    not_before: Ms = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """`user`, `key_id` and `role` are those of whoever submitted it, and its jobs are theirs.

    Rows before `released` have jobs; those before `hand` may have, while somebody plays, until `worked_until` at least. `next_at`: no
    further row is released before.
    `run` grows each time that rows are started again after, or while, others ended. `began_at` is when this run began, `began_with` how
    many rows had ended by then: its speed is measured from there.
    `finished_at`: all that there is to do has been done. `told`: and whoever is to be told of it has been.
    `ordered`: rows are released in the order of the input. `tells` hear of its end: as `notify` writes them, or `webhook:<URL>`.
    """

    id: str
    tenant: str
    user: str
    key_id: str
    role: str
    total: int
    created_at: Ms
    updated_at: Ms
    name: str | None = None
    type: str = "general"
    model: str = ""
    lane: str = "low"
    batch_size: int | None = None
    delay: float = 0.0
    parallel_limit: int | None = None
    failure_tolerance: float | None = None
    ordered: bool = True
    version: int = 1
    status: BatchStatus = BatchStatus.PROCESSING
    reason: str | None = None
    released: int = 0
    wave_end: int = 0
    locked_until: Ms = 0
    next_at: Ms = 0
    run: int = 1
    run_started_at: Ms | None = None
    run_started_with: int = 0
    actions: tuple[BatchAction, ...] = ()
    recheck_at: Ms = 0
    cancelled_at: Ms | None = None
    finished_at: Ms | None = None
    notified: bool = False
    notify_targets: tuple[str, ...] = ()

    @property
    def is_active(self) -> bool:
        """Whether rows may still be released, or were and are waited for."""
        return self.status is BatchStatus.PROCESSING

    def is_visible_to(self, caller: Caller) -> bool:
        """A user sees its own, others those of their tenant; a ticket that names jobs shows no batch."""
        if caller.jobs is not None or (self.tenant != caller.tenant and not caller.all_tenants):
            return False
        return caller.role != Role.USER or self.user == caller.user

    @property
    def is_releasing(self) -> bool:
        return self.wave_end > self.released


# ---- release


def start_wave(batch: Batch, running: int, now: Ms) -> Batch | None:
    """The next rows to be released, while `running` of those before have not ended. None: not now, or there are none."""
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
    """Take up a hand whose player has not been heard of for too long."""
    if not batch.is_active or not batch.is_releasing or now < batch.locked_until:
        return None
    return _next(batch, now, locked_until=now + LOCK_MS)


def finish_wave(batch: Batch, now: Ms) -> Batch:
    """All rows of the hand have their jobs."""
    group_ends = batch.batch_size is not None and batch.wave_end % batch.batch_size == 0 and batch.wave_end < batch.total
    next_at = now + round(batch.delay * 1000) if group_ends and batch.delay else batch.next_at
    return _next(batch, now, released=batch.wave_end, next_at=next_at, locked_until=max(now, next_at))


def running(batch: Batch, counts: BatchCounts) -> int:
    """How many of the released rows have not ended. Counts are a little late, so it is never less."""
    return batch.released - counts.ended


def needs_counts(batch: Batch) -> bool:
    """Whether what comes next depends on how the released rows have fared."""
    bounded = batch.parallel_limit is not None or batch.failure_tolerance is not None
    return bounded or not batch.is_active or batch.released >= batch.total


# ---- ends


def exceeds_tolerance(batch: Batch, counts: BatchCounts) -> bool:
    """Whether more of its rows have failed than it tolerates."""
    judged = batch.is_active and not batch.actions  # not while failed rows are being started again
    return judged and batch.failure_tolerance is not None and counts.failed > batch.failure_tolerance * batch.total


def is_done(batch: Batch, counts: BatchCounts) -> bool:
    """Whether nothing of it is going on, and nothing will."""
    if batch.actions or batch.finished_at is not None:
        return False
    if batch.is_active:
        return batch.released >= batch.total and counts.ended >= batch.total
    return counts.known <= counts.ended and batch.released <= counts.ended


def finish(batch: Batch, counts: BatchCounts, now: Ms) -> Batch:
    """It is over; what was cancelled, or failed by its tolerance, stays that."""
    status = batch.status
    if batch.is_active:
        status = BatchStatus.COMPLETED if counts.completed >= batch.total else BatchStatus.COMPLETED_WITH_FAILURES
    return _next(batch, now, status=status, finished_at=now, notified=False)


def mark_notified(batch: Batch, now: Ms) -> Batch:
    """Whoever is to hear of the end has heard of it."""
    return _next(batch, now, notified=True)


def reopen(batch: Batch, counts: BatchCounts, now: Ms) -> Batch | None:
    """Rows of a finished batch were started again by hand: it goes on until they end. One that was cancelled, or failed, stays that."""
    ended = batch.status in (BatchStatus.COMPLETED, BatchStatus.COMPLETED_WITH_FAILURES)
    if batch.finished_at is None or not ended or counts.ended >= batch.total:
        return None
    return _again(batch, counts, now)


def cancel(batch: Batch, bulk_ids: tuple[str, str], now: Ms) -> Batch | None:
    """No more rows, and an end to those that have not ended. None: it is over."""
    if batch.finished_at is not None or batch.status is BatchStatus.CANCELLED:
        return None
    errands = _clearing(batch, bulk_ids, UNFINISHED, now)
    changes = {"reason": None, "cancelled_at": now, "actions": errands, "locked_until": _left_alone(batch, now)}
    return _next(batch, now, status=BatchStatus.CANCELLED, **changes)


def fail(batch: Batch, bulk_ids: tuple[str, str], now: Ms, reason: str = TOLERANCE) -> Batch:
    """Too many rows have failed: what has not started is cancelled, what runs ends by itself."""
    errands = _clearing(batch, bulk_ids, NOT_STARTED, now)
    return _next(batch, now, status=BatchStatus.FAILED, reason=reason, actions=errands, locked_until=_left_alone(batch, now))


def retry(batch: Batch, bulk_id: str, counts: BatchCounts, now: Ms, *, cancelled: bool) -> Batch | None:
    """Start its failed rows again, and go on releasing where it stood. None: it was cancelled, and is to stay so; what has to be cancelled
    of it is not yet; it has ended, and there is nothing to start again; or as many wishes wait as may.
    """
    if (batch.status is BatchStatus.CANCELLED and not cancelled) or any(errand.action is BulkAction.CANCEL for errand in batch.actions):
        return None
    left = counts.failed or (cancelled and counts.cancelled) or batch.released < batch.total
    if (batch.finished_at is not None and not left) or len(batch.actions) >= MAX_ACTIONS:
        return None
    states = (*RETRIED, Status.CANCELLED) if cancelled else RETRIED
    errand = BatchAction(bulk_id=bulk_id, action=BulkAction.RETRY, states=states)
    return replace(_again(batch, counts, now), actions=(*batch.actions, errand))


def remove_action(batch: Batch, errand: BatchAction, now: Ms) -> Batch:
    """An errand is done."""
    return _next(batch, now, actions=tuple(one for one in batch.actions if one != errand))


def postpone_recheck(batch: Batch, now: Ms) -> Batch:
    """The rows themselves were looked at: not so soon again, and ever less often."""
    return _next(batch, now, recheck_at=now + min(MAX_RECHECK_MS, max(RECHECK_MS, now - (batch.run_started_at or batch.created_at))))


def postpone(batch: Batch, until: Ms, now: Ms) -> Batch:
    """Nobody goes on with it by themselves before: a step failed, or there is no room."""
    return _next(batch, now, locked_until=until)


def needs_attention(batch: Batch, counts: BatchCounts, now: Ms) -> bool:
    """Whether what was just counted lets something happen to the batch."""
    if batch.finished_at is not None:
        return reopen(batch, counts, now) is not None
    if exceeds_tolerance(batch, counts) or is_done(batch, counts):
        return True
    return batch.parallel_limit is not None and start_wave(batch, running(batch, counts), now) is not None


def _clearing(batch: Batch, bulk_ids: tuple[str, str], states: tuple[Status, ...], now: Ms) -> tuple[BatchAction, ...]:
    """Cancel what there is; and if a hand is in play, once more when whoever plays it cannot make jobs any more."""
    first = BatchAction(bulk_id=bulk_ids[0], action=BulkAction.CANCEL, states=states)
    if not batch.is_releasing:
        return (first,)
    settled = max(now, batch.locked_until) + TASK_TIMEOUT * 1000
    return first, BatchAction(bulk_id=bulk_ids[1], action=BulkAction.CANCEL, states=states, not_before=settled)


def _again(batch: Batch, counts: BatchCounts, now: Ms) -> Batch:
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
        locked_until=_left_alone(batch, now),
    )


def _left_alone(batch: Batch, now: Ms) -> Ms:
    """A hand that is in play stays its player's; a pause between two groups is over when something else is to be done."""
    return batch.locked_until if batch.is_releasing else now


def _next(batch: Batch, now: Ms, **changes: Any) -> Batch:
    return replace(batch, version=batch.version + 1, updated_at=now, **changes)
