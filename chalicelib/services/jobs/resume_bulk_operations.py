"""Resume unfinished bulk operations: the part of a schedule of its own, every minute.

All unfinished operations take turns of one page, several at a time, the one that has waited longest
first. So a long one, or one whose pages fail, holds up no other. Concurrent runs are safe: a page
is saved by compare-and-swap, and an operation that was just advanced is locked for half a minute.
"""

from __future__ import annotations

from functools import partial
from typing import Protocol

from chalicelib.domain.errors import StaleVersion, Unavailable
from chalicelib.domain.jobs import bulk_operation as bulk_rules
from chalicelib.domain.jobs.bulk_operation import BulkOperation
from chalicelib.domain.units import Ms
from chalicelib.ports import ParallelMap
from chalicelib.services.jobs.bulk_operations import BulkContext, process_page

READ_SIZE = 100  # operations that are read together
ERROR_BACKOFF_MS = 600_000  # pause of an operation after an unforeseen error


class ResumeContext(BulkContext, Protocol):
    """What resuming bulk operations needs."""

    @property
    def parallel_map(self) -> ParallelMap: ...


def resume_unfinished(ctx: ResumeContext, until: Ms) -> int:
    """Advance the unfinished bulk operations, page by page in turn, until `until`.

    Errors are logged and never raised.

    Returns:
        How many operations were found.
    """
    found = _read_unfinished(ctx, until)
    waiting = sorted(found, key=lambda bulk: (bulk.updated_at, bulk.id))
    while waiting and ctx.clock.now() < until:
        advanced = ctx.parallel_map(partial(_take_turn, ctx, until), waiting)
        waiting = [bulk for bulk in advanced if bulk is not None]
    return len(found)


def _read_unfinished(ctx: ResumeContext, until: Ms) -> list[BulkOperation]:
    """Return all operations that no caller processes now."""
    found: list[BulkOperation] = []
    after: str | None = None
    try:
        while ctx.clock.now() < until:
            page, after = ctx.bulk_operations.unfinished(ctx.clock.now(), after, READ_SIZE)
            found += page
            if after is None:
                break
    except Unavailable as exc:  # those that were read take their turns; the next run reads the others
        ctx.log("bulk_operations_not_read", error=exc)
    return found


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
