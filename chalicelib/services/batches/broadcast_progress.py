"""Tell those who watch a batch how it stands and which rows have ended.

The record is the truth: what is told is at most late. So nothing here fails, and nothing takes long: whoever misses something is told more
with the next change, or asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from chalicelib.domain.batches import frames as batch_frames
from chalicelib.domain.batches.batch import Batch
from chalicelib.domain.batches.counters import BatchCounts
from chalicelib.domain.errors import ConnectionBusy, ConnectionGone
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.streaming.frames import Frame
from chalicelib.domain.streaming.subscriptions import Subscription
from chalicelib.domain.units import Ms
from chalicelib.services.batches.context import BatchContext
from chalicelib.services.streaming.subscriptions import send_frame

TIME_BUDGET_MS = 5_000  # of whoever tells, all batches together; a post that hangs takes four seconds beyond it
MAX_ROW_FRAMES = 50  # rows of one batch that are told one by one, of those that ended together; the others are only counted


def broadcast_batch_progress(ctx: BatchContext, batch: Batch, counts: BatchCounts, until: Ms, ended: Sequence[Job] = ()) -> None:
    """How the batch stands, then the rows that have `ended`. Never raises."""
    now = ctx.clock.now()
    if now >= until:
        ctx.log("batch_broadcast_skipped", batch_id=batch.id, tenant=batch.tenant)
        return
    try:
        watchers = [watcher for watcher in ctx.subscriptions.for_job(batch.id) if watcher.expires_at > now]
        if watchers:
            frames = _frames(batch, counts, ended, now)
            ctx.parallel_map(partial(_tell, ctx, batch, frames, until), watchers)
    except Exception as exc:  # noqa: BLE001 - what is counted is counted, and an end is an end, whoever hears of it
        ctx.log("batch_broadcast_skipped", batch_id=batch.id, tenant=batch.tenant, error=exc)


def _frames(batch: Batch, counts: BatchCounts, ended: Sequence[Job], now: Ms) -> list[Frame]:
    told = sorted(ended, key=lambda job: job.id)[:MAX_ROW_FRAMES]
    state = {**batch_frames.state(batch, counts, now), "items_left_out": len(ended) - len(told)}
    return [state, *(batch_frames.row_ended(batch, job, now) for job in told)]


def _tell(ctx: BatchContext, batch: Batch, frames: Sequence[Frame], until: Ms, watcher: Subscription) -> None:
    """One of them, if its key may still see the batch."""
    try:
        caller = ctx.caller_by_key_hash(watcher.key_hash)
        if caller is None or not batch.is_visible_to(caller):
            return
        for frame in frames:
            if ctx.clock.now() >= until:
                return
            send_frame(ctx, watcher, frame)
    except (ConnectionGone, ConnectionBusy):
        return  # forgotten, or it asks by itself when it hears nothing
    except Exception as exc:  # noqa: BLE001 - one socket must not stop the others
        ctx.log("batch_broadcast_failed", batch_id=batch.id, tenant=batch.tenant, error=exc)
