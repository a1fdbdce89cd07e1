"""Write to somebody outside: put the message down for each recipient, then have it delivered."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from chalicelib.domain import delivery as domain
from chalicelib.domain.addresses import Network
from chalicelib.domain.delivery import Delivery, delivery_id
from chalicelib.domain.errors import BadMessage, Unavailable
from chalicelib.domain.job import Ms
from chalicelib.domain.lanes import DELIVERIES
from chalicelib.domain.recipients import Channel, Recipient
from chalicelib.domain.text import whole
from chalicelib.domain.units import DAY_MS
from chalicelib.domain.word import Message, one_line
from chalicelib.ports import Clock, Correspondence, Deliveries, Mail, Poster, Queues
from chalicelib.usecases.engine import Log

LONGEST_TEXT = 10_000  # characters of what a person is written


@dataclass(frozen=True, kw_only=True)
class PostOffice:
    """What writing outside needs. `new_secret` makes a signing secret, `random` numbers in [0, 1). `sign` gives the headers that carry the
    signatures of a payload. `allowed`: networks that may be reached besides public ones.
    """

    clock: Clock
    log: Log
    deliveries: Deliveries
    notification_settings: Correspondence
    queues: Queues
    webhook_client: Poster
    email: Mail
    sign: Callable[[Sequence[str], str, Ms, str], dict[str, str]]
    new_secret: Callable[[], str]
    random: Callable[[], float]
    allowed_networks: Sequence[Network] = ()


def write_to(office: PostOffice, tenant: str, owner: str, recipients: Iterable[Recipient], message: Message) -> list[Delivery]:
    """Put down a delivery for each recipient and wake whoever delivers. Doing it again makes nothing new [9].

    `owner` is the job or batch that it is about; the one whose deliveries name it.

    Raises:
        Unavailable: some may be put down and others not; repeat it.
    """
    made = [office.deliveries.create(_new(office, tenant, owner, recipient, message)) for recipient in dict.fromkeys(recipients)]
    for delivery in made:
        if delivery.is_open and not delivery.attempt_count:
            wake(office, delivery)
    return made


def send_message(
    office: PostOffice, tenant: str, owner: str, recipients: Iterable[Recipient], subject: str, text: str, message_id: str, more: Any = None
) -> list[Delivery]:
    """Write to people and programs in somebody's own words. The same `message_id` is the same message: it is put down once for each.

    `more` is for programs.
    """
    title, words = one_line(whole(subject)), whole(text)[:LONGEST_TEXT]
    data = {"job_id": owner, "subject": title, "text": words} | ({"data": more} if more is not None else {})
    message = Message(id=message_id, type="notification", created_at=office.clock.now(), subject=title, text=words, data=data)
    return write_to(office, tenant, owner, recipients, message)


def wake(office: PostOffice, delivery: Delivery) -> None:
    """Have it delivered when it is due; what is due later than a message can be delayed, the sweep sends."""
    delay = domain.delay(delivery, office.clock.now())
    if delay is None:
        return
    try:
        office.queues.send_task(DELIVERIES, errand(delivery), delivery.tenant, delay)
    except Unavailable as exc:  # it is put down, so the sweep finds it
        office.log("a delivery was not sent for", delivery_id=delivery.id, tenant=delivery.tenant, error=exc)


def errand(delivery: Delivery) -> str:
    return json.dumps({"owner": delivery.owner, "delivery": delivery.id})


def read_errand(body: str) -> tuple[str, str]:
    """Owner and id of the delivery that a message is about.

    Raises:
        BadMessage: it is about none.
    """
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise BadMessage("The message is not JSON.") from exc
    owner, name = (data.get("owner"), data.get("delivery")) if isinstance(data, dict) else (None, None)
    if not (isinstance(owner, str) and isinstance(name, str) and 0 < len(owner) < 200 and 0 < len(name) < 200):
        raise BadMessage('A delivery is {"owner": "job_...", "delivery": "dlv_..."}.')
    return owner, name


def _new(office: PostOffice, tenant: str, owner: str, recipient: Recipient, message: Message) -> Delivery:
    now: Ms = office.clock.now()
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
        recheck_at=now + domain.FORGOTTEN_MS,
    )
