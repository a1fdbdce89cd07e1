"""Attempt deliveries: claim one, send it, record the outcome and schedule the next attempt.

The message of an attempt that is due later than a queue can delay it is sent on each time it
arrives. So that a delivery has one message at a time, and not more and more: a message names its
attempt and is dropped after it, and one that is received a second time is not sent on, because its
first receiver may have done so. The sweeper sends the message of a delivery that is overdue.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import StrEnum

from chalicelib.domain.errors import DeliveryError, InvalidMessage, StaleVersion
from chalicelib.domain.notifications import delivery as delivery_rules
from chalicelib.domain.notifications.delivery import Delivery, DeliveryOutcome
from chalicelib.domain.notifications.recipients import Channel
from chalicelib.domain.queues.lanes import DELIVERIES
from chalicelib.domain.units import Ms
from chalicelib.ports import WebhookResponse
from chalicelib.services.compare_and_swap import update
from chalicelib.services.notifications.outbox import DeliveryMessage, NotificationContext, schedule_delivery, send_delivery_message
from chalicelib.services.notifications.settings import get_allowlist, get_signing_secrets

GONE = 410


class DeliveryResult(StrEnum):
    """The result of a delivery message, or of requeuing a stalled delivery."""

    PENDING = "pending"  # attempted; another attempt follows
    DELIVERED = "delivered"
    FAILED = "failed"
    NOT_DUE = "not_due"  # or it has ended, another dispatcher has claimed it, or the message is of an earlier attempt
    FORWARDED = "forwarded"  # not due yet: the message was sent on
    FENCED = "fenced"  # another dispatcher claimed it while this one was sending
    DEAD_LETTERED = "dead_lettered"  # the message names no delivery
    SCHEDULED = "scheduled"
    DEFERRED = "deferred"  # left to the next sweep


def handle_delivery_message(ctx: NotificationContext, body: str, receives: int = 1) -> DeliveryResult:
    """Attempt the delivery that a queue message names, or send the message on if it is too early.

    Never raises: the sweeper enqueues a failed one again.

    Args:
        receives: how often the message was received, this time included.
    """
    try:
        message = DeliveryMessage.from_json(body)
    except InvalidMessage as exc:
        ctx.log("delivery_message_invalid", error=exc)
        ctx.queues.send_to_dead_letter(DELIVERIES, body, exc.message)
        return DeliveryResult.DEAD_LETTERED
    try:
        return _attempt_or_forward(ctx, message, receives)
    except Exception as exc:  # noqa: BLE001 - one delivery must not stop the others of its batch
        ctx.log("delivery_deferred", delivery_id=message.delivery_id, job_id=message.owner, error=exc)
        return DeliveryResult.DEFERRED


def _attempt_or_forward(ctx: NotificationContext, message: DeliveryMessage, receives: int) -> DeliveryResult:
    """Handle a valid message.

    Raises:
        Unavailable: a store or the queue did not answer.
    """
    found = ctx.deliveries.get(message.owner, message.delivery_id)
    if found is None or not found.is_open or not message.is_for(found):
        return DeliveryResult.NOT_DUE
    if delivery_rules.is_due(found, ctx.clock.now()):
        return _attempt_delivery(ctx, found)
    if receives > 1 or message.due_at is None:
        return DeliveryResult.NOT_DUE
    send_delivery_message(ctx, found)
    return DeliveryResult.FORWARDED


def _attempt_delivery(ctx: NotificationContext, found: Delivery) -> DeliveryResult:
    """Attempt a delivery once, if no other dispatcher has claimed it.

    Raises:
        Unavailable: a store did not answer. The message may have been sent; it is sent again after
            the claim has expired.
    """
    claimed = update(ctx.deliveries.replace, found, lambda delivery: delivery_rules.claim(delivery, ctx.clock.now()))
    if claimed is None:
        return DeliveryResult.NOT_DUE
    outcome = _attempt(ctx, claimed)
    attempted = delivery_rules.record_attempt(claimed, outcome, ctx.clock.now(), ctx.random())
    try:
        ctx.deliveries.replace(claimed, attempted)
    except StaleVersion:
        ctx.log("delivery_fenced", delivery_id=claimed.id, job_id=claimed.owner, tenant=claimed.tenant)
        return DeliveryResult.FENCED
    if attempted.is_open:
        schedule_delivery(ctx, attempted)
    _log_attempt(ctx, attempted, outcome)
    return DeliveryResult(attempted.state.value)


def _attempt(ctx: NotificationContext, delivery: Delivery) -> DeliveryOutcome:
    started_at = ctx.clock.now()
    try:
        response = _CHANNELS[delivery.channel](ctx, delivery)
    except DeliveryError as exc:
        return DeliveryOutcome(ms=ctx.clock.now() - started_at, error=exc.message, final=exc.final, forbidden=exc.forbidden)
    except Exception as exc:  # noqa: BLE001 - a bug here must not lose the delivery: the attempt is recorded as failed and retried
        ctx.log("delivery_error", delivery_id=delivery.id, job_id=delivery.owner, tenant=delivery.tenant, error=exc)
        return DeliveryOutcome(ms=ctx.clock.now() - started_at, error="internal error")
    return _outcome_of(response, ctx.clock.now() - started_at)


def _outcome_of(response: WebhookResponse | None, duration: Ms) -> DeliveryOutcome:
    """The outcome of a message that was sent; `response` is None for e-mail."""
    if response is None or 200 <= response.status < 300:
        return DeliveryOutcome(ms=duration, status=response.status if response else None)
    if 300 <= response.status < 400:
        error = "redirects are not followed"
    elif response.status == GONE:
        error = "the receiver answered 410 Gone; it is not tried again"
    else:
        error = f"the receiver answered {response.status}"
    retry_after = response.retry_after if response.status in (429, 503) else None
    return DeliveryOutcome(ms=duration, status=response.status, error=error, retry_after=retry_after, final=response.status == GONE)


def _post_webhook(ctx: NotificationContext, delivery: Delivery) -> WebhookResponse:
    return post_signed(ctx, delivery.tenant, delivery.address, delivery.message_id, delivery.payload)


def post_signed(ctx: NotificationContext, tenant: str, url: str, message_id: str, payload: str) -> WebhookResponse:
    """Post a message as Standard Webhooks defines it: signed now, with every active secret.

    Raises:
        DeliveryError: the receiver did not answer, or the network policy forbids its address.
    """
    now = ctx.clock.now()
    signature_headers = ctx.sign(get_signing_secrets(ctx, tenant).active(now), message_id, now, payload)
    return ctx.webhook_client.post(url, payload.encode(), {"Content-Type": "application/json", **signature_headers})


def _post_to_slack(ctx: NotificationContext, delivery: Delivery) -> WebhookResponse:
    """Post to Slack. The allowlist is read now, so that a removed recipient gets nothing."""
    url = get_allowlist(ctx, delivery.tenant, delivery.recipient).slack[delivery.address]
    text = f"*{_escaped(delivery.subject)}*\n{_escaped(delivery.payload)}"
    return ctx.webhook_client.post(url, json.dumps({"text": text}).encode(), {"Content-Type": "application/json"})


def _send_email(ctx: NotificationContext, delivery: Delivery) -> None:
    get_allowlist(ctx, delivery.tenant, delivery.recipient)
    ctx.email.send(delivery.address, delivery.subject, delivery.payload)


def _escaped(text: str) -> str:
    """Escape text for Slack's markup."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


_CHANNELS: dict[Channel, Callable[[NotificationContext, Delivery], WebhookResponse | None]] = {
    Channel.WEBHOOK: _post_webhook,
    Channel.SLACK: _post_to_slack,
    Channel.EMAIL: _send_email,
}


def _log_attempt(ctx: NotificationContext, delivery: Delivery, outcome: DeliveryOutcome) -> None:
    ctx.log(
        "delivery_attempted",
        delivery_id=delivery.id,
        job_id=delivery.owner,
        tenant=delivery.tenant,
        channel=delivery.channel.value,
        state=delivery.state.value,
        tried=delivery.attempt_count,
        status=outcome.status,
        ms=outcome.ms,
        reason=outcome.error,
    )
