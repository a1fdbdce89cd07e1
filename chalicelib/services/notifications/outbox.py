"""The outbox: store a delivery per recipient, then enqueue it for the dispatcher."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from chalicelib.domain import json_limits
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

    If that is later than a message can be delayed, the dispatcher sends the message on when it
    arrives.
    """
    try:
        send_delivery_message(ctx, delivery)
    except Unavailable as exc:  # the delivery is stored, so the sweeper finds it
        ctx.log("delivery_not_scheduled", delivery_id=delivery.id, tenant=delivery.tenant, error=exc)


def send_delivery_message(ctx: NotificationContext, delivery: Delivery) -> None:
    """Send the message of a delivery, delayed until the delivery is due or as long as possible.

    Raises:
        Unavailable: the message may not have been sent.
    """
    message = DeliveryMessage(delivery.owner, delivery.id, delivery.due_at)
    ctx.queues.send_task(DELIVERIES, message.to_json(), delivery.tenant, delivery_rules.message_delay(delivery, ctx.clock.now()))


@dataclass(frozen=True, slots=True)
class DeliveryMessage:
    """A message that names a delivery, and which of its attempts it is for.

    Every attempt has a due time of its own, so a message of an earlier attempt is recognised.
    """

    owner: str
    delivery_id: str
    due_at: Ms | None  # of the attempt; None: another version of the code sent it, it is for any

    def to_json(self) -> str:
        return json.dumps({"owner": self.owner, "delivery": self.delivery_id, "due_at": self.due_at})

    @classmethod
    def from_json(cls, body: str) -> DeliveryMessage:
        """Parse a message.

        Raises:
            InvalidMessage: it names no delivery.
        """
        try:
            data = json_limits.loads(body)
        except ValueError as exc:
            raise InvalidMessage("The message is not JSON.") from exc
        owner, delivery, due_at = (data.get(name) for name in ("owner", "delivery", "due_at")) if isinstance(data, dict) else (None,) * 3
        if not (isinstance(owner, str) and isinstance(delivery, str) and 0 < len(owner) < 200 and 0 < len(delivery) < 200):
            raise InvalidMessage('A delivery message must be {"owner": "job_...", "delivery": "dlv_...", "due_at": 1763800000000}.')
        return cls(owner, delivery, due_at if isinstance(due_at, int) else None)

    def is_for(self, delivery: Delivery) -> bool:
        """Whether it is for the present attempt of the delivery."""
        return self.due_at is None or self.due_at == delivery.due_at


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
