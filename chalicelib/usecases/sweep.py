"""Look at everything that is due, and bring right what nobody is working on any more: "nothing is lost, whatever dies".

Runs every minute, and decides afresh on what it finds: nothing here trusts what an index or an earlier look said [15, 16]. Two sweeps at
once do no harm, because every change is a swap of the head that was looked at. A run ends in good time; what it leaves is the next one's,
the longest overdue first. What fails is put off, so that it stands in nobody's way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from itertools import zip_longest
from typing import TypeVar

from chalicelib.domain import transitions
from chalicelib.domain.backlog import look_until
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.job import Job, Ms, Status
from chalicelib.domain.lanes import LANES
from chalicelib.domain.wakeup import WakeUp
from chalicelib.ports import Lease
from chalicelib.usecases.advance import advance
from chalicelib.usecases.broom import Broom, change
from chalicelib.usecases.find_vanished import find_vanished
from chalicelib.usecases.let_go import look_at_parents
from chalicelib.usecases.read_heads import read_heads
from chalicelib.usecases.take_over import take_over

MARGIN_MS = 5_000  # a lease is dead only so long after its end: clocks differ
AHEAD_MS = 65_000  # what comes due before the next sweep is sent now, with a delay, so that it begins in time
ROWS_EACH = 100  # of each part of the index, for one run
HEADS_TOGETHER = 100
BUDGET_MS = 40_000  # of the function's 55 s; a call that hangs takes up to ten
BURY_MS = 20_000  # of them for the leases of dead workers, so that a thousand dead ones leave time for what else is due
SOCKETS_MS = 45_000
AGAIN_MS = 30_000  # a job whose look met a store that did not answer is looked at in the next run, behind the others
WRONG_AGAIN_MS = 600_000  # one whose look fails for another reason: most likely it will again

T = TypeVar("T")


def sweep(broom: Broom) -> Counter[str]:
    """One run; the answer counts what was done. What fails is looked at again later, and never stops the others."""
    began, none = broom.clock.now(), Counter[str]()
    leases: list[Lease] = _guarded(broom, broom.leases.all, [], what="leases")
    done = _bury_dead(broom, leases, began + BURY_MS)
    done += _look_at_due(broom, leases, began + BUDGET_MS)
    vanished = partial(find_vanished, broom.clock, broom.connections, broom.sockets, broom.subscriptions, began + SOCKETS_MS)
    done += _guarded(broom, vanished, none, what="connections")
    if done:
        broom.log("swept", **{name.replace(" ", "_").replace(":", ""): count for name, count in done.items()})
    return done


def _guarded(broom: Broom, work: Callable[[], T], otherwise: T, **about: str) -> T:
    try:
        return work()
    except Exception as exc:  # noqa: BLE001 - what one record does to the sweep must not happen to all others
        broom.log("something could not be swept", error=exc, **about)
        return otherwise


def _bury_dead(broom: Broom, leases: Sequence[Lease], deadline: Ms) -> Counter[str]:
    """The leases of dead workers: those that nobody has tried to bury first, the oldest first."""
    done: Counter[str] = Counter()
    now = broom.clock.now()
    dead = [lease for lease in leases if not _lives(lease, now)]
    for lease in sorted(dead, key=lambda lease: (lease.fenced, lease.expires_at)):
        late = broom.clock.now() >= deadline
        done["left" if late else _guarded(broom, partial(_bury, broom, lease), "failed", lease=lease.id)] += 1
    return done


def _lives(lease: Lease, now: Ms) -> bool:
    return not lease.fenced and lease.expires_at >= now - MARGIN_MS


def _bury(broom: Broom, lease: Lease) -> str:
    """Fence a dead worker's lease first, so that it can finish nothing more; then take its jobs back; then forget the lease [19].

    A lease of which a job could not be taken back stays, for the next run.
    """
    if not broom.leases.fence(lease):
        return "lease alive"
    taken = [
        _guarded(broom, partial(take_over, broom, job, lease.id), "failed", job_id=job.id, tenant=job.tenant)
        for job in _heads(broom, lease.jobs, consistent=True)
    ]
    if "failed" in taken:
        return "lease kept"
    broom.leases.delete_fenced(lease)
    return "lease buried"


def _look_at_due(broom: Broom, leases: Sequence[Lease], deadline: Ms) -> Counter[str]:
    """What is due, of all lanes in turn."""
    done: Counter[str] = Counter()
    ids = _due(broom, leases, deadline)
    for start in range(0, len(ids), HEADS_TOGETHER):
        if broom.clock.now() >= deadline:
            done["left"] += len(ids) - start
            break
        heads: list[Job] = _guarded(broom, partial(_heads, broom, ids[start : start + HEADS_TOGETHER]), [], what="heads")
        for job in heads:
            done["left" if broom.clock.now() >= deadline else _looked(broom, job)] += 1
    return done


def _due(broom: Broom, leases: Sequence[Lease], deadline: Ms) -> list[str]:
    """Ids of what is due: one of each lane and one of what waits for a time in turn, so that none has to wait for all of another."""
    groups: list[list[str]] = [
        _guarded(broom, partial[list[str]](_due_of, broom, lane, leases), [], what=lane or "times")
        for lane in (None, *LANES)
        if broom.clock.now() < deadline
    ]
    return [job_id for turn in zip_longest(*groups) for job_id in turn if job_id is not None]


def _due_of(broom: Broom, lane: str | None, leases: Sequence[Lease]) -> list[str]:
    now = broom.clock.now()
    until = now + AHEAD_MS
    watermarks = [lease.watermark for lease in leases if lease.lane == lane and lease.watermark and _lives(lease, now)]
    if lane is not None and watermarks:
        until = look_until(until, watermarks, _guarded(broom, partial(broom.queues.depth, lane), 0, what=lane))
    return broom.jobs.due(lane, until, ROWS_EACH)


def _heads(broom: Broom, ids: Sequence[str], *, consistent: bool = False) -> list[Job]:
    return read_heads(broom.jobs, broom.log, ids, broom.clock.now() + WRONG_AGAIN_MS, consistent=consistent)


def _looked(broom: Broom, job: Job) -> str:
    """Look, and put the job off if that fails: it goes to the end of the line, and comes up again."""
    try:
        return _look(broom, job)
    except Exception as exc:  # noqa: BLE001 - as above
        broom.log("something could not be swept", error=exc, job_id=job.id, tenant=job.tenant)
        now = broom.clock.now()
        until = now + (AGAIN_MS if isinstance(exc, Unavailable) else WRONG_AGAIN_MS)
        put_off = partial(advance, broom.jobs, job, lambda seen: transitions.put_off(seen, until, now))
        _guarded(broom, put_off, None, job_id=job.id, tenant=job.tenant)
        return "failed"


def _look(broom: Broom, job: Job) -> str:
    """Decide afresh what a job that is due needs. The answer names what was done."""
    now = broom.clock.now()
    if job.status.is_terminal or job.due_at is None:
        return "nothing"
    if job.status is Status.PROCESSING:
        return _look_at_worker(broom, job, now)
    if now >= job.expires_at and job.started_at is None:
        return change(broom, job, lambda seen: _if_same(seen, job, transitions.expire(seen, now)), "expired")
    if transitions.give_up(job, now) is not None:
        return change(broom, job, lambda seen: transitions.give_up(seen, now), "given up")
    if job.due_at > now and not (job.resume_at and transitions.is_claimable(job)):
        return "not yet"
    if transitions.waits_for_parents(job):
        return _look_at_child(broom, job, now)
    if transitions.is_claimable(job):
        return _resend(broom, job, now)
    return change(broom, job, lambda seen: transitions.look_later(seen, now), "looked at")


def _look_at_worker(broom: Broom, job: Job, now: Ms) -> str:
    if (job.due_at or 0) > now:
        return "not yet"
    lease_id = transitions.lease_of(job)
    lease = broom.leases.get(lease_id)
    if lease is not None and lease.expires_at + MARGIN_MS >= now:
        return change(broom, job, lambda seen: transitions.look_later(seen, now), "alive")
    if lease is not None and not broom.leases.fence(lease):
        return "alive"
    return take_over(broom, job, lease_id)


def _look_at_child(broom: Broom, job: Job, now: Ms) -> str:
    """Whoever was to tell it of its parents' ends may have died, or they were too many for one go."""
    looked = look_at_parents(broom, job)
    if not transitions.waits_for_parents(looked):
        return "let go"
    return change(broom, looked, lambda seen: transitions.look_later(seen, now), "looked at")


def _resend(broom: Broom, job: Job, now: Ms) -> str:
    """Send the wake-up again, with the generation it had [17]: sent too often it is dropped, sent too seldom the job would wait."""
    delay = transitions.wake_delay(job, now)
    if delay is None:
        return "not yet"
    broom.queues.send(job.lane, WakeUp(job.id, job.generation), job.tenant, delay)
    later = now + delay * 1000
    return change(broom, job, lambda seen: transitions.look_later(seen, later) if seen.generation == job.generation else None, "sent again")


def _if_same(seen: Job, job: Job, new: Job) -> Job | None:
    return new if seen.version == job.version else None
