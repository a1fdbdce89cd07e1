"""Tell those who watch a batch how it stands and which rows have ended.

The record is the truth: what is told is at most late. So nothing here fails, and nothing takes long: whoever misses something is told more
with the next change, or asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from chalicelib.domain import batch_frames
from chalicelib.domain.batch import Batch
from chalicelib.domain.batch_counts import Counts
from chalicelib.domain.errors import ConnectionBusy, ConnectionGone
from chalicelib.domain.frames import Frame
from chalicelib.domain.job import Job, Ms
from chalicelib.domain.watching import Watcher
from chalicelib.usecases.clerk import Clerk
from chalicelib.usecases.watch_job import post

PATIENCE_MS = 5_000  # of whoever tells, all batches together; a post that hangs takes four seconds beyond it
MOST_ITEMS = 50  # rows of one batch that are told one by one, of those that ended together; the others are only counted


def tell_of_batch(clerk: Clerk, batch: Batch, counts: Counts, until: Ms, ended: Sequence[Job] = ()) -> None:
    """How the batch stands, then the rows that have `ended`. Never raises."""
    now = clerk.clock.now()
    if now >= until:
        clerk.log("watchers of a batch were not told", batch_id=batch.id, tenant=batch.tenant)
        return
    try:
        watchers = [watcher for watcher in clerk.streaming.subscriptions.for_job(batch.id) if watcher.expires_at > now]
        if watchers:
            frames = _frames(batch, counts, ended, now)
            clerk.parallel_map(partial(_tell, clerk, batch, frames, until), watchers)
    except Exception as exc:  # noqa: BLE001 - what is counted is counted, and an end is an end, whoever hears of it
        clerk.log("watchers of a batch were not told", batch_id=batch.id, tenant=batch.tenant, error=exc)


def _frames(batch: Batch, counts: Counts, ended: Sequence[Job], now: Ms) -> list[Frame]:
    told = sorted(ended, key=lambda job: job.id)[:MOST_ITEMS]
    state = {**batch_frames.state(batch, counts, now), "items_left_out": len(ended) - len(told)}
    return [state, *(batch_frames.item(batch, job, now) for job in told)]


def _tell(clerk: Clerk, batch: Batch, frames: Sequence[Frame], until: Ms, watcher: Watcher) -> None:
    """One of them, if its key may still see the batch."""
    try:
        caller = clerk.streaming.caller_by_key_hash(watcher.key_hash)
        if caller is None or not batch.is_visible_to(caller):
            return
        for frame in frames:
            if clerk.clock.now() >= until:
                return
            post(clerk.streaming, watcher, frame)
    except (ConnectionGone, ConnectionBusy):
        return  # forgotten, or it asks by itself when it hears nothing
    except Exception as exc:  # noqa: BLE001 - one socket must not stop the others
        clerk.log("a watcher of a batch was not told", batch_id=batch.id, tenant=batch.tenant, error=exc)
