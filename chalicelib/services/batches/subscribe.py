"""Watch a batch over a WebSocket."""

from __future__ import annotations

from chalicelib.domain.batches import frames as batch_frames
from chalicelib.domain.batches.counters import BatchCounts, counter_key
from chalicelib.domain.streaming.subscriptions import Connection
from chalicelib.ports import Batches, Counters
from chalicelib.services.batches.manage_batch import get_batch
from chalicelib.services.streaming.subscriptions import StreamingContext, add_subscription, send_frame


def subscribe_to_batch(
    ctx: StreamingContext,
    batches: Batches,
    ledger: Counters,
    connection: Connection,
    batch_id: str,
    tenant: str | None,
    reply_to: str | None,
) -> None:
    """Let the connection hear of a batch from now on, beginning with how it stands.

    The row is written before the record is read, as for a job [14]: what is counted later finds the row, what was counted before is read.

    Raises:
        BatchNotFound: as for reading it.
        InvalidRequest: the connection has as many subscriptions as it may.
    """
    get_batch(batches, connection.caller, batch_id, tenant)
    watcher = add_subscription(ctx, connection, batch_id)
    batch = get_batch(batches, connection.caller, batch_id, tenant)
    where, now = counter_key(batch_id), ctx.clock.now()
    counts = BatchCounts.of(ledger.get([where]).get(where, {}))
    more = {"reply_to": reply_to} if reply_to is not None else {}
    send_frame(ctx, watcher, {**batch_frames.connected(batch, counts, now), **more})
    if batch.finished_at is not None:
        send_frame(ctx, watcher, batch_frames.state(batch, counts, now))
