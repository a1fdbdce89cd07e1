"""Wake the bulk operations that nobody advances: the part of a schedule of its own, every minute.

An operation is woken if it has not moved for two minutes and either has its turn, so that its message
was lost, or has never asked for one: its request died, an earlier version of the code started it, or
it was put off. Operations that wait for their turn are only names here. Tenants take turns, beginning
with one that is drawn by lot, and a few operations are loaded at a time, because one with a thousand
ids is 90 KB in memory.

Concurrent runs are safe: a second message for an operation does nothing.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Protocol

from chalicelib.domain.errors import Unavailable
from chalicelib.domain.jobs.bulk_operation import LOCK_MS, BulkKey, BulkOperation
from chalicelib.domain.units import Ms
from chalicelib.ports import BulkOperations, Clock, ParallelMap, Queues
from chalicelib.services.jobs.bulk_turns import AT_ONCE, request_turn
from chalicelib.services.log import Log

READ_SIZE = 1_000  # names that are read together
READ_SHARE = 0.25  # of the time, to read names; those beyond it wait until older operations have finished
LOADED_AT_ONCE = 24  # operations in memory: three for each thread of the map
STALLED_MS = 120_000  # since its last page: no message takes as long


class WakeContext(Protocol):
    """What waking bulk operations needs. `random` returns a number in [0, 1)."""

    @property
    def bulk_operations(self) -> BulkOperations: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def log(self) -> Log: ...
    @property
    def parallel_map(self) -> ParallelMap: ...
    @property
    def queues(self) -> Queues: ...
    def random(self) -> float: ...


class _Candidates:
    """The operations that may have to be woken, tenant after tenant.

    Of those in the order of a tenant only as many as have their turn. The others of a tenant begin
    anywhere, so that runs without enough time for all of them reach each in the end.
    """

    def __init__(self, ctx: WakeContext, keys: Iterable[BulkKey]) -> None:
        by_tenant: defaultdict[str, list[BulkKey]] = defaultdict(list)
        for key in keys:
            by_tenant[key.tenant].append(key)
        orders = dict(zip(by_tenant, ctx.parallel_map(partial(_order_of, ctx), list(by_tenant)), strict=True))
        self._ordered = {tenant: deque(order) for tenant, order in orders.items() if order is not None}
        self._others = {tenant: _without(keys, orders[tenant] or (), ctx.random()) for tenant, keys in by_tenant.items()}
        self._tenants = deque(self._ordered)
        self._tenants.rotate(-int(ctx.random() * len(self._tenants)))
        self._drawn: defaultdict[str, set[str]] = defaultdict(set)  # by tenant: those that use its turns

    def draw(self, number: int) -> list[BulkKey]:
        """Remove and return the next ones, at most `number`."""
        drawn: list[BulkKey] = []
        while self._tenants and len(drawn) < number:
            tenant = self._tenants.popleft()
            key = self._next_of(tenant)
            if key is not None:
                drawn.append(key)
                self._tenants.append(tenant)
        return drawn

    def uses_turn(self, key: BulkKey) -> bool:
        return key.id in self._drawn[key.tenant]

    def free_turn(self, key: BulkKey) -> None:
        """Draw the next one in the order of this tenant, too: this one does not use its turn."""
        self._drawn[key.tenant].discard(key.id)
        if key.tenant not in self._tenants:
            self._tenants.append(key.tenant)

    def _next_of(self, tenant: str) -> BulkKey | None:
        if self._ordered[tenant] and len(self._drawn[tenant]) < AT_ONCE:
            key = self._ordered[tenant].popleft()
            self._drawn[tenant].add(key.id)
            return key
        return self._others[tenant].popleft() if self._others[tenant] else None


def _order_of(ctx: WakeContext, tenant: str) -> list[BulkKey] | None:
    try:
        return ctx.bulk_operations.turns(tenant, None)
    except Unavailable as exc:  # the next run reads it
        ctx.log("bulk_operations_not_read", tenant=tenant, error=exc)
        return None


def _without(keys: Sequence[BulkKey], order: Iterable[BulkKey], start: float) -> deque[BulkKey]:
    ordered = {key.id for key in order}
    others = deque(key for key in keys if key.id not in ordered)
    others.rotate(-int(start * len(others)))
    return others


def wake_stalled_bulk_operations(ctx: WakeContext, until: Ms) -> int:
    """Wake the operations that have not moved for `STALLED_MS`, until `until`.

    Errors are logged and never raised; the next run wakes what this one could not.

    Returns:
        How many were woken.
    """
    candidates, woken = _Candidates(ctx, _read_keys(ctx, until)), 0
    while ctx.clock.now() < until and (keys := candidates.draw(LOADED_AT_ONCE)):
        loaded = _load(ctx, keys)
        if loaded is None:
            continue
        for key in keys:
            if candidates.uses_turn(key) and not _runs(loaded.get(key.id), ctx.clock.now()):
                _remove_turn(ctx, key)
                candidates.free_turn(key)
        stalled = [bulk for bulk in loaded.values() if _is_stalled(bulk, ctx.clock.now())]
        woken += sum(ctx.parallel_map(partial(_wake, ctx), stalled))
    if woken:
        ctx.log("bulk_operations_woken", woken=woken)
    return woken


def _read_keys(ctx: WakeContext, until: Ms) -> list[BulkKey]:
    """Return the names of all unfinished operations, as far as there is time to read them."""
    found: list[BulkKey] = []
    after: str | None = None
    read_until = ctx.clock.now() + READ_SHARE * (until - ctx.clock.now())
    try:
        while ctx.clock.now() < read_until:
            page, after = ctx.bulk_operations.unfinished(after, READ_SIZE)
            found += page
            if after is None:
                break
    except Unavailable as exc:  # those that were read are woken; the next run reads the others
        ctx.log("bulk_operations_not_read", error=exc)
    return found


def _load(ctx: WakeContext, keys: Sequence[BulkKey]) -> Mapping[str, BulkOperation] | None:
    try:
        return {bulk.id: bulk for bulk in ctx.bulk_operations.load_unfinished(keys, ctx.clock.now())}
    except Unavailable as exc:  # the next run loads them
        ctx.log("bulk_operations_not_read", error=exc)
        return None


def _runs(bulk: BulkOperation | None, now: Ms) -> bool:
    """Whether an operation needs its turn: it has not ended, can be read, and is not put off."""
    return bulk is not None and bulk.locked_until <= now + LOCK_MS


def _is_stalled(bulk: BulkOperation, now: Ms) -> bool:
    return max(bulk.updated_at + STALLED_MS, bulk.locked_until) <= now


def _remove_turn(ctx: WakeContext, key: BulkKey) -> None:
    """Let others have the turn of an operation whose process died before it gave it up, or that is not readable."""
    try:
        ctx.bulk_operations.give_up_turn(key)
    except Unavailable as exc:
        ctx.log("bulk_operations_not_read", bulk_id=key.id, tenant=key.tenant, error=exc)


def _wake(ctx: WakeContext, bulk: BulkOperation) -> bool:
    try:
        return request_turn(ctx, bulk)
    except Exception as exc:  # noqa: BLE001 - one operation must not stop the others
        ctx.log("bulk_operation_not_woken", bulk_id=bulk.id, tenant=bulk.tenant, error=exc)
        return False
