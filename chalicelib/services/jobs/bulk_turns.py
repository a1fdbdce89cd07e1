"""Let two bulk operations of a tenant run at once: the others wait for their turn, in the order of their creation.

An operation that goes on after its request asks for a turn: a row in the order of its tenant. The
first two of that order have their turn, and each of these has one message in the queue `tasks`. An
operation that has ended, or is put off, leaves the order and wakes the two that are first then. Who
asks writes the row before it reads the order, and who leaves deletes the row before it reads it, so
one of them sees that there is a turn to take. `wake_bulk_operations` finds what a crash left behind.
"""

from __future__ import annotations

import json
from typing import Protocol

from chalicelib.domain.jobs.bulk_operation import BulkKey, BulkOperation
from chalicelib.domain.queues.lanes import TASKS
from chalicelib.ports import BulkOperations, Queues

ADVANCE_BULK = "advance_bulk_operation"  # the `task` in a message that advances a bulk operation
AT_ONCE = 2  # operations of a tenant


class TurnContext(Protocol):
    """What giving turns needs."""

    @property
    def bulk_operations(self) -> BulkOperations: ...
    @property
    def queues(self) -> Queues: ...


def request_turn(ctx: TurnContext, bulk: BulkOperation) -> bool:
    """Ask for a turn of an operation, and send its message if it has one now. Safe to repeat.

    Returns:
        Whether it has its turn.

    Raises:
        Unavailable: the message may not have been sent.
    """
    ctx.bulk_operations.request_turn(BulkKey(bulk.tenant, bulk.id, bulk.created_at))
    if not has_turn(ctx, bulk):
        return False
    send_next(ctx, bulk)
    return True


def has_turn(ctx: TurnContext, bulk: BulkOperation) -> bool:
    """Whether the operation is among the first of its tenant."""
    return bulk.id in {key.id for key in ctx.bulk_operations.turns(bulk.tenant, AT_ONCE)}


def pass_on_turn(ctx: TurnContext, bulk: BulkOperation) -> None:
    """Give up the turn of an operation that has ended or is put off, and wake those that are first then.

    One of these runs already: its second message finds another version of the record, or loses the
    compare-and-swap, and ends.

    Raises:
        Unavailable: another operation may not have been woken.
    """
    ctx.bulk_operations.give_up_turn(BulkKey(bulk.tenant, bulk.id, bulk.created_at))
    for key in ctx.bulk_operations.turns(bulk.tenant, AT_ONCE):
        following = ctx.bulk_operations.get(key.tenant, key.id)
        if following is not None and following.finished_at is None:
            send_next(ctx, following)


def send_next(ctx: TurnContext, bulk: BulkOperation, delay: int = 0) -> None:
    """Send the message that advances this operation from where it is now, after `delay` seconds.

    It names the version of the record, so that two messages never advance one operation in turns.

    Raises:
        Unavailable: the message may not have been sent.
    """
    message = {"task": ADVANCE_BULK, "tenant": bulk.tenant, "bulk_id": bulk.id, "version": bulk.version}
    ctx.queues.send_task(TASKS, json.dumps(message), bulk.tenant, delay)
