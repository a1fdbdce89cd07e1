"""Do one thing to many jobs: retry, cancel, delete, set_priority. Whoever asks does as much as fits; the sweep goes on with the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from chalicelib.domain import bulk as domain
from chalicelib.domain.bulk import Action, Bulk, Hand, Held, Played
from chalicelib.domain.edits import Edit
from chalicelib.domain.errors import (
    BulkNotFound,
    Forbidden,
    HeadraceError,
    JobNotFound,
    StaleVersion,
    Unavailable,
)
from chalicelib.domain.identity import Caller, Role
from chalicelib.domain.ids import row_id
from chalicelib.domain.job import Job, Ms, Status
from chalicelib.ports import Bodies, Bulks, Clock, Jobs, Pages, Queues, Watchers
from chalicelib.usecases.cancel_job import cancel_job
from chalicelib.usecases.delete_job import delete_job
from chalicelib.usecases.edit_job import Editor, edit_job
from chalicelib.usecases.engine import Log
from chalicelib.usecases.list_jobs import Filters, RowsOf, list_jobs
from chalicelib.usecases.once import Once
from chalicelib.usecases.retry_job import retry_job

HAND = 25  # jobs between two notes of how far it has come
COUNTED_AT_ONCE = 100
ROWS_AT_ONCE = 100  # of a batch, looked at for one hand
AT_ONCE_MS, AT_ONCE = 10_000, 200  # what a request does itself
SWEEP_MS, OPEN_AT_ONCE = 20_000, 50
MOST_COUNTED = 10_000  # by a dry run


@dataclass(frozen=True, kw_only=True)
class Desk:
    """What bulk actions need from outside."""

    clock: Clock
    log: Log
    jobs: Jobs
    job_specs: Bodies
    job_data: Pages
    queues: Queues
    subscriptions: Watchers
    bulk_operations: Bulks
    new_id: Callable[[], str]
    row_count: RowsOf | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is to be done to which jobs: those that `ids` names, or all that `filters` finds. `lane`: for set_priority."""

    action: Action
    ids: tuple[str, ...] = ()
    filters: Mapping[str, Any] | None = None
    lane: str | None = None


@dataclass(frozen=True, slots=True)
class Begun:
    """A bulk action as far as it came. `replayed`: the request had been sent before."""

    bulk: Bulk
    replayed: bool = False


def begin(desk: Desk, caller: Caller, wish: Wish, once: Once | None = None) -> Begun:
    """Write the wish down, then work on it for as long as a request may. Sent again with the same key it is the same bulk action.

    Raises:
        Forbidden: the jobs are another tenant's.
        IdempotencyConflict: the key stands for another request.
        Unavailable: it was not written down.
    """
    made = _new(desk, caller, wish)
    if once is not None:
        remembered = once.claim(desk.jobs, desk.clock.now(), made.id)
        if remembered != made.id:
            there = desk.bulk_operations.get(made.tenant, remembered)
            if there is not None:
                return Begun(there, replayed=True)
            made = replace(made, id=remembered)  # whoever sent it first died before it was written down
    desk.bulk_operations.create(made)
    return Begun(work(desk, made, desk.clock.now() + AT_ONCE_MS, AT_ONCE))


def find(desk: Desk, caller: Caller, bulk_id: str, tenant: str | None = None) -> Bulk:
    """A bulk action of the caller's tenant.

    Raises:
        BulkNotFound: there is none.
    """
    found = desk.bulk_operations.get(tenant if tenant and caller.all_tenants else caller.tenant, bulk_id)
    if found is None:
        raise BulkNotFound
    return found


def count(desk: Desk, caller: Caller, wish: Wish) -> tuple[int, bool]:
    """How many jobs a wish would take up, to ten thousand or as many as can be counted in time; and whether there may be more.

    Raises:
        Forbidden: they are another tenant's.
    """
    counted, until = _new(desk, caller, wish), desk.clock.now() + AT_ONCE_MS
    while counted.matched < MOST_COUNTED and desk.clock.now() < until:
        counted = domain.go_on(counted, [], _take(desk, counted, COUNTED_AT_ONCE), desk.clock.now())
        if counted.page.last:
            return counted.matched, False
    return counted.matched, True


