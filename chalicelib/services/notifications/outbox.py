"""The outbox: store a delivery per recipient, then enqueue it for the dispatcher."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from chalicelib.domain.errors import InvalidMessage, Unavailable, UnreadableRecord
from chalicelib.domain.notifications import delivery as delivery_rules
from chalicelib.domain.notifications.delivery import Delivery, delivery_id
from chalicelib.domain.notifications.message import NotificationMessage, single_line
from chalicelib.domain.notifications.network_policy import Network
from chalicelib.domain.notifications.recipients import Channel, Recipient
from chalicelib.domain.queues.lanes import DELIVERIES
from chalicelib.domain.text import repair_surrogates
from chalicelib.domain.units import DAY_MS, Ms
from chalicelib.ports import Deliveries, EmailSender, NotificationSettings, WebhookClient
from chalicelib.services.context import QueueContext

MAX_TEXT_LENGTH = 10_000  # characters of a notification's text


class NotificationContext(QueueContext, Protocol):
    """What sending notifications needs.

    `sign` returns the signature headers of a webhook payload. `random` returns a number in [0, 1).
    `allowed_networks`: private networks that webhooks may reach. `api_url`: for links in messages.
    """

    @property
    def deliveries(self) -> Deliveries: ...
    @property
    def notification_settings(self) -> NotificationSettings: ...
    @property
    def webhook_client(self) -> WebhookClient: ...
    @property
    def email(self) -> EmailSender: ...
    def sign(self, secrets: Sequence[str], message_id: str, now: Ms, payload: str) -> dict[str, str]: ...
    def new_signing_secret(self) -> str: ...
    def random(self) -> float: ...
    @property
    def allowed_networks(self) -> Sequence[Network]: ...
    @property
    def api_url(self) -> str | None: ...


def enqueue_deliveries(
    ctx: NotificationContext, tenant: str, owner: str, recipients: Iterable[Recipient], message: NotificationMessage
) -> list[Delivery]:
    """Store a delivery for each recipient and enqueue it. Idempotent per message id and recipient.

    A delivery that is stored already and cannot be read is left to the version of the code that
    wrote it.

    Args:
        owner: the id of the job or batch that the message is about.

    Raises:
        Unavailable: a store did not answer; some deliveries may be stored. Call again.
    """
    deliveries: list[Delivery] = []
    for recipient in dict.fromkeys(recipients):
        delivery = _new_delivery(ctx, tenant, owner, recipient, message)
        try:
            deliveries.append(ctx.deliveries.create(delivery))
        except UnreadableRecord as exc:
            ctx.log("delivery_not_scheduled", delivery_id=delivery.id, tenant=tenant, error=exc)
    for delivery in deliveries:
        if delivery.is_open and not delivery.attempt_count:
            schedule_delivery(ctx, delivery)
    return deliveries


def enqueue_message(
    ctx: NotificationContext,
    tenant: str,
    owner: str,
    recipients: Iterable[Recipient],
    subject: str,
    text: str,
    message_id: str,
    extra: Any = None,
) -> list[Delivery]:
    """Enqueue a message with its own text for each recipient.

    Idempotent per `message_id` and recipient.

    Args:
        owner: the id of the job that sends it.
        extra: JSON for webhook receivers, in the payload's `data`.
    """
    title, content = single_line(repair_surrogates(subject)), repair_surrogates(text)[:MAX_TEXT_LENGTH]
    data = {"job_id": owner, "subject": title, "text": content} | ({"data": extra} if extra is not None else {})
    message = NotificationMessage(id=message_id, type="notification", created_at=ctx.clock.now(), subject=title, text=content, data=data)
    return enqueue_deliveries(ctx, tenant, owner, recipients, message)


def schedule_delivery(ctx: NotificationContext, delivery: Delivery) -> None:
    """Enqueue a delivery message that arrives when the delivery is due.

    If that is later than a message can be delayed, the sweeper sends it.
    """
    delay = delivery_rules.message_delay(delivery, ctx.clock.now())
    if delay is None:
        return
    try:
        ctx.queues.send_task(DELIVERIES, encode_delivery_message(delivery), delivery.tenant, delay)
    except Unavailable as exc:  # the delivery is stored, so the sweeper finds it
        ctx.log("delivery_not_scheduled", delivery_id=delivery.id, tenant=delivery.tenant, error=exc)


def encode_delivery_message(delivery: Delivery) -> str:
    return json.dumps({"owner": delivery.owner, "delivery": delivery.id})


def decode_delivery_message(body: str) -> tuple[str, str]:
    """Owner and id of the delivery that a message names.

    Raises:
        InvalidMessage: the message names no delivery.
    """
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise InvalidMessage("The message is not JSON.") from exc
    owner, delivery = (data.get("owner"), data.get("delivery")) if isinstance(data, dict) else (None, None)
    if not (isinstance(owner, str) and isinstance(delivery, str) and 0 < len(owner) < 200 and 0 < len(delivery) < 200):
        raise InvalidMessage('A delivery message must be {"owner": "job_...", "delivery": "dlv_..."}.')
    return owner, delivery


def _new_delivery(ctx: NotificationContext, tenant: str, owner: str, recipient: Recipient, message: NotificationMessage) -> Delivery:
    now: Ms = ctx.clock.now()
    return Delivery(
        id=delivery_id(message.id, recipient),
        owner=owner,
        tenant=tenant,
        channel=recipient.channel,
        address=recipient.address,
        event=message.type,
        message_id=message.id,
        subject=message.subject,
        payload=message.payload() if recipient.channel is Channel.WEBHOOK else message.text,
        created_at=now,
        due_at=now,
        expires_at=now + DAY_MS,
        recheck_at=now + delivery_rules.STALLED_MS,
    )
