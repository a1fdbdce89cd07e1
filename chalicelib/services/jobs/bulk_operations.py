"""Do one thing to many jobs: retry, cancel, delete, set_priority. Whoever asks does as much as fits; the sweep goes on with the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from chalicelib.domain.auth.identity import Caller, Role
from chalicelib.domain.errors import BulkNotFound, Forbidden, HeadraceError, JobNotFound, StaleVersion, Unavailable
from chalicelib.domain.ids import job_id_of_row
from chalicelib.domain.jobs import bulk_operation as bulk_rules
from chalicelib.domain.jobs.bulk_operation import BulkAction, BulkOperation, BulkPage, JobOutcome, JobRef
from chalicelib.domain.jobs.edits import JobEdit
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.units import Ms
from chalicelib.ports import BulkOperations, JobData, Subscriptions
from chalicelib.services.context import JobContext
from chalicelib.services.idempotency import IdempotentRequest
from chalicelib.services.jobs.cancel_job import cancel_job
from chalicelib.services.jobs.delete_job import delete_job
from chalicelib.services.jobs.edit_job import edit_job
from chalicelib.services.jobs.list_jobs import Filters, list_jobs
from chalicelib.services.jobs.retry_job import retry_job

PAGE_SIZE = 25  # jobs between two notes of how far it has come
COUNTED_AT_ONCE = 100
ROWS_AT_ONCE = 100  # of a batch, looked at for one hand
INLINE_BUDGET_MS, INLINE_MAX_JOBS = 10_000, 200  # what a request does itself
SWEEP_MS, MAX_RESUMED = 20_000, 50
MAX_COUNTED = 10_000  # by a dry run


class BulkContext(JobContext, Protocol):
    """What bulk operations need. `row_count` gives how many rows a batch has, None if there is no such batch."""

    @property
    def job_data(self) -> JobData: ...
    @property
    def subscriptions(self) -> Subscriptions: ...
    @property
    def bulk_operations(self) -> BulkOperations: ...
    def new_id(self) -> str: ...
    def row_count(self, tenant: str, batch_id: str) -> int | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkRequest:
    """What is to be done to which jobs: those that `ids` names, or all that `filters` finds. `lane`: for set_priority."""

    action: BulkAction
    ids: tuple[str, ...] = ()
    filters: Mapping[str, Any] | None = None
    lane: str | None = None


@dataclass(frozen=True, slots=True)
class StartedBulk:
    """A bulk action as far as it came. `replayed`: the request had been sent before."""

    bulk: BulkOperation
    replayed: bool = False


def start_bulk(ctx: BulkContext, caller: Caller, wish: BulkRequest, once: IdempotentRequest | None = None) -> StartedBulk:
    """Write the wish down, then work on it for as long as a request may. Sent again with the same key it is the same bulk action.

    Raises:
        Forbidden: the jobs are another tenant's.
        IdempotencyConflict: the key stands for another request.
        Unavailable: it was not written down.
    """
    made = _new(ctx, caller, wish)
    if once is not None:
        remembered = once.claim(ctx.jobs, ctx.clock.now(), made.id)
        if remembered != made.id:
            there = ctx.bulk_operations.get(made.tenant, remembered)
            if there is not None:
                return StartedBulk(there, replayed=True)
            made = replace(made, id=remembered)  # whoever sent it first died before it was written down
    ctx.bulk_operations.create(made)
    return StartedBulk(run_bulk(ctx, made, ctx.clock.now() + INLINE_BUDGET_MS, INLINE_MAX_JOBS))


def get_bulk(ctx: BulkContext, caller: Caller, bulk_id: str, tenant: str | None = None) -> BulkOperation:
    """A bulk action of the caller's tenant.

    Raises:
        BulkNotFound: there is none.
    """
    found = ctx.bulk_operations.get(tenant if tenant and caller.all_tenants else caller.tenant, bulk_id)
    if found is None:
        raise BulkNotFound
    return found


def count_matching(ctx: BulkContext, caller: Caller, wish: BulkRequest) -> tuple[int, bool]:
    """How many jobs a wish would take up, to ten thousand or as many as can be counted in time; and whether there may be more.

    Raises:
        Forbidden: they are another tenant's.
    """
    counted, until = _new(ctx, caller, wish), ctx.clock.now() + INLINE_BUDGET_MS
    while counted.matched < MAX_COUNTED and ctx.clock.now() < until:
        counted = bulk_rules.next_page(counted, [], _next_page(ctx, counted, COUNTED_AT_ONCE), ctx.clock.now())
        if counted.page.last:
            return counted.matched, False
    return counted.matched, True


def resume_unfinished(ctx: BulkContext, deadline: Ms | None = None) -> int:
    """What the sweep does with bulk actions: the oldest first, for a bounded time, and not beyond `deadline`. One that fails does not
    stop the others.
    """
    now = ctx.clock.now()
    until = now + SWEEP_MS if deadline is None else min(now + SWEEP_MS, deadline)
    unfinished = ctx.bulk_operations.unfinished(now, MAX_RESUMED)
    for bulk in unfinished:
        try:
            if ctx.clock.now() < until:
                run_bulk(ctx, bulk, until)
        except Exception as exc:  # noqa: BLE001 - what one does to the sweep must not happen to all others
            ctx.log("bulk_operation_failed", bulk_id=bulk.id, tenant=bulk.tenant, error=exc)
    return len(unfinished)


def run_bulk(ctx: BulkContext, bulk: BulkOperation, until: Ms, most: int | None = None) -> BulkOperation:
    """Play hand after hand until it is finished, or `until` is over or `most` jobs were dealt with. It is left as it was last written."""
    dealt_with = 0
    try:
        while bulk.finished_at is None and ctx.clock.now() < until and (most is None or dealt_with < most):
            played = _apply_page(ctx, bulk)
            new = bulk_rules.next_page(bulk, played, _next_page(ctx, bulk), ctx.clock.now())
            ctx.bulk_operations.replace(bulk, new)
            bulk, dealt_with = new, dealt_with + len(played)
    except StaleVersion as stale:  # somebody else is at it, too
        return stale.current if isinstance(stale.current, BulkOperation) else bulk
    except Unavailable as exc:
        ctx.log("bulk_operation_deferred", bulk_id=bulk.id, tenant=bulk.tenant, error=exc)
    if bulk.finished_at is not None:
        counts = {"matched": bulk.matched, "done": bulk.done, "skipped": bulk.skipped, "failed": bulk.failed}
        ctx.log("bulk_operation_finished", bulk_id=bulk.id, tenant=bulk.tenant, action=bulk.action.value, **counts)
    return bulk


def _new(ctx: BulkContext, caller: Caller, wish: BulkRequest) -> BulkOperation:
    filters, now = dict(wish.filters or {}), ctx.clock.now()
    tenant = filters.pop("tenant", None) or caller.tenant
    if tenant != caller.tenant and not caller.all_tenants:
        raise Forbidden(f"This key is for the jobs of {caller.tenant} only.")
    return BulkOperation(
        id=f"bulk_{ctx.new_id()}",
        tenant=tenant,
        created_by=caller.user,
        action=wish.action,
        created_at=now,
        updated_at=now,
        lane=wish.lane,
        ids=tuple(dict.fromkeys(wish.ids)),
        filters=filters,
        all_tenants=caller.all_tenants,
        locked_until=now + bulk_rules.LOCK_MS,
    )


# ---- taking up


def _next_page(ctx: BulkContext, bulk: BulkOperation, size: int = PAGE_SIZE) -> BulkPage:
    """The next jobs. Lists are walked from their newest end on: a job that fails again meanwhile is listed behind us, not met twice."""
    if bulk.page.last:
        return BulkPage(last=True)
    if bulk.batch_id is not None:
        return _rows(ctx, bulk, bulk.batch_id)
    return _named(ctx, bulk, size) if bulk.ids else _found(ctx, bulk, size)


def _rows(ctx: BulkContext, bulk: BulkOperation, batch_id: str) -> BulkPage:
    """Of the next rows of a batch those that have jobs, in a state for it."""
    end = min(bulk.page.position + ROWS_AT_ONCE, bulk.rows)
    ids = [job_id_of_row(batch_id, row) for row in range(bulk.page.position, end)]
    there = [job for job in ctx.jobs.get_many(ids, consistent=True) if job.status in bulk.states and not job.is_deleted]
    return BulkPage(jobs=_job_refs([job for job in there if job.tenant == bulk.tenant]), position=end, last=end >= bulk.rows)


def _named(ctx: BulkContext, bulk: BulkOperation, size: int) -> BulkPage:
    end = bulk.page.position + size
    ids = bulk.ids[bulk.page.position : end]
    walker = _caller_of(bulk)
    deletes = bulk.action is BulkAction.DELETE  # which may find what another deletion has left
    there = [job for job in ctx.jobs.get_many(ids, consistent=True) if walker.owns(job) and (deletes or not job.is_deleted)]
    missing = sorted(set(ids) - {job.id for job in there})
    return BulkPage(jobs=_job_refs(there), missing=tuple(missing), position=end, last=end >= len(bulk.ids))


def _found(ctx: BulkContext, bulk: BulkOperation, size: int) -> BulkPage:
    status = bulk.statuses[bulk.page.position]
    filters = Filters(**{**bulk.filters, "status": status.value})
    page = list_jobs(ctx.jobs, _caller_of(bulk), filters, size, bulk.page.cursor, ctx.row_count)
    if page.next_cursor is not None:
        return BulkPage(jobs=_job_refs(page.jobs), position=bulk.page.position, cursor=page.next_cursor)
    place = bulk.page.position + 1
    return BulkPage(jobs=_job_refs(page.jobs), position=place, last=place >= len(bulk.statuses))


def _job_refs(jobs: list[Job]) -> tuple[JobRef, ...]:
    return tuple(JobRef(job.id, job.generation, job.run) for job in jobs)


def _caller_of(bulk: BulkOperation) -> Caller:
    """On whose behalf jobs are looked at: an operator's of the tenant, which whoever asked was."""
    return Caller(tenant=bulk.tenant, user="", role=Role.OPERATOR, key_id="", key_hash="", all_tenants=bulk.all_tenants and bool(bulk.ids))


