"""What a tenant signs with, whom it may write to, and whether a submission asks for nobody else."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Sequence

from chalicelib.domain.delivery import Delivery, begin_again
from chalicelib.domain.endpoint import endpoint_of
from chalicelib.domain.errors import DeliveryBusy, DeliveryNotFound, Detail, InvalidRequest, NotSent, StaleVersion
from chalicelib.domain.recipients import AddressBook, Channel, Recipient, Seal, anyone_of, recipient_of
from chalicelib.domain.schema import MAX_DETAILS
from chalicelib.usecases.post_office import PostOffice, wake

SECRET_BYTES = 32

Reader = Callable[[str], Recipient]


def new_signing_secret() -> str:
    """256 random bits, as Standard Webhooks writes them."""
    return f"whsec_{base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()}"


def seal_of(office: PostOffice, tenant: str, *, fresh: bool = False) -> Seal:
    """The tenant's secrets, made at the first need."""
    there = office.notification_settings.signing_secrets(tenant, fresh=fresh)
    return there or office.notification_settings.create_signing_secrets(tenant, Seal(current=office.new_secret()))


def rotate(office: PostOffice, tenant: str) -> Seal:
    """A new secret; the one before stays good for a day, so nobody has to change at a stroke."""
    rotated = seal_of(office, tenant, fresh=True).rotated(office.new_secret(), office.clock.now())
    office.notification_settings.put_signing_secrets(tenant, rotated)
    return rotated


def check_recipients(office: PostOffice, tenant: str, webhook_url: str | None, notify: Sequence[str]) -> None:
    """Refuse a submission that asks for a word to somebody who may not be written to. Without `notify` it asks no store.

    Raises:
        InvalidRequest: with every address that cannot be used, and what is allowed.
    """
    wrong = _url_problems(office, webhook_url) if webhook_url is not None else []
    told = _told_problems(office, tenant, [(f"notify.{at}", text) for at, text in enumerate(notify)], recipient_of)
    if wrong or told:
        raise InvalidRequest(details=(*wrong, *told))


def check_named(office: PostOffice, tenant: str, named: Sequence[tuple[str, str]]) -> None:
    """Refuse what names somebody, each by a place in it, who may not be written to. Of webhooks alone it asks no store.

    Raises:
        InvalidRequest: with the addresses that cannot be used, up to a hundred, and what is allowed.
    """
    urls = [(place, text.partition(":")[2]) for place, text in named if _is_webhook(text)]
    wrong = [Detail(place, detail.message) for place, url in urls for detail in _url_problems(office, url)]
    wrong += _told_problems(office, tenant, [(place, text) for place, text in named if not _is_webhook(text)], anyone_of)
    if wrong:
        raise InvalidRequest(details=tuple(wrong[:MAX_DETAILS]))


def book_for(office: PostOffice, tenant: str, recipient: Recipient) -> AddressBook:
    """The tenant's address book, read anew if it did not name the recipient a minute ago.

    Raises:
        NotSent: it does not: nobody is written to who was taken out of it.
    """
    for fresh in (False, True):
        book = office.notification_settings.allowlist(tenant, fresh=fresh)
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
        endpoint_of(url, office.allowed_networks)
    except ValueError as exc:
        return [Detail("webhook_url", str(exc))]
    return []


def _is_webhook(text: str) -> bool:
    return text.startswith(f"{Channel.WEBHOOK.value}:")


def _told_problems(office: PostOffice, tenant: str, named: Sequence[tuple[str, str]], read: Reader) -> list[Detail]:
    """Of those who are in the address book or not. If somebody is not, it is read anew: an admin may have added them a minute ago."""
    wrong: list[Detail] = []
    for fresh in (False, True):
        book = office.notification_settings.allowlist(tenant, fresh=fresh) if named else AddressBook()
        found = ((place, _problem(office, book, text, read)) for place, text in named)
        wrong = [Detail(place, problem) for place, problem in found if problem is not None]
        if not wrong:
            break
    return wrong


def _problem(office: PostOffice, book: AddressBook, text: str, read: Reader) -> str | None:
    try:
        recipient = read(text)
    except ValueError as exc:
        return str(exc)
    if recipient.channel is Channel.EMAIL and not office.email.is_configured:
        return "e-mail is not configured for this stage"
    if not book.allows(recipient):
        return f"is not allowed; allowed are {', '.join(book.names) or 'no addresses yet: an admin adds them with PUT /webhooks/addresses'}"
    return None
