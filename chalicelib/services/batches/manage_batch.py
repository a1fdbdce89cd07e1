"""Read, list, cancel and retry batches, and rebuild their counters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from chalicelib.domain.auth.identity import Caller, Role
from chalicelib.domain.batches import batch as batch_rules
from chalicelib.domain.batches.batch import Batch
from chalicelib.domain.batches.counters import COUNTS, BatchCounts, counter_partition, failed_rows
from chalicelib.domain.errors import BatchNotFound, BatchNotRetryable, Forbidden, Unavailable
from chalicelib.domain.ids import checked_batch_id, job_id_of_row
from chalicelib.ports import Batches
from chalicelib.services.batches.advance_batch import advance_batch, announce_completion
from chalicelib.services.batches.context import BatchContext, enqueue_advance, load_counts
from chalicelib.services.batches.recount import rebuild_counters
from chalicelib.services.compare_and_swap import update
from chalicelib.services.idempotency import IdempotentRequest

INLINE_BUDGET_MS = 5_000  # how long a request advances a batch itself
MAX_COUNTERS = 50  # items of a view: the counts, and the failures of each 250 rows


@dataclass(frozen=True, slots=True)
class BatchView:
    """A batch with its counts."""

    batch: Batch
    counts: BatchCounts
    failed: tuple[str, ...] = ()  # job ids of the first failed rows

    @property
    def etag(self) -> str:
        return f'"v{self.batch.version}.{self.counts.version}"'


def get_batch(batches: Batches, caller: Caller, batch_id: str, tenant: str | None = None) -> Batch:
    """Return a batch, if the caller may see it: users see their own, other roles their tenant's.

    Raises:
        BatchNotFound: there is no such batch for the caller.
    """
    checked_batch_id(batch_id)
    found = batches.get(tenant if tenant and caller.all_tenants else caller.tenant, batch_id)
    if found is None or not found.is_visible_to(caller):
        raise BatchNotFound
    return found


def view_batch(ctx: BatchContext, batch: Batch) -> BatchView:
    """Return the batch with its counts and its first failed rows. It sends one request."""
    counters = ctx.counters.query(counter_partition(batch.id), MAX_COUNTERS)
    failed = tuple(job_id_of_row(batch.id, row) for row in failed_rows(counters))
    return BatchView(batch, BatchCounts.of(counters.get(COUNTS, {})), failed)


def list_batches(
    ctx: BatchContext, caller: Caller, tenant: str | None, before: str | None, limit: int
) -> tuple[list[BatchView], str | None]:
    """Return a page of batches, newest first.

    A user's page may be short, because it leaves out the batches of other users.

    Returns:
        The batches, and `before` of the next page; None: this is the last one.

    Raises:
        Forbidden: the caller's key does not cover the requested tenant.
    """
    listed_tenant = tenant or caller.tenant
    if listed_tenant != caller.tenant and not caller.all_tenants:
        raise Forbidden(f"This key lists the batches of {caller.tenant} only.")
    found, following = ctx.batches.page(listed_tenant, before, limit)
    visible = [batch for batch in found if caller.role != Role.USER or batch.user == caller.user]
    numbers = ctx.counters.get([(counter_partition(batch.id), COUNTS) for batch in visible]) if visible else {}
    return [BatchView(batch, BatchCounts.of(numbers.get((counter_partition(batch.id), COUNTS), {}))) for batch in visible], following


def cancel_batch(ctx: BatchContext, batch: Batch) -> Batch:
    """Cancel the batch: release no more rows, and cancel the unfinished ones.

    The request cancels as many as it can; tasks cancel the rest.
    """
    ids = f"bulk_{ctx.new_id()}", f"bulk_{ctx.new_id()}"
    changed = _update(ctx, batch, lambda seen: batch_rules.cancel(seen, ids, ctx.clock.now()))
    return _advance_inline(ctx, changed) if changed is not None else batch


def retry_failed(ctx: BatchContext, batch: Batch, idempotent_request: IdempotentRequest | None, *, cancelled: bool) -> tuple[Batch, bool]:
    """Retry the rows that failed, expired or ended early, and continue to release rows.

    Args:
        cancelled: retry cancelled rows as well.

    Returns:
        The batch, and whether the request had been sent before.

    Raises:
        BatchNotRetryable: see there.
        IdempotencyConflict: the key belongs to another request.
    """
    new_id = f"bulk_{ctx.new_id()}"
    bulk_id = idempotent_request.claim(ctx.jobs, ctx.clock.now(), new_id) if idempotent_request is not None else new_id
    if bulk_id != new_id and (started := _find_started(ctx, batch, bulk_id)) is not None:
        return started, True
    counts = load_counts(ctx, batch.id)

    def change(seen: Batch) -> Batch | None:
        new = batch_rules.retry(seen, bulk_id, counts, ctx.clock.now(), cancelled=cancelled)
        # Announce the end of this run now; otherwise it would never be announced.
        if new is not None and seen.finished_at is not None and not seen.notified:
            announce_completion(ctx, seen, counts)
        return new

    changed = _update(ctx, batch, change)
    if changed is None:
        raise BatchNotRetryable
    return _advance_inline(ctx, changed), False


def rebuild_counts(ctx: BatchContext, batch: Batch) -> Batch:
    """Rebuild the counters from the rows, then advance the batch: the new counts may complete it."""
    rebuild_counters(ctx, batch)
    return _advance_inline(ctx, batch)


def _find_started(ctx: BatchContext, batch: Batch, bulk_id: str) -> Batch | None:
    """Return the batch if an earlier copy of the request has stored its action; otherwise None."""
    current = ctx.batches.get(batch.tenant, batch.id) or batch
    known = any(action.bulk_id == bulk_id for action in current.actions) or ctx.bulk_operations.get(batch.tenant, bulk_id) is not None
    return current if known else None


def _update(ctx: BatchContext, batch: Batch, change: Callable[[Batch], Batch | None]) -> Batch | None:
    """Write `change(batch)`. None: the batch does not allow the change.

    Raises:
        BatchNotFound: the batch was deleted meanwhile.
    """
    changed = update(ctx.batches.replace, batch, change)
    if changed is None and ctx.batches.get(batch.tenant, batch.id) is None:
        raise BatchNotFound
    return changed


def _advance_inline(ctx: BatchContext, batch: Batch) -> Batch:
    """Advance the batch as far as fits into a request; enqueue a task for the rest first."""
    try:
        enqueue_advance(ctx.queues, batch)
        return advance_batch(ctx, batch.tenant, batch.id, ctx.clock.now() + INLINE_BUDGET_MS, notify=False) or batch
    except Unavailable as exc:
        ctx.log("batch_advance_deferred", batch_id=batch.id, tenant=batch.tenant, error=exc)
        return batch