def go_on_with_unfinished(desk: Desk, deadline: Ms | None = None) -> int:
    """What the sweep does with bulk actions: the oldest first, for a bounded time, and not beyond `deadline`. One that fails does not
    stop the others.
    """
    now = desk.clock.now()
    until = now + SWEEP_MS if deadline is None else min(now + SWEEP_MS, deadline)
    unfinished = desk.bulk_operations.unfinished(now, OPEN_AT_ONCE)
    for bulk in unfinished:
        try:
            if desk.clock.now() < until:
                work(desk, bulk, until)
        except Exception as exc:  # noqa: BLE001 - what one does to the sweep must not happen to all others
            desk.log("a bulk action could not go on", bulk_id=bulk.id, tenant=bulk.tenant, error=exc)
    return len(unfinished)


def work(desk: Desk, bulk: Bulk, until: Ms, most: int | None = None) -> Bulk:
    """Play hand after hand until it is finished, or `until` is over or `most` jobs were dealt with. It is left as it was last written."""
    dealt_with = 0
    try:
        while bulk.finished_at is None and desk.clock.now() < until and (most is None or dealt_with < most):
            played = _play(desk, bulk)
            new = domain.go_on(bulk, played, _take(desk, bulk), desk.clock.now())
            desk.bulk_operations.replace(bulk, new)
            bulk, dealt_with = new, dealt_with + len(played)
    except StaleVersion as stale:  # somebody else is at it, too
        return stale.current if isinstance(stale.current, Bulk) else bulk
    except Unavailable as exc:
        desk.log("a bulk action goes on later", bulk_id=bulk.id, tenant=bulk.tenant, error=exc)
    if bulk.finished_at is not None:
        counts = {"matched": bulk.matched, "done": bulk.done, "skipped": bulk.skipped, "failed": bulk.failed}
        desk.log("a bulk action has finished", bulk_id=bulk.id, tenant=bulk.tenant, action=bulk.action.value, **counts)
    return bulk


def _new(desk: Desk, caller: Caller, wish: Wish) -> Bulk:
    filters, now = dict(wish.filters or {}), desk.clock.now()
    tenant = filters.pop("tenant", None) or caller.tenant
    if tenant != caller.tenant and not caller.all_tenants:
        raise Forbidden(f"This key is for the jobs of {caller.tenant} only.")
    return Bulk(
        id=f"bulk_{desk.new_id()}",
        tenant=tenant,
        created_by=caller.user,
        action=wish.action,
        created_at=now,
        updated_at=now,
        lane=wish.lane,
        ids=tuple(dict.fromkeys(wish.ids)),
        filters=filters,
        all_tenants=caller.all_tenants,
        locked_until=now + domain.WORKED_MS,
    )


# ---- taking up


def _take(desk: Desk, bulk: Bulk, size: int = HAND) -> Hand:
    """The next jobs. Lists are walked from their newest end on: a job that fails again meanwhile is listed behind us, not met twice."""
    if bulk.page.last:
        return Hand(last=True)
    if bulk.batch_id is not None:
        return _rows(desk, bulk, bulk.batch_id)
    return _named(desk, bulk, size) if bulk.ids else _found(desk, bulk, size)


def _rows(desk: Desk, bulk: Bulk, batch_id: str) -> Hand:
    """Of the next rows of a batch those that have jobs, in a state for it."""
    end = min(bulk.page.position + ROWS_AT_ONCE, bulk.rows)
    ids = [row_id(batch_id, row) for row in range(bulk.page.position, end)]
    there = [job for job in desk.jobs.get_many(ids, consistent=True) if job.status in bulk.states and not job.is_deleted]
    return Hand(jobs=_held([job for job in there if job.tenant == bulk.tenant]), position=end, last=end >= bulk.rows)


def _named(desk: Desk, bulk: Bulk, size: int) -> Hand:
    end = bulk.page.position + size
    ids = bulk.ids[bulk.page.position : end]
    walker = _walker(bulk)
    deletes = bulk.action is Action.DELETE  # which may find what another deletion has left
    there = [job for job in desk.jobs.get_many(ids, consistent=True) if walker.owns(job) and (deletes or not job.is_deleted)]
    missing = sorted(set(ids) - {job.id for job in there})
    return Hand(jobs=_held(there), missing=tuple(missing), position=end, last=end >= len(bulk.ids))


