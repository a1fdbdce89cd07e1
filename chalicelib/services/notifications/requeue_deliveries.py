"""Send the messages of deliveries that are overdue: their message was lost, or its dispatcher died.

Runs every minute, with time of its own. It walks through all open deliveries that are overdue, the
longest first, shard by shard and page by page. Each tenant first gets a turn of `TENANT_TURN`
deliveries; what is beyond that follows when every tenant has had its turn. So the deliveries of one
tenant, however many, do not hide those of another. Concurrent runs are safe: each delivery is
swapped by its version, and a second message of an attempt is dropped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Protocol

from chalicelib.domain.errors import StaleVersion, Unavailable
from chalicelib.domain.notifications import delivery as delivery_rules
from chalicelib.domain.notifications.delivery import Delivery
from chalicelib.domain.units import Ms
from chalicelib.ports import ParallelMap
from chalicelib.ports.notifications import DELIVERY_SHARDS, DueDelivery
from chalicelib.services.notifications.dispatcher import DeliveryResult
from chalicelib.services.notifications.outbox import NotificationContext, send_delivery_message

PAGE_SIZE = 100  # rows of one request
TENANT_TURN = 500  # deliveries of a tenant before every other tenant has had its turn
MAX_LATER = 20_000  # deliveries beyond a turn that one run remembers: more than it has time for


class RequeueContext(NotificationContext, Protocol):
    """What requeuing deliveries needs."""

    @property
    def parallel_map(self) -> ParallelMap: ...


def requeue_stalled(ctx: RequeueContext, until: Ms) -> Counter[DeliveryResult]:
    """Send a message for each overdue delivery, until `until`.

    Returns how many were scheduled, and how many are left to the next run. Errors are logged and
    never raised: what failed is overdue in the next run too.
    """
    done: Counter[DeliveryResult] = Counter()
    turns: Counter[str | None] = Counter()
    later: list[DueDelivery] = []
    now = ctx.clock.now()
    positions: dict[int, str | None] = dict.fromkeys(range(DELIVERY_SHARDS))
    while positions and ctx.clock.now() < until:
        pages = ctx.parallel_map(partial(_read_page, ctx, now), list(positions.items()))
        rows = sorted((row for page, _ in pages for row in page), key=lambda row: row.recheck_at)
        done += _requeue_rows(ctx, _take_turns(rows, turns, later), until)
        positions = {shard: following for shard, (_, following) in zip(positions, pages, strict=True) if following is not None}
    step = PAGE_SIZE * DELIVERY_SHARDS
    for start in range(0, len(later), step):
        if ctx.clock.now() >= until:
            done[DeliveryResult.DEFERRED] += len(later) - start
            break
        done += _requeue_rows(ctx, later[start : start + step], until)
    return done


def _read_page(ctx: RequeueContext, now: Ms, position: tuple[int, str | None]) -> tuple[list[DueDelivery], str | None]:
    shard, after = position
    try:
        return ctx.deliveries.due(shard, now, after, PAGE_SIZE)
    except Unavailable as exc:  # the next run reads this shard; the others do not wait for it
        ctx.log("delivery_sweep_failed", shard=shard, error=exc)
        return [], None


def _take_turns(rows: Sequence[DueDelivery], turns: Counter[str | None], later: list[DueDelivery]) -> list[DueDelivery]:
    """Return the rows that are within the turn of their tenant; add the others to `later`."""
    taken = []
    for row in rows:
        turns[row.tenant] += 1
        if turns[row.tenant] <= TENANT_TURN:
            taken.append(row)
        elif len(later) < MAX_LATER:
            later.append(row)
    return taken


def _requeue_rows(ctx: RequeueContext, rows: Sequence[DueDelivery], until: Ms) -> Counter[DeliveryResult]:
    pages = [rows[start : start + PAGE_SIZE] for start in range(0, len(rows), PAGE_SIZE)]
    deliveries = [delivery for page in ctx.parallel_map(partial(_load, ctx), pages) for delivery in page]
    return Counter(ctx.parallel_map(partial(_requeue, ctx, until), deliveries))


def _load(ctx: RequeueContext, rows: Sequence[DueDelivery]) -> list[Delivery]:
    try:
        return ctx.deliveries.load_due(rows, ctx.clock.now())
    except Unavailable as exc:
        ctx.log("delivery_sweep_failed", error=exc)
        return []


def _requeue(ctx: RequeueContext, until: Ms, delivery: Delivery) -> DeliveryResult:
    """Send the message of a delivery, then set when it is checked again."""
    now = ctx.clock.now()
    if now >= until:
        return DeliveryResult.DEFERRED
    if delivery.locked_until > now:
        return DeliveryResult.NOT_DUE
    try:
        send_delivery_message(ctx, delivery)
        ctx.deliveries.replace(delivery, delivery_rules.postpone_recheck(delivery, now))
    except StaleVersion:  # a dispatcher has just claimed it
        return DeliveryResult.NOT_DUE
    except Exception as exc:  # noqa: BLE001 - one delivery must not stop the others
        ctx.log("delivery_not_requeued", delivery_id=delivery.id, tenant=delivery.tenant, error=exc)
        return DeliveryResult.DEFERRED
    return DeliveryResult.SCHEDULED
