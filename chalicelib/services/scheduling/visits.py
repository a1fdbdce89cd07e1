"""The messages that wake a shard of the scheduler.

A shard is served by one loop, is asleep until a time, or is idle. A message says when it counts, so
that messages do not multiply loops: a request for a visit counts unless the shard is served, or went
to sleep after it was sent; a timer only if the shard is still asleep until then; a watch only if the loop that sent it has died.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum

from chalicelib.domain import json_limits
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.queues.causes import BUCKETS, CauseKind, kind_of, shard_of
from chalicelib.domain.queues.lanes import SCHEDULE
from chalicelib.domain.units import Ms
from chalicelib.ports import Shard
from chalicelib.services.scheduling.context import LineContext

SELF_SERVED = CauseKind.SLOTS  # whoever gives a slot back releases the next job of the line
CLOCK_ERROR_MS = 2_000  # by which the clocks of two processes may differ: a loop too many costs less than a visit too few
MAX_DELAY_MS = 900_000  # of a message of SQS


class Call(StrEnum):
    """Why a shard is woken."""

    VISIT = "visit"  # jobs were held, or what they wait for may be over
    TIMER = "timer"  # a shard that is asleep may start jobs now
    WATCH = "watch"  # a loop looks after itself


@dataclass(frozen=True, slots=True)
class ShardMessage:
    """A message of the queue `schedule`."""

    shard: int
    call: Call = Call.VISIT
    at: Ms = 0  # of a timer: until when the shard is asleep; of a visit: when it was asked for

    def counts(self, shard: Shard | None, now: Ms) -> bool:
        """Whether a loop begins because of it, given who serves the shard."""
        if shard is not None and shard.is_served(now):
            return False
        has_died = shard is not None and shard.has_died(now)
        if self.call is Call.TIMER:
            return has_died or (shard is not None and shard.asleep_until == self.at)
        is_seen = shard is not None and self.at + CLOCK_ERROR_MS <= shard.since  # the loop looked at every line after the message was sent
        return has_died or (self.call is Call.VISIT and not is_seen)

    def to_json(self) -> str:
        return json.dumps({"shard": self.shard, "call": self.call.value, "at": self.at})

    @classmethod
    def from_json(cls, text: str) -> ShardMessage | None:
        """Return the message; None if it is none."""
        try:
            match json_limits.loads(text):
                case {"shard": int(shard), "call": str(call), "at": int(at)} if 0 <= shard < BUCKETS and call in Call.__members__.values():
                    return cls(shard, Call(call), at)
        except ValueError:
            return None
        return None


def ask_for_visit(ctx: LineContext, cause: str) -> None:
    """Let the scheduler look at the line of a cause now, because it may be over.

    If the message cannot be sent, the sweep asks within a minute.
    """
    _try_wake(ctx, shard_of(cause, ctx.scheduler_shards))


def wake_if_idle(ctx: LineContext, cause: str, *, is_new: bool) -> None:
    """Wake the shard that serves a line if nobody serves it. Call it after the job was held.

    The shard ends only after it has released its lease and read the lines once more. So it sees the
    line that was touched before this read, or this read sees that nobody serves it. A shard that is
    asleep knows every line but a new one.
    """
    if kind_of(cause) is SELF_SERVED:
        return
    number = shard_of(cause, ctx.scheduler_shards)
    try:
        shard = ctx.lines.shard(number)
    except Unavailable as exc:
        ctx.log("scheduler_not_woken", shard=number, error=exc)
        return
    now = ctx.clock.now()
    if shard is None or shard.has_died(now) or (shard.asleep_until and (is_new or shard.asleep_until <= now)):
        _try_wake(ctx, number)


def wake_shard(ctx: LineContext, message: ShardMessage, at: Ms = 0) -> None:
    """Send a shard a message that arrives at about `at`, or as late as SQS can delay it.

    Raises:
        Unavailable: it may not have been sent.
    """
    delay = -(-min(MAX_DELAY_MS, max(0, at - ctx.clock.now())) // 1000)
    ctx.queues.send_task(SCHEDULE, message.to_json(), f"shard-{message.shard}", delay)


def _try_wake(ctx: LineContext, number: int) -> None:
    try:
        wake_shard(ctx, ShardMessage(number, at=ctx.clock.now()))
    except Unavailable as exc:
        ctx.log("scheduler_not_woken", shard=number, error=exc)
