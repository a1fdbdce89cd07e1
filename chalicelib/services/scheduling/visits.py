"""Ask the scheduler to look at the line of a cause."""

from __future__ import annotations

import json

from chalicelib.domain import json_limits
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.queues.causes import BUCKETS, CauseKind, kind_of, shard_of
from chalicelib.domain.queues.lanes import SCHEDULE
from chalicelib.domain.units import Ms
from chalicelib.services.scheduling.context import LineContext

SELF_SERVED = CauseKind.SLOTS  # whoever gives a slot back releases the next job of the line


def ask_for_visit(ctx: LineContext, cause: str) -> None:
    """Let the scheduler look at the line of a cause now, because it may be over.

    If the message cannot be sent, the sweep asks within a minute.
    """
    _send(ctx, shard_of(cause, ctx.scheduler_shards))


def wake_if_idle(ctx: LineContext, cause: str) -> None:
    """Wake the shard that serves a line if nobody serves it. Call it after the job was held.

    The shard ends only after it has released its lease and read the lines once more. So it sees the
    line that was touched before this read, or this read sees that nobody serves it.
    """
    if kind_of(cause) is SELF_SERVED:
        return
    number = shard_of(cause, ctx.scheduler_shards)
    try:
        shard = ctx.lines.shard(number)
    except Unavailable as exc:
        ctx.log("scheduler_not_woken", shard=number, error=exc)
        return
    if shard is None or shard.until <= ctx.clock.now():
        _send(ctx, number)


def wake_shard(ctx: LineContext, number: int, at: Ms) -> None:
    """Send a shard a message that arrives at about `at`; SQS delays it by at most 15 minutes.

    Raises:
        Unavailable: it may not have been sent.
    """
    delay = min(900, max(0, -(-(at - ctx.clock.now()) // 1000)))
    ctx.queues.send_task(SCHEDULE, json.dumps({"shard": number}), f"shard-{number}", delay)


def shard_in(body: str) -> int | None:
    """Return the shard that a message of the queue `schedule` names; None if it names none."""
    try:
        message = json_limits.loads(body)
    except ValueError:
        return None
    number = message.get("shard") if isinstance(message, dict) else None
    return number if isinstance(number, int) and not isinstance(number, bool) and 0 <= number < BUCKETS else None


def _send(ctx: LineContext, number: int) -> None:
    try:
        wake_shard(ctx, number, ctx.clock.now())
    except Unavailable as exc:
        ctx.log("scheduler_not_woken", shard=number, error=exc)
