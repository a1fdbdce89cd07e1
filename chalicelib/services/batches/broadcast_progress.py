"""Broadcast the progress of a batch to its subscribers.

Nothing here raises or takes long: a subscriber that misses a frame gets the next one, or reads the
batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from chalicelib.domain.batches import frames as batch_frames
from chalicelib.domain.batches.batch import Batch
from chalicelib.domain.batches.counters import BatchCounts
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.streaming.frames import Frame
from chalicelib.domain.streaming.subscriptions import Subscription
from chalicelib.domain.units import Ms
from chalicelib.services.batches.context import BatchContext
from chalicelib.services.streaming.broadcast_states import send_frames

TIME_BUDGET_MS = 5_000  # of a caller, for all its batches; a send that hangs takes up to 4 s more
MAX_ROW_FRAMES = 50  # ended rows of one broadcast that get a frame; the others are only counted


def broadcast_batch_progress(ctx: BatchContext, batch: Batch, counts: BatchCounts, until: Ms, ended: Sequence[Job] = ()) -> None:
    """Send each subscriber the state of the batch, then the rows that have `ended`. Never raises.

    Args:
        until: send nothing after this.
    """
    now = ctx.clock.now()
    if now >= until:
        ctx.log("batch_broadcast_skipped", batch_id=batch.id, tenant=batch.tenant)
        return
    try:
        subscriptions = [one for one in ctx.subscriptions.for_job(batch.id) if one.expires_at > now]
        if subscriptions:
            frames = _frames(batch, counts, ended, now)
            ctx.parallel_map(partial(_send_frames, ctx, batch, frames, until), subscriptions)
    except Exception as exc:  # noqa: BLE001 - it must not stop the counting or the completion
        ctx.log("batch_broadcast_skipped", batch_id=batch.id, tenant=batch.tenant, error=exc)


def _frames(batch: Batch, counts: BatchCounts, ended: Sequence[Job], now: Ms) -> list[Frame]:
    shown = sorted(ended, key=lambda job: job.id)[:MAX_ROW_FRAMES]
    state = {**batch_frames.state(batch, counts, now), "items_left_out": len(ended) - len(shown)}
    return [state, *(batch_frames.row_ended(batch, job, now) for job in shown)]


def _send_frames(ctx: BatchContext, batch: Batch, frames: Sequence[Frame], until: Ms, subscription: Subscription) -> None:
    """Send the frames to one subscriber, if its API key may still see the batch."""
    try:
        send_frames(ctx, subscription, frames, until, batch.is_visible_to)
    except Exception as exc:  # noqa: BLE001 - an error of one socket must not stop the others
        ctx.log("batch_broadcast_failed", batch_id=batch.id, tenant=batch.tenant, error=exc)
