"""Start and run bulk operations: one action (`BulkAction`) on many jobs.

The request processes as many jobs as fit into its time; messages of the queue `tasks` the rest
(`advance_bulk`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from chalicelib.domain.auth.identity import Caller
from chalicelib.domain.errors import BulkNotFound, Forbidden, StaleVersion, Unavailable
from chalicelib.domain.jobs import bulk_operation as bulk_rules
from chalicelib.domain.jobs.bulk_operation import BulkAction, BulkOperation, BulkPage
from chalicelib.domain.units import Ms
from chalicelib.ports import BulkOperations
from chalicelib.services.idempotency import IdempotentRequest
from chalicelib.services.jobs.bulk_actions import BulkActionContext, apply_page
from chalicelib.services.jobs.bulk_pages import BulkPageContext, read_next_page
from chalicelib.services.jobs.bulk_turns import request_turn

COUNT_PAGE_SIZE = 100  # jobs of one page of a dry run
INLINE_BUDGET_MS, INLINE_MAX_JOBS = 10_000, 200  # what a request processes itself
TURN_MS = 20_000  # of one message; then other tenants have their turns
MAX_COUNTED = 10_000  # jobs that a dry run counts


class BulkContext(BulkActionContext, BulkPageContext, Protocol):
    """What bulk operations need."""

    @property
    def bulk_operations(self) -> BulkOperations: ...
    def new_id(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkRequest:
    """A request to apply one action to the jobs of `ids`, or to those that `filters` finds."""

    action: BulkAction
    ids: tuple[str, ...] = ()  # empty: `filters` selects the jobs
    filters: Mapping[str, Any] | None = None  # as in `GET /jobs`
    lane: str | None = None  # the new lane, for `set_priority`
    reason: str | None = None  # why, for `pause`
    until: Ms | None = None  # when the pause ends
    limit: int | None = None  # select at most so many jobs, the newest; None: all


@dataclass(frozen=True, slots=True)
class StartedBulk:
    """A bulk operation as far as the request has processed it."""

    bulk: BulkOperation
    replayed: bool = False  # the request had been sent before


def start_bulk(ctx: BulkContext, caller: Caller, request: BulkRequest, idempotent_request: IdempotentRequest | None = None) -> StartedBulk:
    """Store a bulk operation, then run it for as long as a request may take; what is left asks for a turn.

    Raises:
        Forbidden: the jobs are another tenant's.
        IdempotencyConflict: the key belongs to another request.
        Unavailable: the operation was not stored.
    """
    bulk = _new_bulk(ctx, caller, request)
    if idempotent_request is not None:
        bulk_id = idempotent_request.claim(ctx.jobs, ctx.clock.now(), bulk.id)
        if bulk_id != bulk.id:
            existing = ctx.bulk_operations.get(bulk.tenant, bulk_id)
            if existing is not None:
                return StartedBulk(existing, replayed=True)
            bulk = replace(bulk, id=bulk_id)  # the first copy died before it stored the operation
    if request.limit is not None:
        bulk = _select(ctx, bulk, request.limit)
    ctx.bulk_operations.create(bulk)
    bulk = run_bulk(ctx, bulk, ctx.clock.now() + INLINE_BUDGET_MS, INLINE_MAX_JOBS)
    if bulk.finished_at is None:
        _request_turn(ctx, bulk)
    return StartedBulk(bulk)


def get_bulk(ctx: BulkContext, caller: Caller, bulk_id: str, tenant: str | None = None) -> BulkOperation:
    """Return a bulk operation of the caller's tenant, or of `tenant` for a key of all tenants.

    Raises:
        BulkNotFound: there is none.
    """
    found = ctx.bulk_operations.get(tenant if tenant and caller.all_tenants else caller.tenant, bulk_id)
    if found is None:
        raise BulkNotFound
    return found


def count_matching(ctx: BulkContext, caller: Caller, request: BulkRequest) -> tuple[int, bool]:
    """Count the jobs that a request would select, up to `MAX_COUNTED`, for `INLINE_BUDGET_MS`.

    Returns:
        The count, and whether there may be more.

    Raises:
        Forbidden: the jobs are another tenant's.
    """
    counted, until = _new_bulk(ctx, caller, request), ctx.clock.now() + INLINE_BUDGET_MS
    if request.limit is not None:
        return len(_select(ctx, counted, request.limit).ids), False
    while counted.matched < MAX_COUNTED and ctx.clock.now() < until:
        counted = bulk_rules.next_page(counted, [], read_next_page(ctx, counted, COUNT_PAGE_SIZE), ctx.clock.now())
        if counted.page.last:
            return counted.matched, False
    return counted.matched, True


def run_bulk(ctx: BulkContext, bulk: BulkOperation, until: Ms, max_jobs: int | None = None) -> BulkOperation:
    """Process pages until the operation finishes, `until` passes or `max_jobs` jobs are processed.

    Progress is saved after each page, so any caller can resume. Returns the operation as it was
    last saved.
    """
    try:
        for saved in run_pages(ctx, bulk, until, max_jobs):
            bulk = saved
    except StaleVersion as stale:  # another caller processes it too
        return stale.current if isinstance(stale.current, BulkOperation) else bulk
    except Unavailable as exc:
        ctx.log("bulk_operation_deferred", bulk_id=bulk.id, tenant=bulk.tenant, error=exc)
    return bulk


def run_pages(ctx: BulkContext, bulk: BulkOperation, until: Ms, max_jobs: int | None = None) -> Iterator[BulkOperation]:
    """Like `run_bulk`, but yield the operation after each page, and raise what `process_page` raises."""
    processed = 0
    while bulk.finished_at is None and ctx.clock.now() < until and (max_jobs is None or processed < max_jobs):
        new = process_page(ctx, bulk)
        processed += len(bulk.page.jobs)
        bulk = new
        yield bulk


def process_page(ctx: BulkContext, bulk: BulkOperation) -> BulkOperation:
    """Apply the action to the current page, find the next one, and return the operation as saved.

    Raises:
        StaleVersion: another caller processes the operation too.
        Unavailable: a store did not answer; the page is processed again.
    """
    outcomes = apply_page(ctx, bulk)
    new = bulk_rules.next_page(bulk, outcomes, read_next_page(ctx, bulk), ctx.clock.now())
    ctx.bulk_operations.replace(bulk, new)
    if new.finished_at is not None:
        counts = {"matched": new.matched, "done": new.done, "skipped": new.skipped, "failed": new.failed}
        ctx.log("bulk_operation_finished", bulk_id=new.id, tenant=new.tenant, action=new.action.value, **counts)
    return new


def _request_turn(ctx: BulkContext, bulk: BulkOperation) -> None:
    try:
        request_turn(ctx, bulk)
    except Unavailable as exc:  # the schedule asks for it, after some minutes
        ctx.log("bulk_operation_not_woken", bulk_id=bulk.id, tenant=bulk.tenant, error=exc)


def _select(ctx: BulkContext, bulk: BulkOperation, limit: int) -> BulkOperation:
    """Return the operation on at most `limit` of its jobs, by their ids: an older version of the code,
    which may continue it, knows no limit. Fewer are selected if the time of a request is over before.
    """
    found, seen, until = list[str](), bulk, ctx.clock.now() + INLINE_BUDGET_MS
    while len(found) < limit and not seen.page.last and ctx.clock.now() < until:
        seen = replace(seen, page=read_next_page(ctx, seen, min(COUNT_PAGE_SIZE, limit - len(found))))
        found += [ref.job_id for ref in seen.page.jobs]
    return replace(bulk, ids=tuple(found), page=bulk.page if found else BulkPage(last=True))


def _new_bulk(ctx: BulkContext, caller: Caller, request: BulkRequest) -> BulkOperation:
    filters, now = dict(request.filters or {}), ctx.clock.now()
    tenant = filters.pop("tenant", None) or caller.tenant
    if tenant != caller.tenant and not caller.all_tenants:
        raise Forbidden(f"This key is for the jobs of {caller.tenant} only.")
    return BulkOperation(
        id=f"bulk_{ctx.new_id()}",
        tenant=tenant,
        created_by=caller.user,
        action=request.action,
        created_at=now,
        updated_at=now,
        lane=request.lane,
        reason=request.reason,
        until=request.until,
        ids=tuple(dict.fromkeys(request.ids)),
        filters=filters,
        all_tenants=caller.all_tenants,
        locked_until=now + bulk_rules.LOCK_MS,
    )
