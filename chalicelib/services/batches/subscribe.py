"""Subscribe a WebSocket connection to a batch."""

from __future__ import annotations

from chalicelib.domain.batches import frames as batch_frames
from chalicelib.domain.streaming.subscriptions import Connection
from chalicelib.services.batches.context import BatchContext, load_counts
from chalicelib.services.batches.manage_batch import get_batch
from chalicelib.services.streaming.subscriptions import add_subscription, send_frame


def subscribe_to_batch(ctx: BatchContext, connection: Connection, batch_id: str, tenant: str | None, reply_to: str | None) -> None:
    """Subscribe the connection to a batch, and send it the current state.

    The subscription is written before the counts are read, so that no change falls between the two
    (protocol rule 14: write first, then read).

    Args:
        reply_to: the id of the client's message, for the first frame.

    Raises:
        BatchNotFound: there is no such batch for the caller.
        InvalidRequest: the connection has the maximum number of subscriptions.
        TooManyWatchers: the batch has the maximum number of live subscribers.
    """
    get_batch(ctx.batches, connection.caller, batch_id, tenant)
    subscription, _ = add_subscription(ctx, connection, batch_id)
    batch = get_batch(ctx.batches, connection.caller, batch_id, tenant)
    now, counts = ctx.clock.now(), load_counts(ctx, batch_id)
    reply = {"reply_to": reply_to} if reply_to is not None else {}
    send_frame(ctx, subscription, {**batch_frames.connected(batch, counts, now), **reply})
    if batch.finished_at is not None:
        send_frame(ctx, subscription, batch_frames.state(batch, counts, now))