# ---- doing


def _apply_page(ctx: BulkContext, bulk: BulkOperation) -> list[JobOutcome]:
    """Do it to each job of the hand. What had been done by whoever died with this hand is done."""
    held = bulk.page.jobs
    heads = {job.id: job for job in ctx.jobs.get_many([one.job_id for one in held], consistent=True)} if held else {}
    return [_apply_to_job(ctx, bulk, one, heads.get(one.job_id)) for one in held]


def _apply_to_job(ctx: BulkContext, bulk: BulkOperation, held: JobRef, job: Job | None) -> JobOutcome:
    try:
        _ACTIONS[bulk.action](ctx, bulk, held, job)
    except Unavailable:
        raise
    except HeadraceError as exc:
        return JobOutcome(held.job_id, "skipped", exc.code)
    except Exception as exc:  # noqa: BLE001 - what one job does must not keep all others from their turn
        ctx.log("bulk_operation_job_failed", bulk_id=bulk.id, job_id=held.job_id, tenant=bulk.tenant, error=exc)
        return JobOutcome(held.job_id, "failed", "internal_error")
    return JobOutcome(held.job_id, "done")


def _retry(ctx: BulkContext, _bulk: BulkOperation, held: JobRef, job: Job | None) -> None:
    retry_job(ctx, _require_job(held, job), None, held.generation)


