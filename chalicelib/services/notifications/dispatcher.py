"""Try a delivery: take it up, send it, write down what came of it, and when it is tried again."""

from __future__ import annotations

import json
from collections import Counter
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
from chalicelib.services.notifications.outbox import NotificationContext, decode_delivery_message, schedule_delivery
from chalicelib.services.notifications.settings import get_allowlist, get_signing_secrets

LOOKAHEAD_MS = 65_000  # what comes due before the next sweep is sent now, with a delay
MAX_PER_SHARD = 100  # of each part of what is open, for one sweep
GONE = 410


class DeliveryResult(StrEnum):
    """What became of a delivery message, or of a stalled delivery."""

    PENDING = "pending"  # attempted; another attempt follows
    DELIVERED = "delivered"
    FAILED = "failed"
    NOT_DUE = "not_due"  # or another dispatcher has claimed it
    FENCED = "fenced"  # another dispatcher claimed it while this one was sending
    DEAD_LETTERED = "dead_lettered"  # the message names no delivery
    SCHEDULED = "scheduled"
    DEFERRED = "deferred"  # left to the next sweep


def handle_delivery_message(ctx: NotificationContext, body: str) -> DeliveryResult:
    """What a message of the queue asks for; the answer names what came of it. What fails, the sweep finds again: nothing is raised."""
    try:
        owner, delivery_id = decode_delivery_message(body)
    except InvalidMessage as exc:
        ctx.log("delivery_message_invalid", error=exc)
        ctx.queues.send_to_dead_letter(DELIVERIES, body, exc.message)
        return DeliveryResult.DEAD_LETTERED
    try:
        return attempt_delivery(ctx, owner, delivery_id)
    except Exception as exc:  # noqa: BLE001 - what one delivery does must not happen to the others of its batch
        ctx.log("delivery_deferred", delivery_id=delivery_id, job_id=owner, error=exc)
        return DeliveryResult.DEFERRED


def attempt_delivery(ctx: NotificationContext, owner: str, delivery_id: str) -> DeliveryResult:
    """Try it once, if it is due and nobody is at it.

    Raises:
        Unavailable: a store did not answer. It may have been sent; it is tried again when whoever had it is given up.
    """
    mine = _claimed(ctx, owner, delivery_id)
    if mine is None:
        return DeliveryResult.NOT_DUE
    outcome = _attempt(ctx, mine)
    new = delivery_rules.record_attempt(mine, outcome, ctx.clock.now(), ctx.random())
    try:
        ctx.deliveries.replace(mine, new)
    except StaleVersion:
        ctx.log("delivery_fenced", delivery_id=mine.id, job_id=mine.owner, tenant=mine.tenant)
        return DeliveryResult.FENCED
    if new.is_open:
        schedule_delivery(ctx, new)
    _log_attempt(ctx, new, outcome)
    return DeliveryResult(new.state.value)


def requeue_stalled(ctx: NotificationContext, until: Ms) -> Counter[DeliveryResult]:
    """What the sweep does: send for what is due and has no message any more, or could not be given one yet."""
    done: Counter[DeliveryResult] = Counter()
    for delivery in ctx.deliveries.due(ctx.clock.now() + LOOKAHEAD_MS, MAX_PER_SHARD):
        now = ctx.clock.now()
        if now >= until:
            done[DeliveryResult.DEFERRED] += 1
        elif delivery.locked_until <= now:
            try:
                schedule_delivery(ctx, delivery)
                ctx.deliveries.replace(delivery, delivery_rules.postpone_recheck(delivery, now))
                done[DeliveryResult.SCHEDULED] += 1
            except StaleVersion:
                continue  # somebody has just taken it up
            except Exception as exc:  # noqa: BLE001 - one that fails must not stop the others
                ctx.log("delivery_not_requeued", delivery_id=delivery.id, tenant=delivery.tenant, error=exc)
    return done


def _claimed(ctx: NotificationContext, owner: str, delivery_id: str) -> Delivery | None:
    seen = ctx.deliveries.get(owner, delivery_id)
    if seen is None:
        return None
    return update(ctx.deliveries.replace, seen, lambda delivery: delivery_rules.claim(delivery, ctx.clock.now()))


def _attempt(ctx: NotificationContext, delivery: Delivery) -> DeliveryOutcome:
    began = ctx.clock.now()
    try:
        posted = _CHANNELS[delivery.channel](ctx, delivery)
    except DeliveryError as exc:
        return DeliveryOutcome(ms=ctx.clock.now() - began, error=exc.message, final=exc.final)
    except Exception as exc:  # noqa: BLE001 - a fault of ours: it is tried again, and people see that it failed
        ctx.log("delivery_error", delivery_id=delivery.id, job_id=delivery.owner, tenant=delivery.tenant, error=exc)
        return DeliveryOutcome(ms=ctx.clock.now() - began, error="something went wrong on our side")
    return _outcome_of(posted, ctx.clock.now() - began)


def _outcome_of(posted: WebhookResponse | None, took: Ms) -> DeliveryOutcome:
    if posted is None or 200 <= posted.status < 300:
        return DeliveryOutcome(ms=took, status=posted.status if posted else None)
    if 300 <= posted.status < 400:
        error = "redirects are not followed"
    elif posted.status == GONE:
        error = "the receiver says that it is gone"
    else:
        error = f"the receiver answered {posted.status}"
    asked = posted.retry_after if posted.status in (429, 503) else None
    return DeliveryOutcome(ms=took, status=posted.status, error=error, retry_after=asked, final=posted.status == GONE)


def _post_webhook(ctx: NotificationContext, delivery: Delivery) -> WebhookResponse:
    return post_signed(ctx, delivery.tenant, delivery.address, delivery.message_id, delivery.payload)


def post_signed(ctx: NotificationContext, tenant: str, url: str, message_id: str, payload: str) -> WebhookResponse:
    """Post a message as Standard Webhooks says: signed anew for each attempt, with every secret that is valid.

    Raises:
        NotSent: there was no answer, or none may be asked for.
    """
    now = ctx.clock.now()
    signed = ctx.sign(get_signing_secrets(ctx, tenant).active(now), message_id, now, payload)
    return ctx.webhook_client.post(url, payload.encode(), {"Content-Type": "application/json", **signed})


def _post_to_slack(ctx: NotificationContext, delivery: Delivery) -> WebhookResponse:
    """The address book decides at the moment of sending: what was taken out of it is written to no more."""
    url = get_allowlist(ctx, delivery.tenant, delivery.recipient).slack[delivery.address]
    text = f"*{_escaped(delivery.subject)}*\n{_escaped(delivery.payload)}"
    return ctx.webhook_client.post(url, json.dumps({"text": text}).encode(), {"Content-Type": "application/json"})


def _send_mail(ctx: NotificationContext, delivery: Delivery) -> None:
    get_allowlist(ctx, delivery.tenant, delivery.recipient)
    ctx.email.send(delivery.address, delivery.subject, delivery.payload)


def _escaped(text: str) -> str:
    """As Slack wants text that is not its markup."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


_CHANNELS: dict[Channel, Callable[[NotificationContext, Delivery], WebhookResponse | None]] = {
    Channel.WEBHOOK: _post_webhook,
    Channel.SLACK: _post_to_slack,
    Channel.EMAIL: _send_mail,
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
