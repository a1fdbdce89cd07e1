"""Notify the recipients of a batch that it has ended."""

from __future__ import annotations

from chalicelib.domain.batches.batch import Batch
from chalicelib.domain.batches.completion_message import batch_completed_message
from chalicelib.domain.batches.counters import BatchCounts
from chalicelib.domain.notifications.recipients import parse_any_recipient
from chalicelib.services.notifications.outbox import NotificationContext, enqueue_deliveries


def notify_batch_completed(ctx: NotificationContext, batch: Batch, counts: BatchCounts) -> None:
    """Enqueue one delivery per run and recipient. Idempotent. Call it after the end is written
    (protocol rule 9: no frame before the write).

    Raises:
        Unavailable: some deliveries may not have been enqueued; repeat it.
    """
    enqueue_deliveries(
        ctx, batch.tenant, batch.id, map(parse_any_recipient, batch.notify_targets), batch_completed_message(batch, counts, ctx.api_url)
    )
