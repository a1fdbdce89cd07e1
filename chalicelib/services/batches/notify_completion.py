"""Send word of a batch's end to whom it names."""

from __future__ import annotations

from chalicelib.domain.batches.batch import Batch
from chalicelib.domain.batches.completion_message import batch_completed_message
from chalicelib.domain.batches.counters import BatchCounts
from chalicelib.domain.notifications.recipients import parse_any_recipient
from chalicelib.services.notifications.outbox import NotificationContext, enqueue_deliveries


def notify_batch_completed(ctx: NotificationContext, batch: Batch, counts: BatchCounts) -> None:
    """One message for each run, to each of them once, however often it is done [9].

    Raises:
        Unavailable: some may not have been written to; repeat it.
    """
    enqueue_deliveries(
        ctx, batch.tenant, batch.id, map(parse_any_recipient, batch.notify_targets), batch_completed_message(batch, counts, ctx.api_url)
    )
