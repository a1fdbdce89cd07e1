"""Go on with a batch: whatever it needs next, by whoever has time for it, until there is nothing to do now.

It is asked for when a batch is submitted, by itself when its time is over, by what is counted from the change stream, and by the sweep.
Any two may be at it: every step is a swap of the record that was looked at.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

from chalicelib.domain import batch as domain
from chalicelib.domain.batch import Batch, BatchStatus, Errand
from chalicelib.domain.batch_counts import Counts
from chalicelib.domain.bulk import Bulk
from chalicelib.domain.errors import StaleVersion, Unavailable
from chalicelib.domain.job import Job, Ms
from chalicelib.usecases import bulk as bulk_actions
from chalicelib.usecases.cancel_job import cancel_job
from chalicelib.usecases.clerk import Clerk, send_on
from chalicelib.usecases.recount import recount
from chalicelib.usecases.release_rows import Common, RowsGone, release, rows_in_hand
from chalicelib.usecases.tell_of_batch import PATIENCE_MS, tell_of_batch

FULL_LANE_SECONDS = 30  # until a full lane is looked at again
EARLY_MS = 2_000  # whose message for that comes a little early, by another clock, is not turned away
WRONG_AGAIN_MS = 600_000  # until one is tried again that failed for a reason that nobody foresaw: most likely it will again
LEFT_AT_ONCE = 100  # open batches that a sweep wakes


@dataclass
class Shift:
    """One time of going on. `until`: what is begun must be done by then. `tells`: whether watchers may be told of an end from here.
    `common`: what the rows have in common, once it was read.
    """

    clerk: Clerk
    until: Ms
    notifies: bool = True
    defaults: Common | None = field(default=None)


def tend(clerk: Clerk, tenant: str, batch_id: str, until: Ms, *, tells: bool = True) -> Batch | None:
    """The batch as it is afterwards, None if there is none. What did not fit before `until` is asked for again; so is the word of its end
    by a request, which reaches no sockets.
    """
    batch = clerk.batches.get(tenant, batch_id)
    shift = Shift(clerk, until, tells)
    try:
        while batch is not None:
            if clerk.clock.now() >= until:
                send_on(clerk.queues, batch)
                break
            new = _step(shift, batch)
            if new is None:
                break
            batch = new
    except StaleVersion as stale:  # somebody else is at it, too
        return stale.current if isinstance(stale.current, Batch) else batch
    except Unavailable as exc:
        clerk.log("a batch goes on later", batch_id=batch_id, tenant=tenant, error=exc)
    except Exception as exc:  # noqa: BLE001 - its messages would come again and again, and end as dead letters
        clerk.log("a batch could not go on", batch_id=batch_id, tenant=tenant, error=exc)
        _put_off(clerk, tenant, batch_id)
    return batch


def wake_left(clerk: Clerk) -> int:
    """What the sweep does with batches: have somebody go on with those that are not at rest, and that nobody works on."""
    try:
        left = clerk.batches.stalled(clerk.clock.now(), LEFT_AT_ONCE)
        for batch in left:
            send_on(clerk.queues, batch)
    except Unavailable as exc:  # the next sweep does it
        clerk.log("open batches were not woken", error=exc)
        return 0
    return len(left)


def _put_off(clerk: Clerk, tenant: str, batch_id: str) -> None:
    batch, now = clerk.batches.get(tenant, batch_id), clerk.clock.now()
    if batch is not None:
        with suppress(StaleVersion):  # somebody else is at it
            clerk.batches.replace(batch, domain.put_off(batch, now + WRONG_AGAIN_MS, now))


def batch_ended(clerk: Clerk, batch: Batch, counts: Counts) -> None:
    """Whoever is to hear of the end of a batch hears of it here. Doing it again tells nobody anew.

    Raises:
        Unavailable: some may not have been told; repeat it.
    """
    clerk.log(
        "a batch has ended",
        batch_id=batch.id,
        tenant=batch.tenant,
        run=batch.run,
        status=batch.status.value,
        completed=counts.completed,
        failed=counts.failed,
        cancelled=counts.cancelled,
    )
    if batch.notify_targets:
        clerk.notify_completed(batch, counts)
    tell_of_batch(clerk, batch, counts, clerk.clock.now() + PATIENCE_MS)


def _step(shift: Shift, batch: Batch) -> Batch | None:
    """Do what comes next. None: there is nothing to do now."""
    clerk = shift.clerk
    if batch.finished_at is not None:
        return _at_the_end(shift, batch)
    errand = next((one for one in batch.actions if one.not_before <= clerk.clock.now()), None)
    if errand is not None:
        return _run_errand(shift, batch, errand)
    if batch.is_releasing and batch.is_active:
        mine = domain.take_over(batch, clerk.clock.now())
        return _play(shift, _swapped(clerk, batch, mine), again=True) if mine is not None else None
    counts = clerk.counts(batch.id) if domain.counts_matter(batch) else Counts()
    if domain.exceeds(batch, counts) or domain.is_done(batch, counts):
        return _judge(clerk, batch)
    taken = domain.take_hand(batch, domain.running(batch, counts), clerk.clock.now())
    if taken is not None:
        return _feed(shift, batch, taken)
    return _look(clerk, batch)


def _swapped(clerk: Clerk, seen: Batch, new: Batch) -> Batch:
    clerk.batches.replace(seen, new)
    return new


# ---- release


def _feed(shift: Shift, batch: Batch, taken: Batch) -> Batch | None:
    clerk, now = shift.clerk, shift.clerk.clock.now()
    if clerk.queues.depth(batch.lane) < clerk.queue_limit:
        return _play(shift, _swapped(clerk, batch, taken), again=False)
    if batch.locked_until <= now:  # one comes again, not everybody who finds it full: else there were more of them each minute
        put_off = domain.put_off(batch, now + FULL_LANE_SECONDS * 1000 - EARLY_MS, now)
        send_on(clerk.queues, _swapped(clerk, batch, put_off), FULL_LANE_SECONDS)
    return None


def _play(shift: Shift, batch: Batch, *, again: bool) -> Batch | None:
    """Make the jobs of the open hand, then write that they are made."""
    clerk = shift.clerk
    try:
        jobs = release(clerk, batch, _common(shift, batch), rows_in_hand(clerk, batch), again=again)
    except RowsGone as exc:  # nothing more can come of it, and somebody has to be told
        clerk.log("the rows of a batch are gone", batch_id=batch.id, tenant=batch.tenant, error=exc)
        return _swapped(clerk, batch, domain.fail(batch, _two_ids(clerk), clerk.clock.now(), domain.ROWS_GONE))
    new = domain.played(batch, clerk.clock.now())
    try:
        clerk.batches.replace(batch, new)
    except StaleVersion as stale:
        _take_back(clerk, stale.current, jobs)
        raise
    if new.next_at > clerk.clock.now():
        send_on(clerk.queues, new, -(-(new.next_at - clerk.clock.now()) // 1000))
        return None
    return new


def _take_back(clerk: Clerk, now: Batch | None, jobs: list[Job]) -> None:
    """The batch was cancelled, or has failed, while the hand was played: so are its jobs."""
    if now is None or now.is_active:
        return
    only = domain.UNFINISHED if now.status is BatchStatus.CANCELLED else domain.NOT_STARTED
    for job in jobs:
        cancel_job(clerk.clock, clerk.jobs, clerk.subscriptions, job, only)


def _common(shift: Shift, batch: Batch) -> Common:
    if shift.defaults is None:
        terms = shift.clerk.batch_rows.get_options(batch.tenant, batch.id)
        if terms is None:
            raise RowsGone
        shift.defaults = Common.of(batch, terms)
    return shift.defaults


# ---- errands


def _run_errand(shift: Shift, batch: Batch, errand: Errand) -> Batch | None:
    """Carry out a bulk action over its rows, as far as there is time."""
    clerk, desk = shift.clerk, shift.clerk.bulk
    there = desk.bulk_operations.get(batch.tenant, errand.bulk_id)
    if there is None:
        there = _bulk_of(clerk, batch, errand)
        desk.bulk_operations.create(there)
    done = bulk_actions.work(desk, there, shift.until)
    if done.finished_at is None:
        if clerk.clock.now() < shift.until:
            return None  # somebody else is at it, or it cannot go on now: the sweep looks after both
        return batch
    return _swapped(clerk, batch, domain.without(batch, errand, clerk.clock.now()))


def _bulk_of(clerk: Clerk, batch: Batch, errand: Errand) -> Bulk:
    now = clerk.clock.now()
    return Bulk(
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
        locked_until=now + domain.WORKED_MS,
    )


# ---- ends


def _judge(clerk: Clerk, batch: Batch) -> Batch | None:
    """What the counters say is believed only of the rows themselves: they are late, and an end cannot be taken back."""
    recount(clerk, batch)
    counts, now = clerk.counts(batch.id), clerk.clock.now()
    if domain.exceeds(batch, counts):
        return _swapped(clerk, batch, domain.fail(batch, _two_ids(clerk), now))
    if domain.is_done(batch, counts):
        return _swapped(clerk, batch, domain.finish(batch, counts, now))
    return batch


def _look(clerk: Clerk, batch: Batch) -> Batch | None:
    """Nothing to do now, unless it has been so for long: then the change stream may have lost something."""
    now = clerk.clock.now()
    if now < (batch.recheck_at or batch.created_at + domain.LOOK_AGAIN_MS):
        return None
    recount(clerk, batch)
    return _swapped(clerk, batch, domain.look_later(batch, now))


def _at_the_end(shift: Shift, batch: Batch) -> Batch | None:
    clerk = shift.clerk
    if not batch.notified and not shift.notifies:
        send_on(clerk.queues, batch)
        return None
    if not batch.notified:
        batch_ended(clerk, batch, clerk.counts(batch.id))
        batch = _swapped(clerk, batch, domain.tell(batch, clerk.clock.now()))
    again = domain.reopen(batch, clerk.counts(batch.id), clerk.clock.now())
    if again is not None:
        return _swapped(clerk, batch, again)
    clerk.batches.mark_closed(batch)
    return None


def _two_ids(clerk: Clerk) -> tuple[str, str]:
    return f"bulk_{clerk.bulk.new_id()}", f"bulk_{clerk.bulk.new_id()}"