def _cancel(ctx: BulkContext, bulk: BulkOperation, held: JobRef, job: Job | None) -> None:
    there = _require_job(held, job)
    if there.run > held.run:
        return  # it was cancelled, and somebody has started it again since
    if there.status.is_terminal and there.status is not Status.CANCELLED:
        raise _Ended
    if not there.status.is_terminal:
        cancelled = cancel_job(ctx.clock, ctx.jobs, ctx.subscriptions, there, bulk.states or None)
        if not (cancelled.status.is_terminal or cancelled.cancel_requested):
            raise _Started


def _delete(ctx: BulkContext, _bulk: BulkOperation, held: JobRef, job: Job | None) -> None:
    if job is not None:
        delete_job(ctx.clock, ctx.jobs, ctx.job_data, job, held.generation)


def _set_priority(ctx: BulkContext, bulk: BulkOperation, held: JobRef, job: Job | None) -> None:
    edit_job(ctx, _require_job(held, job), JobEdit(lane=bulk.lane))


def _require_job(held: JobRef, job: Job | None) -> Job:
    if job is None or job.is_deleted:
        raise JobNotFound(held.job_id)
    return job


class _Ended(HeadraceError):
    """It has ended already."""

    code = "job_has_ended"


class _Started(HeadraceError):
    """It has begun meanwhile, and only those that have not are meant."""

    code = "job_has_started"


_ACTIONS: dict[BulkAction, Callable[[BulkContext, BulkOperation, JobRef, Job | None], None]] = {
    BulkAction.RETRY: _retry,
    BulkAction.CANCEL: _cancel,
    BulkAction.DELETE: _delete,
    BulkAction.SET_PRIORITY: _set_priority,
}
