"""What people do with a batch that is there: look at it, cancel it, start again what has failed of it, have it counted anew."""

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

INLINE_BUDGET_MS = 5_000  # what a request does itself
COUNTERS = 50  # of a batch, read together: its counts, and its failures by 250 rows


@dataclass(frozen=True, slots=True)
class BatchView:
    """A batch with what is counted of it, and the jobs of its first rows that have failed."""

    batch: Batch
    counts: BatchCounts
    failed: tuple[str, ...] = ()

    @property
    def etag(self) -> str:
        return f'"v{self.batch.version}.{self.counts.version}"'


def get_batch(batches: Batches, caller: Caller, batch_id: str, tenant: str | None = None) -> Batch:
    """A batch that the caller may see: a user its own, others those of their tenant.

    Raises:
        BatchNotFound: there is none.
    """
    checked_batch_id(batch_id)
    found = batches.get(tenant if tenant and caller.all_tenants else caller.tenant, batch_id)
    if found is None or not found.is_visible_to(caller):
        raise BatchNotFound
    return found


def view_batch(ctx: BatchContext, batch: Batch) -> BatchView:
    """Two requests, whatever has become of it."""
    counters = ctx.counters.query(counter_partition(batch.id), COUNTERS)
    failed = tuple(job_id_of_row(batch.id, row) for row in failed_rows(counters))
    return BatchView(batch, BatchCounts.of(counters.get(COUNTS, {})), failed)


def list_batches(
    ctx: BatchContext, caller: Caller, tenant: str | None, before: str | None, limit: int
) -> tuple[list[BatchView], str | None]:
    """A page of batches, the newest first. A user's own may be fewer than a page: those of others are left out of it.

    Raises:
        Forbidden: they are another tenant's.
    """
    of = tenant or caller.tenant
    if of != caller.tenant and not caller.all_tenants:
        raise Forbidden(f"This key lists the batches of {caller.tenant} only.")
    found, following = ctx.batches.page(of, before, limit)
    mine = [batch for batch in found if caller.role != Role.USER or batch.user == caller.user]
    numbers = ctx.counters.get([(counter_partition(batch.id), COUNTS) for batch in mine]) if mine else {}
    return [BatchView(batch, BatchCounts.of(numbers.get((counter_partition(batch.id), COUNTS), {}))) for batch in mine], following


def cancel_batch(ctx: BatchContext, batch: Batch) -> Batch:
    """No more rows are released, and those that have not ended are cancelled: at once as far as a request may, the rest by itself."""
    ids = f"bulk_{ctx.new_id()}", f"bulk_{ctx.new_id()}"
    changed = _changed(ctx, batch, lambda seen: batch_rules.cancel(seen, ids, ctx.clock.now()))
    return _go_on(ctx, changed) if changed is not None else batch


def retry_failed(ctx: BatchContext, batch: Batch, once: IdempotentRequest | None, *, cancelled: bool) -> tuple[Batch, bool]:
    """Start again what has failed, expired or ended early of it (and what was `cancelled`); what was not released yet is.

    Whether the request had been sent before is the second answer.

    Raises:
        BatchNotRetryable: see there.
        IdempotencyConflict: the key stands for another request.
    """
    made = f"bulk_{ctx.new_id()}"
    bulk_id = once.claim(ctx.jobs, ctx.clock.now(), made) if once is not None else made
    if bulk_id != made and (there := _has_begun(ctx, batch, bulk_id)) is not None:
        return there, True
    counts = load_counts(ctx, batch.id)

    def change(seen: Batch) -> Batch | None:
        again = batch_rules.retry(seen, bulk_id, counts, ctx.clock.now(), cancelled=cancelled)
        if again is not None and seen.finished_at is not None and not seen.notified:  # the run that has ended would never be told of
            announce_completion(ctx, seen, counts)
        return again

    changed = _changed(ctx, batch, change)
    if changed is None:
        raise BatchNotRetryable
    return _go_on(ctx, changed), False


def rebuild_counts(ctx: BatchContext, batch: Batch) -> Batch:
    """Let the counters say what the rows say, then see to whatever follows from it."""
    rebuild_counters(ctx, batch)
    return _go_on(ctx, batch)


def _has_begun(ctx: BatchContext, batch: Batch, bulk_id: str) -> Batch | None:
    """The batch, if this very wish was written on it before."""
    now = ctx.batches.get(batch.tenant, batch.id) or batch
    known = any(errand.bulk_id == bulk_id for errand in now.actions) or ctx.bulk_operations.get(batch.tenant, bulk_id) is not None
    return now if known else None


def _changed(ctx: BatchContext, batch: Batch, change: Callable[[Batch], Batch | None]) -> Batch | None:
    """Write `change(batch)`. None: the batch does not allow the change.

    Raises:
        BatchNotFound: the batch was deleted meanwhile.
    """
    changed = update(ctx.batches.replace, batch, change)
    if changed is None and ctx.batches.get(batch.tenant, batch.id) is None:
        raise BatchNotFound
    return changed


def _go_on(ctx: BatchContext, batch: Batch) -> Batch:
    """Do what fits into a request; the rest goes on by itself, whatever happens to this."""
    try:
        enqueue_advance(ctx.queues, batch)
        return advance_batch(ctx, batch.tenant, batch.id, ctx.clock.now() + INLINE_BUDGET_MS, tells=False) or batch
    except Unavailable as exc:
        ctx.log("batch_advance_deferred", batch_id=batch.id, tenant=batch.tenant, error=exc)
        return batch
