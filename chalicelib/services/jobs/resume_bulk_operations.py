"""Resume unfinished bulk operations: the part of a schedule of its own, every minute.

First their names are read, which are small. Then tenants take turns, and within a tenant its
operations: each turn is one page of jobs. A few operations are loaded at a time, because one with a
thousand ids is 90 KB in memory. The first tenant and the first operation of each are drawn by lot, so
that runs without enough time for all of them reach each in the end, and a tenant with very many, a
long operation, or one whose pages fail holds up no other.

Concurrent runs are safe: a page is saved by compare-and-swap, and an operation that was just advanced
is locked for half a minute.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Protocol

from chalicelib.domain.errors import StaleVersion, Unavailable
from chalicelib.domain.jobs import bulk_operation as bulk_rules
from chalicelib.domain.jobs.bulk_operation import BulkKey, BulkOperation
from chalicelib.domain.units import Ms
from chalicelib.ports import ParallelMap
from chalicelib.services.jobs.bulk_operations import BulkContext, process_page

READ_SIZE = 1_000  # names that are read together
READ_SHARE = 0.25  # of the time, to read names; those beyond it wait until older operations have finished
LOADED_AT_ONCE = 24  # operations in memory: three for each thread of the map
ERROR_BACKOFF_MS = 600_000  # pause of an operation after an unforeseen error


class ResumeContext(BulkContext, Protocol):
    """What resuming bulk operations needs. `random` returns a number in [0, 1)."""

    @property
    def parallel_map(self) -> ParallelMap: ...
    def random(self) -> float: ...


class _Turns:
    """Whose turn it is: tenant after tenant, and operation after operation of a tenant."""

    def __init__(self, ctx: ResumeContext, keys: Iterable[BulkKey]) -> None:
        self._waiting: defaultdict[str, deque[BulkKey]] = defaultdict(deque)
        for key in keys:
            self._waiting[key.tenant].append(key)
        self._tenants = deque(self._waiting)
        self._tenants.rotate(-int(ctx.random() * len(self._tenants)))
        for waiting in self._waiting.values():
            waiting.rotate(-int(ctx.random() * len(waiting)))

    def draw(self, number: int) -> list[BulkKey]:
        """Remove and return the next ones, at most `number`."""
        drawn: list[BulkKey] = []
        while self._tenants and len(drawn) < number:
            tenant = self._tenants.popleft()
            drawn.append(self._waiting[tenant].popleft())
            if self._waiting[tenant]:
                self._tenants.append(tenant)
        return drawn

    def put_back(self, key: BulkKey) -> None:
        """Add a drawn one as the last of its tenant."""
        if not self._waiting[key.tenant]:
            self._tenants.append(key.tenant)
        self._waiting[key.tenant].append(key)


def resume_unfinished(ctx: ResumeContext, until: Ms) -> int:
    """Advance the unfinished bulk operations, page by page in turn, until `until`.

    Errors are logged and never raised.

    Returns:
        How many operations had a turn.
    """
    turns = _Turns(ctx, _read_keys(ctx, until))
    versions: dict[str, int] = {}  # by id: as this run has stored them; their locks are its own
    while ctx.clock.now() < until and (keys := turns.draw(LOADED_AT_ONCE)):
        loaded = _load(ctx, keys)
        free = [bulk for bulk in loaded if bulk.locked_until <= ctx.clock.now() or versions.get(bulk.id) == bulk.version]
        versions |= {bulk.id: bulk.version for bulk in free}
        unfinished = {bulk.id: bulk for bulk in ctx.parallel_map(partial(_take_turn, ctx, until), free) if bulk is not None}
        versions |= {bulk_id: bulk.version for bulk_id, bulk in unfinished.items()}
        for key in keys:
            if key.id in unfinished:
                turns.put_back(key)
    return len(versions)


def _read_keys(ctx: ResumeContext, until: Ms) -> list[BulkKey]:
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
    except Unavailable as exc:  # those that were read take their turns; the next run reads the others
        ctx.log("bulk_operations_not_read", error=exc)
    return found


def _load(ctx: ResumeContext, keys: Sequence[BulkKey]) -> list[BulkOperation]:
    try:
        return ctx.bulk_operations.load_unfinished(keys, ctx.clock.now())
    except Unavailable as exc:  # the next run loads them
        ctx.log("bulk_operations_not_read", error=exc)
        return []


def _take_turn(ctx: ResumeContext, until: Ms, bulk: BulkOperation) -> BulkOperation | None:
    """Process one page. None: the operation has no other turn in this run."""
    if ctx.clock.now() >= until:
        return None
    try:
        new = process_page(ctx, bulk)
    except StaleVersion:  # another caller processes it
        return None
    except Unavailable as exc:  # the next run repeats the page
        ctx.log("bulk_operation_deferred", bulk_id=bulk.id, tenant=bulk.tenant, error=exc)
        return None
    except Exception as exc:  # noqa: BLE001 - one broken operation must not stop the others
        ctx.log("bulk_operation_failed", bulk_id=bulk.id, tenant=bulk.tenant, error=exc)
        _postpone(ctx, bulk)
        return None
    return new if new.finished_at is None else None


def _postpone(ctx: ResumeContext, bulk: BulkOperation) -> None:
    now = ctx.clock.now()
    try:
        ctx.bulk_operations.replace(bulk, bulk_rules.postpone(bulk, now + ERROR_BACKOFF_MS, now))
    except Exception as exc:  # noqa: BLE001 - another caller processes it, or the next run finds it as it is
        ctx.log("bulk_operation_not_postponed", bulk_id=bulk.id, tenant=bulk.tenant, error=exc)
