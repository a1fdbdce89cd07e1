"""What a tenant signs with, whom it may write to, and whether a submission asks for nobody else."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Sequence

from chalicelib.domain.errors import DeliveryBusy, DeliveryError, DeliveryNotFound, Detail, InvalidRequest, StaleVersion
from chalicelib.domain.notifications.delivery import Delivery, restart
from chalicelib.domain.notifications.recipients import (
    Channel,
    Recipient,
    RecipientAllowlist,
    SigningSecrets,
    parse_any_recipient,
    parse_recipient,
)
from chalicelib.domain.notifications.webhook_url import parse_webhook_url
from chalicelib.domain.validation.schema import MAX_DETAILS
from chalicelib.services.notifications.outbox import NotificationContext, schedule_delivery

SECRET_BYTES = 32

Reader = Callable[[str], Recipient]


def new_signing_secret() -> str:
    """256 random bits, as Standard Webhooks writes them."""
    return f"whsec_{base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()}"


def get_signing_secrets(ctx: NotificationContext, tenant: str, *, fresh: bool = False) -> SigningSecrets:
    """The tenant's secrets, made at the first need."""
    there = ctx.notification_settings.signing_secrets(tenant, fresh=fresh)
    return there or ctx.notification_settings.create_signing_secrets(tenant, SigningSecrets(current=ctx.new_signing_secret()))


def rotate_signing_secret(ctx: NotificationContext, tenant: str) -> SigningSecrets:
    """A new secret; the one before stays good for a day, so nobody has to change at a stroke."""
    rotated = get_signing_secrets(ctx, tenant, fresh=True).rotated(ctx.new_signing_secret(), ctx.clock.now())
    ctx.notification_settings.put_signing_secrets(tenant, rotated)
    return rotated


def check_recipients(ctx: NotificationContext, tenant: str, webhook_url: str | None, notify: Sequence[str]) -> None:
    """Refuse a submission that asks for a word to somebody who may not be written to. Without `notify` it asks no store.

    Raises:
        InvalidRequest: with every address that cannot be used, and what is allowed.
    """
    wrong = _url_problems(ctx, webhook_url) if webhook_url is not None else []
    told = _allowlist_problems(ctx, tenant, [(f"notify.{at}", text) for at, text in enumerate(notify)], parse_recipient)
    if wrong or told:
        raise InvalidRequest(details=(*wrong, *told))


def check_addresses(ctx: NotificationContext, tenant: str, named: Sequence[tuple[str, str]]) -> None:
    """Refuse what names somebody, each by a place in it, who may not be written to. Of webhooks alone it asks no store.

    Raises:
        InvalidRequest: with the addresses that cannot be used, up to a hundred, and what is allowed.
    """
    urls = [(place, text.partition(":")[2]) for place, text in named if _is_webhook(text)]
    wrong = [Detail(place, detail.message) for place, url in urls for detail in _url_problems(ctx, url)]
    wrong += _allowlist_problems(ctx, tenant, [(place, text) for place, text in named if not _is_webhook(text)], parse_any_recipient)
    if wrong:
        raise InvalidRequest(details=tuple(wrong[:MAX_DETAILS]))


def get_allowlist(ctx: NotificationContext, tenant: str, recipient: Recipient) -> RecipientAllowlist:
    """The tenant's address book, read anew if it did not name the recipient a minute ago.

    Raises:
        NotSent: it does not: nobody is written to who was taken out of it.
    """
    for fresh in (False, True):
        book = ctx.notification_settings.allowlist(tenant, fresh=fresh)
        if book.allows(recipient):
            return book
    raise DeliveryError("the tenant does not allow this address any more", final=True)


def parse_recipients(webhook_url: str | None, notify: Sequence[str]) -> list[Recipient]:
    """Who is to be told, of what was accepted."""
    webhooks = [Recipient(Channel.WEBHOOK, webhook_url)] if webhook_url else []
    return [*webhooks, *(parse_recipient(text) for text in notify)]


def redeliver(ctx: NotificationContext, owner: str, delivery_id: str) -> Delivery:
    """Begin a delivery from the start, however it ended.

    Raises:
        DeliveryNotFound: there is none.
        DeliveryBusy: somebody is at it this moment.
    """
    seen = ctx.deliveries.get(owner, delivery_id)
    if seen is None:
        raise DeliveryNotFound
    again = restart(seen, ctx.clock.now())
    if again is None:
        raise DeliveryBusy
    try:
        ctx.deliveries.replace(seen, again)
    except StaleVersion as stale:
        raise DeliveryBusy from stale
    schedule_delivery(ctx, again)
    return again


def _url_problems(ctx: NotificationContext, url: str) -> list[Detail]:
    try:
        parse_webhook_url(url, ctx.allowed_networks)
    except ValueError as exc:
        return [Detail("webhook_url", str(exc))]
    return []


def _is_webhook(text: str) -> bool:
    return text.startswith(f"{Channel.WEBHOOK.value}:")


def _allowlist_problems(ctx: NotificationContext, tenant: str, named: Sequence[tuple[str, str]], read: Reader) -> list[Detail]:
    """Of those who are in the address book or not. If somebody is not, it is read anew: an admin may have added them a minute ago."""
    wrong: list[Detail] = []
    for fresh in (False, True):
        book = ctx.notification_settings.allowlist(tenant, fresh=fresh) if named else RecipientAllowlist()
        found = ((place, _problem(ctx, book, text, read)) for place, text in named)
        wrong = [Detail(place, problem) for place, problem in found if problem is not None]
        if not wrong:
            break
    return wrong


def _problem(ctx: NotificationContext, book: RecipientAllowlist, text: str, read: Reader) -> str | None:
    try:
        recipient = read(text)
    except ValueError as exc:
        return str(exc)
    if recipient.channel is Channel.EMAIL and not ctx.email.is_configured:
        return "e-mail is not configured for this stage"
    if not book.allows(recipient):
        return f"is not allowed; allowed are {', '.join(book.names) or 'no addresses yet: an admin adds them with PUT /webhooks/addresses'}"
    return None
