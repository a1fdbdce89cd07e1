"""Send tasks for the open batches that no caller advances: the part of a schedule of its own.

Runs every minute through all open batches, page by page. It begins anywhere and ends there, so that
runs without enough time for all of them reach each in the end. Concurrent runs are safe: a second
task for a batch finds nothing to do.
"""

from __future__ import annotations

from functools import partial

from chalicelib.domain.batches import batch as batch_rules
from chalicelib.domain.batches.batch import Batch
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.ids import time_digits
from chalicelib.domain.units import DAY_MS, Ms
from chalicelib.services.batches.context import BatchContext, enqueue_advance

MAX_AGE_MS = 60 * DAY_MS  # of a batch that is still released
READ_SIZE = 100  # batches that are read together


def wake_stalled_batches(ctx: BatchContext, until: Ms) -> int:
    """Enqueue the open batches that have to be woken now, until `until`. Return how many.

    Errors are logged and never raised; the next run enqueues what this one could not.
    """
    start = f"batch_{time_digits(ctx.clock.now() - round(ctx.random() * MAX_AGE_MS))}"
    woken = _wake_between(ctx, until, start, None) + _wake_between(ctx, until, None, start)
    if woken:
        ctx.log("batches_woken", woken=woken)
    return woken


def _wake_between(ctx: BatchContext, until: Ms, after: str | None, before: str | None) -> int:
    """Wake batches whose ids lie between `after` and `before`."""
    woken = 0
    while ctx.clock.now() < until:
        try:
            batches, after = ctx.batches.stalled(ctx.clock.now(), after, READ_SIZE)
        except Unavailable as exc:
            ctx.log("stalled_batches_not_enqueued", error=exc)
            break
        within = [batch for batch in batches if before is None or batch.id < before]
        to_wake = [batch for batch in within if batch_rules.is_to_be_woken(batch, ctx.clock.now())]
        woken += sum(ctx.parallel_map(partial(_wake, ctx), to_wake))
        if after is None or (before is not None and after >= before):
            break
    return woken


def _wake(ctx: BatchContext, batch: Batch) -> bool:
    try:
        enqueue_advance(ctx.queues, batch)
    except Exception as exc:  # noqa: BLE001 - one batch must not stop the others
        ctx.log("stalled_batches_not_enqueued", batch_id=batch.id, tenant=batch.tenant, error=exc)
        return False
    return True
