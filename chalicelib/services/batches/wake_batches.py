"""Send tasks for the open batches that no caller advances: the part of a schedule of its own.

Runs every minute through all open batches, page by page. Concurrent runs are safe: a second task
for a batch finds nothing to do.
"""

from __future__ import annotations

from functools import partial

from chalicelib.domain.batches import batch as batch_rules
from chalicelib.domain.batches.batch import Batch
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.units import Ms
from chalicelib.services.batches.context import BatchContext, enqueue_advance

READ_SIZE = 100  # batches that are read together


def wake_stalled_batches(ctx: BatchContext, until: Ms) -> int:
    """Enqueue the open batches that have to be woken now, until `until`. Return how many.

    Errors are logged and never raised; the next run enqueues what this one could not.
    """
    woken, after = 0, None
    while ctx.clock.now() < until:
        try:
            batches, after = ctx.batches.stalled(ctx.clock.now(), after, READ_SIZE)
        except Unavailable as exc:
            ctx.log("stalled_batches_not_enqueued", error=exc)
            break
        to_wake = [batch for batch in batches if batch_rules.is_to_be_woken(batch, ctx.clock.now())]
        woken += sum(ctx.parallel_map(partial(_wake, ctx), to_wake))
        if after is None:
            break
    if woken:
        ctx.log("batches_woken", woken=woken)
    return woken


def _wake(ctx: BatchContext, batch: Batch) -> bool:
    try:
        enqueue_advance(ctx.queues, batch)
    except Exception as exc:  # noqa: BLE001 - one batch must not stop the others
        ctx.log("stalled_batches_not_enqueued", batch_id=batch.id, tenant=batch.tenant, error=exc)
        return False
    return True
