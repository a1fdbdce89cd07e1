"""What a tenant signs with, whom it may write to, and whether a submission asks for nobody else."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Sequence

from chalicelib.domain.delivery import Delivery, begin_again
from chalicelib.domain.endpoint import endpoint_of
from chalicelib.domain.errors import DeliveryBusy, DeliveryNotFound, Detail, InvalidRequest, NotSent, StaleVersion
from chalicelib.domain.recipients import AddressBook, Channel, Recipient, Seal, recipient_of
from chalicelib.usecases.post_office import PostOffice, wake

SECRET_BYTES = 32


def new_signing_secret() -> str:
    """256 random bits, as Standard Webhooks writes them."""
    return f"whsec_{base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()}"


def seal_of(office: PostOffice, tenant: str, *, fresh: bool = False) -> Seal:
    """The tenant's secrets, made at the first need."""
    there = office.correspondence.seal(tenant, fresh=fresh)
    return there or office.correspondence.make_seal(tenant, Seal(current=office.new_secret()))


def rotate(office: PostOffice, tenant: str) -> Seal:
    """A new secret; the one before stays good for a day, so nobody has to change at a stroke."""
    rotated = seal_of(office, tenant, fresh=True).rotated(office.new_secret(), office.clock.now())
    office.correspondence.put_seal(tenant, rotated)
    return rotated


def check_recipients(office: PostOffice, tenant: str, webhook_url: str | None, notify: Sequence[str]) -> None:
    """Refuse a submission that asks for a word to somebody who may not be written to. Without `notify` it asks no store.

    Raises:
        InvalidRequest: with every address that cannot be used, and what is allowed.
    """
    wrong = _url_problems(office, webhook_url) if webhook_url is not None else []
    told = _problems(office, office.correspondence.addresses(tenant), notify) if notify else []
    if told:  # an admin may have added somebody within the last minute
        told = _problems(office, office.correspondence.addresses(tenant, fresh=True), notify)
    if wrong or told:
        raise InvalidRequest(details=(*wrong, *told))


def book_for(office: PostOffice, tenant: str, recipient: Recipient) -> AddressBook:
    """The tenant's address book, read anew if it did not name the recipient a minute ago.

    Raises:
        NotSent: it does not: nobody is written to who was taken out of it.
    """
    for fresh in (False, True):
        book = office.correspondence.addresses(tenant, fresh=fresh)
        if book.allows(recipient):
            return book
    raise NotSent("the tenant does not allow this address any more", final=True)


def recipients_of(webhook_url: str | None, notify: Sequence[str]) -> list[Recipient]:
    """Who is to be told, of what was accepted."""
    webhooks = [Recipient(Channel.WEBHOOK, webhook_url)] if webhook_url else []
    return [*webhooks, *(recipient_of(text) for text in notify)]


def deliver_again(office: PostOffice, owner: str, delivery_id: str) -> Delivery:
    """Begin a delivery from the start, however it ended.

    Raises:
        DeliveryNotFound: there is none.
        DeliveryBusy: somebody is at it this moment.
    """
    seen = office.deliveries.get(owner, delivery_id)
    if seen is None:
        raise DeliveryNotFound
    again = begin_again(seen, office.clock.now())
    if again is None:
        raise DeliveryBusy
    try:
        office.deliveries.replace(seen, again)
    except StaleVersion as stale:
        raise DeliveryBusy from stale
    wake(office, again)
    return again


def _url_problems(office: PostOffice, url: str) -> list[Detail]:
    try:
        endpoint_of(url, office.allowed)
    except ValueError as exc:
        return [Detail("webhook_url", str(exc))]
    return []


def _problems(office: PostOffice, book: AddressBook, notify: Sequence[str]) -> list[Detail]:
    found = ((at, _problem(office, book, text)) for at, text in enumerate(notify))
    return [Detail(f"notify.{at}", problem) for at, problem in found if problem is not None]


def _problem(office: PostOffice, book: AddressBook, text: str) -> str | None:
    try:
        recipient = recipient_of(text)
    except ValueError as exc:
        return str(exc)
    if recipient.channel is Channel.EMAIL and not office.mail.is_configured:
        return "e-mail is not configured for this stage"
    if not book.allows(recipient):
        return f"is not allowed; allowed are {', '.join(book.names) or 'no addresses yet: an admin adds them with PUT /webhooks/addresses'}"
    return None
