"""What people do with a batch that is there: look at it, cancel it, start again what has failed of it, have it counted anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from chalicelib.domain import batch as domain
from chalicelib.domain.batch import Batch
from chalicelib.domain.batch_counts import COUNTS, Counts, failed_rows, partition
from chalicelib.domain.errors import BatchNotFound, BatchNotRetryable, Forbidden, StaleVersion, Throttled, Unavailable
from chalicelib.domain.identity import Caller, Role
from chalicelib.domain.ids import checked_batch_id, row_id
from chalicelib.ports import Batches
from chalicelib.usecases.clerk import Clerk, send_on
from chalicelib.usecases.once import Once
from chalicelib.usecases.recount import rebuild
from chalicelib.usecases.tend_batch import batch_ended, tend

AT_ONCE_MS = 5_000  # what a request does itself
COUNTERS = 50  # of a batch, read together: its counts, and its failures by 250 rows
ROUNDS = 10


@dataclass(frozen=True, slots=True)
class Seen:
    """A batch with what is counted of it, and the jobs of its first rows that have failed."""

    batch: Batch
    counts: Counts
    failed: tuple[str, ...] = ()

    @property
    def etag(self) -> str:
        return f'"v{self.batch.version}.{self.counts.version}"'


def find(batches: Batches, caller: Caller, batch_id: str, tenant: str | None = None) -> Batch:
    """A batch that the caller may see: a user its own, others those of their tenant.

    Raises:
        BatchNotFound: there is none.
    """
    checked_batch_id(batch_id)
    found = batches.get(tenant if tenant and caller.all_tenants else caller.tenant, batch_id)
    if found is None or not found.is_visible_to(caller):
        raise BatchNotFound
    return found


def see(clerk: Clerk, batch: Batch) -> Seen:
    """Two requests, whatever has become of it."""
    counters = clerk.counters.query(partition(batch.id), COUNTERS)
    failed = tuple(row_id(batch.id, row) for row in failed_rows(counters))
    return Seen(batch, Counts.of(counters.get(COUNTS, {})), failed)


def listed(clerk: Clerk, caller: Caller, tenant: str | None, before: str | None, limit: int) -> tuple[list[Seen], str | None]:
    """A page of batches, the newest first. A user's own may be fewer than a page: those of others are left out of it.

    Raises:
        Forbidden: they are another tenant's.
    """
    of = tenant or caller.tenant
    if of != caller.tenant and not caller.all_tenants:
        raise Forbidden(f"This key lists the batches of {caller.tenant} only.")
    found, following = clerk.batches.page(of, before, limit)
    mine = [batch for batch in found if caller.role != Role.USER or batch.user == caller.user]
    numbers = clerk.counters.get([(partition(batch.id), COUNTS) for batch in mine]) if mine else {}
    return [Seen(batch, Counts.of(numbers.get((partition(batch.id), COUNTS), {}))) for batch in mine], following


def cancel(clerk: Clerk, batch: Batch) -> Batch:
    """No more rows are released, and those that have not ended are cancelled: at once as far as a request may, the rest by itself."""
    ids = f"bulk_{clerk.new_id()}", f"bulk_{clerk.new_id()}"
    changed = _changed(clerk, batch, lambda seen: domain.cancel(seen, ids, clerk.clock.now()))
    return _go_on(clerk, changed) if changed is not None else batch


def retry_failed(clerk: Clerk, batch: Batch, once: Once | None, *, cancelled: bool) -> tuple[Batch, bool]:
    """Start again what has failed, expired or ended early of it (and what was `cancelled`); what was not released yet is.

    Whether the request had been sent before is the second answer.

    Raises:
        BatchNotRetryable: see there.
        IdempotencyConflict: the key stands for another request.
    """
    made = f"bulk_{clerk.new_id()}"
    bulk_id = once.claim(clerk.jobs, clerk.clock.now(), made) if once is not None else made
    if bulk_id != made and (there := _has_begun(clerk, batch, bulk_id)) is not None:
        return there, True
    counts = clerk.counts(batch.id)

    def change(seen: Batch) -> Batch | None:
        again = domain.retry(seen, bulk_id, counts, clerk.clock.now(), cancelled=cancelled)
        if again is not None and seen.finished_at is not None and not seen.notified:  # the run that has ended would never be told of
            batch_ended(clerk, seen, counts)
        return again

    changed = _changed(clerk, batch, change)
    if changed is None:
        raise BatchNotRetryable
    return _go_on(clerk, changed), False


def count_anew(clerk: Clerk, batch: Batch) -> Batch:
    """Let the counters say what the rows say, then see to whatever follows from it."""
    rebuild(clerk, batch)
    return _go_on(clerk, batch)


def _has_begun(clerk: Clerk, batch: Batch, bulk_id: str) -> Batch | None:
    """The batch, if this very wish was written on it before."""
    now = clerk.batches.get(batch.tenant, batch.id) or batch
    known = any(errand.bulk_id == bulk_id for errand in now.actions) or clerk.bulk.bulk_operations.get(batch.tenant, bulk_id) is not None
    return now if known else None


def _changed(clerk: Clerk, batch: Batch, change: Callable[[Batch], Batch | None]) -> Batch | None:
    """Write `change(batch)`, decided afresh if it moved on. None: it does not allow it."""
    for _ in range(ROUNDS):
        new = change(batch)
        if new is None:
            return None
        try:
            clerk.batches.replace(batch, new)
        except StaleVersion as stale:
            if not isinstance(stale.current, Batch):
                raise BatchNotFound from stale
            batch = stale.current
        else:
            return new
    raise Throttled


def _go_on(clerk: Clerk, batch: Batch) -> Batch:
    """Do what fits into a request; the rest goes on by itself, whatever happens to this."""
    try:
        send_on(clerk.queues, batch)
        return tend(clerk, batch.tenant, batch.id, clerk.clock.now() + AT_ONCE_MS, tells=False) or batch
    except Unavailable as exc:
        clerk.log("a batch goes on later", batch_id=batch.id, tenant=batch.tenant, error=exc)
        return batch
