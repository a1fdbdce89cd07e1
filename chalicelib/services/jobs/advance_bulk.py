"""Advance a bulk operation by one message: some pages of jobs, then the message for the next ones.

A message takes `TURN_MS` and `TURN_JOBS` at most, whatever the operation has left, and the queue
gives the tenants their turns: so a million deletions of one tenant delay those of another by one
message. Where an operation is, is in its record, which names its next page; the message names the
version of the record that it continues, so a message that comes twice ends.
"""

from __future__ import annotations

from chalicelib.domain.errors import StaleVersion, Unavailable
from chalicelib.domain.jobs import bulk_operation as bulk_rules
from chalicelib.domain.jobs.bulk_operation import BulkOperation
from chalicelib.domain.units import Ms
from chalicelib.services.jobs.bulk_operations import TURN_MS, BulkContext, run_pages
from chalicelib.services.jobs.bulk_turns import has_turn, pass_on_turn, send_next

TURN_JOBS = 500  # of one message
RETRY_SECONDS = 30  # delay of the next message after a store did not answer
ERROR_BACKOFF_MS = 600_000  # pause of an operation after an unforeseen error


def advance_bulk(ctx: BulkContext, tenant: str, bulk_id: str, version: int, until: Ms) -> None:
    """Process the next pages of an operation that has its turn; then wake it again, or those that follow it.

    Does nothing if the record has another version: then another caller has advanced it. One that
    has lost its turn to an older operation waits until that passes it on.

    Raises:
        Unavailable: the operation was not read.
        UnreadableRecord: another version of the code wrote it.
    """
    bulk = ctx.bulk_operations.get(tenant, bulk_id)
    if bulk is None or bulk.version != version or bulk.finished_at is not None or not has_turn(ctx, bulk):
        return
    delay = 0
    try:
        for saved in run_pages(ctx, bulk, min(until, ctx.clock.now() + TURN_MS), TURN_JOBS):
            bulk = saved
    except StaleVersion:  # another caller advances it
        return
    except Unavailable as exc:
        ctx.log("bulk_operation_deferred", bulk_id=bulk.id, tenant=tenant, error=exc)
        delay = RETRY_SECONDS
    except Exception as exc:  # noqa: BLE001 - otherwise its messages end as dead letters
        ctx.log("bulk_operation_failed", bulk_id=bulk.id, tenant=tenant, error=exc)
        _postpone(ctx, bulk)
        return
    _continue(ctx, bulk, delay)


def _continue(ctx: BulkContext, bulk: BulkOperation, delay: int = 0) -> None:
    """Send the next message, or pass on the turn. What is not sent is sent by the schedule, after some minutes."""
    try:
        if bulk.finished_at is None:
            send_next(ctx, bulk, delay)
        else:
            pass_on_turn(ctx, bulk)
    except Unavailable as exc:
        ctx.log("bulk_operation_not_woken", bulk_id=bulk.id, tenant=bulk.tenant, error=exc)


def _postpone(ctx: BulkContext, bulk: BulkOperation) -> None:
    """Leave an operation alone for some minutes, and let others have its turn."""
    now = ctx.clock.now()
    try:
        ctx.bulk_operations.replace(bulk, bulk_rules.postpone(bulk, now + ERROR_BACKOFF_MS, now))
        pass_on_turn(ctx, bulk)
    except Exception as exc:  # noqa: BLE001 - another caller advances it, or the schedule finds it as it is
        ctx.log("bulk_operation_not_postponed", bulk_id=bulk.id, tenant=bulk.tenant, error=exc)