def _found(desk: Desk, bulk: Bulk, size: int) -> Hand:
    status = bulk.statuses[bulk.page.position]
    filters = Filters(**{**bulk.filters, "status": status.value})
    page = list_jobs(desk.jobs, _walker(bulk), filters, size, bulk.page.cursor, desk.row_count)
    if page.next_cursor is not None:
        return Hand(jobs=_held(page.jobs), position=bulk.page.position, cursor=page.next_cursor)
    place = bulk.page.position + 1
    return Hand(jobs=_held(page.jobs), position=place, last=place >= len(bulk.statuses))


def _held(jobs: list[Job]) -> tuple[Held, ...]:
    return tuple(Held(job.id, job.generation, job.run) for job in jobs)


def _walker(bulk: Bulk) -> Caller:
    """On whose behalf jobs are looked at: an operator's of the tenant, which whoever asked was."""
    return Caller(tenant=bulk.tenant, user="", role=Role.OPERATOR, key_id="", key_hash="", all_tenants=bulk.all_tenants and bool(bulk.ids))


# ---- doing


def _play(desk: Desk, bulk: Bulk) -> list[Played]:
    """Do it to each job of the hand. What had been done by whoever died with this hand is done."""
    held = bulk.page.jobs
    heads = {job.id: job for job in desk.jobs.get_many([one.job_id for one in held], consistent=True)} if held else {}
    return [_one(desk, bulk, one, heads.get(one.job_id)) for one in held]


def _one(desk: Desk, bulk: Bulk, held: Held, job: Job | None) -> Played:
    try:
        _DEEDS[bulk.action](desk, bulk, held, job)
    except Unavailable:
        raise
    except HeadraceError as exc:
        return Played(held.job_id, "skipped", exc.code)
    except Exception as exc:  # noqa: BLE001 - what one job does must not keep all others from their turn
        desk.log("a bulk action failed for a job", bulk_id=bulk.id, job_id=held.job_id, tenant=bulk.tenant, error=exc)
        return Played(held.job_id, "failed", "internal_error")
    return Played(held.job_id, "done")


def _retry(desk: Desk, _bulk: Bulk, held: Held, job: Job | None) -> None:
    retry_job(desk.clock, desk.jobs, desk.job_specs, desk.queues, _there(held, job), None, held.generation)


def _cancel(desk: Desk, bulk: Bulk, held: Held, job: Job | None) -> None:
    there = _there(held, job)
    if there.run > held.run:
        return  # it was cancelled, and somebody has started it again since
    if there.status.is_terminal and there.status is not Status.CANCELLED:
        raise _Ended
    if not there.status.is_terminal:
        cancelled = cancel_job(desk.clock, desk.jobs, desk.subscriptions, there, bulk.states or None)
        if not (cancelled.status.is_terminal or cancelled.cancel_requested):
            raise _Started


def _delete(desk: Desk, _bulk: Bulk, held: Held, job: Job | None) -> None:
    if job is not None:
        delete_job(desk.clock, desk.jobs, desk.job_data, job, held.generation)


def _set_priority(desk: Desk, bulk: Bulk, held: Held, job: Job | None) -> None:
    editor = Editor(clock=desk.clock, log=desk.log, jobs=desk.jobs, job_specs=desk.job_specs, queues=desk.queues)
    edit_job(editor, _there(held, job), Edit(lane=bulk.lane))


def _there(held: Held, job: Job | None) -> Job:
    if job is None or job.is_deleted:
        raise JobNotFound(held.job_id)
    return job


class _Ended(HeadraceError):
    """It has ended already."""

    code = "job_has_ended"


class _Started(HeadraceError):
    """It has begun meanwhile, and only those that have not are meant."""

    code = "job_has_started"


_DEEDS: dict[Action, Callable[[Desk, Bulk, Held, Job | None], None]] = {
    Action.RETRY: _retry,
    Action.CANCEL: _cancel,
    Action.DELETE: _delete,
    Action.SET_PRIORITY: _set_priority,
}
