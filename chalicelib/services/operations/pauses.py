"""Pause and resume what jobs have in common: everything, a tenant, a type, a lane, a queue, a batch.

A key of one tenant pauses only its own tenant. A pause from a key of all tenants is ended only by
such a key; the tenants see that they are paused, but not the operator's name and words.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from chalicelib.domain.auth.identity import Caller
from chalicelib.domain.batches.batch import Batch
from chalicelib.domain.errors import (
    AlreadyPaused,
    BatchNotPausable,
    Forbidden,
    PauseNotFound,
    StaleVersion,
    Throttled,
    TooManyPauses,
    Unavailable,
    UnreadableRecord,
)
from chalicelib.domain.limits import pauses as pause_rules
from chalicelib.domain.limits.pauses import Pause, PauseScope, pause_id
from chalicelib.domain.units import Ms, rfc3339
from chalicelib.ports import Batches
from chalicelib.services.batches.context import enqueue_advance
from chalicelib.services.batches.pausing import next_row
from chalicelib.services.compare_and_swap import MAX_ATTEMPTS
from chalicelib.services.load_pauses import PauseContext, load_pauses
from chalicelib.services.scheduling.context import LineContext
from chalicelib.services.scheduling.visits import ask_for_visit

PAGE_SIZE = 50  # tenants of a list for a key of all tenants
WOKEN_BATCHES = 50  # of a tenant, when one of its pauses ends

Pauses = tuple[Pause, ...]
Change = Callable[[Pauses], Pauses | None]  # None: there is nothing to change


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseRequest:
    """A request to pause a scope."""

    scope: PauseScope
    reason: str | None = None
    until: Ms | None = None  # None: until it is resumed
    replace: bool = False  # change the reason and the end of a pause of this scope


@dataclass(frozen=True, slots=True)
class Paused:
    """A pause, and whether the request has made it."""

    pause: Pause
    created: bool


@dataclass(frozen=True, slots=True)
class PausePage:
    """A page of pauses, and where the next one starts; None: it is the last."""

    pauses: tuple[Pause, ...]
    next_tenant: str | None = None


class OperatePausesContext(PauseContext, LineContext, Protocol):
    """What changing pauses needs."""

    @property
    def batches(self) -> Batches: ...


def scope_of(caller: Caller, scope: PauseScope) -> PauseScope:
    """Return the scope that a caller means: without a tenant, a key of one tenant means its own.

    Raises:
        Forbidden: the scope is another tenant's.
    """
    if caller.all_tenants:
        return scope
    if scope.tenant not in (None, caller.tenant):
        raise Forbidden(f"This key pauses and resumes jobs of {caller.tenant} only.")
    return replace(scope, tenant=caller.tenant)


def set_pause(ctx: OperatePausesContext, caller: Caller, request: PauseRequest) -> Paused:
    """Pause a scope. Repeating the request changes nothing: author, reason and time stay.

    Raises:
        AlreadyPaused: the scope is paused with another reason or end, and `replace` is not set.
        TooManyPauses: the tenant, or the stage, has as many as it may.
        Forbidden: the scope is another tenant's.
        Unavailable: the pause may or may not hold; repeat the request.
    """
    scope, now = scope_of(caller, request.scope), ctx.clock.now()
    wanted = Pause(
        id=pause_id(scope, by_stage=caller.all_tenants),
        scope=scope,
        reason=request.reason,
        by=caller.user,
        since=now,
        until=request.until,
        by_stage=caller.all_tenants,
    )
    found: list[Pause | None] = [None]  # the pause of this scope before

    def change(seen: Pauses) -> Pauses | None:
        existing = found[0] = pause_rules.find_pause(seen, wanted.id, now)
        if existing is not None and (existing.reason, existing.until) == (wanted.reason, wanted.until):
            return None
        if existing is not None and not request.replace:
            raise AlreadyPaused(_already(existing))
        added = pause_rules.add_pause(seen, _since(wanted, existing), now)
        if added is None:
            raise TooManyPauses
        return added

    changed = _change(ctx, scope.tenant, change)
    existing = found[0]
    pause = _since(wanted, existing) if changed or existing is None else existing
    if changed:
        ctx.log("jobs_paused", **_facts(pause), reason=pause.reason, until=rfc3339(pause.until))
    if changed and existing is not None:  # it may end sooner than before
        ask_for_visit(ctx, pause.cause)
    return Paused(pause, created=existing is None)


def pause_batch(ctx: OperatePausesContext, caller: Caller, batch: Batch, reason: str | None, until: Ms | None, *, replaces: bool) -> Paused:
    """Pause a batch: no further row is released, and rows that have not started do not start.

    Raises:
        BatchNotPausable: the batch has ended.
        AlreadyPaused, TooManyPauses, Forbidden: as `set_pause`.
    """
    if batch.finished_at is not None or not batch.is_active:
        raise BatchNotPausable
    return set_pause(ctx, caller, PauseRequest(scope=batch_scope(batch), reason=reason, until=until, replace=replaces))


def batch_scope(batch: Batch) -> PauseScope:
    """Return the scope of the jobs of a batch."""
    return PauseScope(tenant=batch.tenant, batch=batch.id)


def end_pauses(ctx: OperatePausesContext, caller: Caller, scope: PauseScope) -> Pauses:
    """Resume a scope: end the caller's pauses of it. Returns those that were ended; idempotent.

    Raises:
        Forbidden: only a key of all tenants may end the pause, or the scope is another tenant's.
        Unavailable: the pauses may or may not be ended; repeat the request.
    """
    wanted = scope_of(caller, scope)
    ids = {pause_id(wanted, by_stage=False), pause_id(wanted, by_stage=True)}
    ended = _end(ctx, caller, wanted.tenant, ids)
    if not ended and not caller.all_tenants:
        everybody = pause_id(replace(wanted, tenant=None), by_stage=True)
        _refuse_if_by_stage(pause_rules.find_pause(ctx.pauses.board().pauses, everybody, ctx.clock.now()))
    return ended


def end_pause(ctx: OperatePausesContext, caller: Caller, name: str, tenant: str | None) -> Pause:
    """End the pause with this id: of the caller's tenant, of `tenant` for a key of all tenants, or for everybody.

    Raises:
        PauseNotFound: there is none, or it is over.
        Forbidden: only a key of all tenants may end it.
    """
    owner = tenant if tenant is not None and caller.all_tenants else caller.tenant
    on_board = pause_rules.find_pause(ctx.pauses.board().pauses, name, ctx.clock.now())
    if on_board is not None and not caller.all_tenants:
        _refuse_if_by_stage(on_board)
    ended = _end(ctx, caller, None if on_board is not None else owner, {name})
    if not ended:
        raise PauseNotFound
    return ended[0]


def list_pauses(ctx: OperatePausesContext, caller: Caller, tenant: str | None, before: str | None) -> PausePage:
    """Return the pauses that a caller may see: of its tenant and for everybody; with a key of all
    tenants those of every tenant, by pages.

    Raises:
        Forbidden: the key is not for `tenant`.
    """
    if tenant is not None and tenant != caller.tenant and not caller.all_tenants:
        raise Forbidden(f"This key lists the pauses of {caller.tenant} only.")
    if tenant is not None or not caller.all_tenants:
        return PausePage(_current(ctx, load_pauses(ctx, tenant or caller.tenant)))
    everybody = _current(ctx, ctx.pauses.board().pauses) if before is None else ()
    records, following = ctx.pauses.page(before, PAGE_SIZE)
    return PausePage((*everybody, *(pause for record in records for pause in _current(ctx, record.pauses))), following)


def _end(ctx: OperatePausesContext, caller: Caller, tenant: str | None, ids: set[str]) -> Pauses:
    now = ctx.clock.now()
    ended: list[Pause] = []

    def change(seen: Pauses) -> Pauses | None:
        found = [pause for pause in seen if pause.id in ids and not pause.is_over(now)]
        ended[:] = [pause for pause in found if caller.all_tenants or not pause.by_stage]
        if found and not ended:
            _refuse_if_by_stage(found[0])
        for pause in ended:
            seen = pause_rules.remove_pause(seen, pause.id, now)
        return seen if ended else None

    _change(ctx, tenant, change)
    for pause in ended:
        ctx.log("jobs_resumed", **_facts(pause), resumed_by=caller.user)
        ask_for_visit(ctx, pause.cause)
        _wake_batches(ctx, pause.scope)
    return tuple(ended)


def _wake_batches(ctx: OperatePausesContext, scope: PauseScope) -> None:
    """Let the newest batches in the scope release further rows. The sweep of the batches wakes the others."""
    if scope.tenant is None:
        return
    try:
        if scope.batch is not None:
            batch = ctx.batches.get(scope.tenant, scope.batch)
            found = [batch] if batch is not None else []
        else:
            found = ctx.batches.page(scope.tenant, None, WOKEN_BATCHES)[0]
        for batch in found:
            if batch.is_active and batch.released < batch.total and scope.covers(next_row(batch)):
                enqueue_advance(ctx.queues, batch)
    except (Unavailable, UnreadableRecord) as exc:
        ctx.log("batches_not_woken", tenant=scope.tenant, error=exc)


def _change(ctx: OperatePausesContext, tenant: str | None, change: Change) -> bool:
    """Write the changed pauses of a tenant, or those for everybody. Returns whether there was a change.

    Raises:
        Throttled: other writers came first ten times in a row.
    """
    for _ in range(MAX_ATTEMPTS):
        board = ctx.pauses.board()
        seen = ctx.pauses.of_tenant(tenant, consistent=True) if tenant is not None else None
        changed = change(board.pauses if seen is None else seen.pauses)
        if changed is None:
            return False
        try:
            if seen is None:
                ctx.pauses.replace_board(board, pause_rules.change_board(board, changed))
            else:
                new = pause_rules.change_tenant(seen, changed)
                ctx.pauses.replace_tenant(seen, new, board, pause_rules.note_on_board(board, seen, new, ctx.clock.now()))
        except StaleVersion:  # another operator came first: decide again
            continue
        return True
    raise Throttled


def _since(pause: Pause, existing: Pause | None) -> Pause:
    """Return the pause since when its scope is paused."""
    return pause if existing is None else replace(pause, since=existing.since)


def _current(ctx: OperatePausesContext, pauses: Pauses) -> Pauses:
    return tuple(pause for pause in pauses if not pause.is_over(ctx.clock.now()))


def _refuse_if_by_stage(pause: Pause | None) -> None:
    if pause is not None and pause.by_stage:
        raise Forbidden("This was paused by an operator of all tenants, so only a key of all tenants ends it.")


def _already(pause: Pause) -> str:
    end = f" until {rfc3339(pause.until)}" if pause.until is not None else ""
    hint = 'Resume it first, or send "replace": true.'
    why = f" ({pause.reason})" if pause.reason is not None else ""
    return f"{pause.scope.text} has been paused by {pause.by} since {rfc3339(pause.since)}{end}{why}. {hint}"


def _facts(pause: Pause) -> dict[str, str | None]:
    return {"pause_id": pause.id, "scope": pause.scope.text, "tenant": pause.scope.tenant, "by": pause.by}
