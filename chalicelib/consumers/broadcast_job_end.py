"""Broadcast job states to WebSocket subscribers from the change stream.

The worker that wrote a state may die before it broadcasts it (protocol rule 14: write first, then
read), and no worker broadcasts what the API or the sweeper wrote. Nothing here is repeated: a
client that misses a frame subscribes again after a silence, and the record is read then (protocol
rule 13: silence makes the client subscribe again).
"""

from __future__ import annotations

from collections.abc import Iterable

from chalicelib.consumers.change_loop import Change
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.services.streaming.broadcast_states import BroadcastContext, broadcast_states

TIME_BUDGET_MS = 10_000  # per batch, hanging sockets included; a read that hangs at its end takes 15 s more


def broadcast_job_ends(ctx: BroadcastContext, changes: Iterable[Change]) -> None:
    """Broadcast each change of status, and each new resume time, reason or cause of a held job.

    Never raises: what is not sent in time is logged and left.
    """
    states = [after for _, before, after in changes if after is not None and _is_news(before, after)]
    broadcast_states(ctx, states, ctx.clock.now() + TIME_BUDGET_MS)


def _is_news(before: Job | None, after: Job) -> bool:
    return before is None or before.status is not after.status or _is_rescheduled(before, after)


def _is_rescheduled(before: Job, after: Job) -> bool:
    return after.status is Status.HELD and (before.resume_at, before.reason, before.cause) != (after.resume_at, after.reason, after.cause)
