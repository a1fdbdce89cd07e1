"""A tenant's signing secrets and recipient allowlist, and the checks of submissions against it."""

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

RecipientParser = Callable[[str], Recipient]


def new_signing_secret() -> str:
    """256 random bits in the format of Standard Webhooks."""
    return f"whsec_{base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()}"


def get_signing_secrets(ctx: NotificationContext, tenant: str, *, fresh: bool = False) -> SigningSecrets:
    """The tenant's signing secrets, created on first use. `fresh` bypasses the cache."""
    existing = ctx.notification_settings.signing_secrets(tenant, fresh=fresh)
    return existing or ctx.notification_settings.create_signing_secrets(tenant, SigningSecrets(current=ctx.new_signing_secret()))


def rotate_signing_secret(ctx: NotificationContext, tenant: str) -> SigningSecrets:
    """Store a new signing secret. The previous one stays valid for a day."""
    rotated = get_signing_secrets(ctx, tenant, fresh=True).rotated(ctx.new_signing_secret(), ctx.clock.now())
    ctx.notification_settings.put_signing_secrets(tenant, rotated)
    return rotated


def check_recipients(ctx: NotificationContext, tenant: str, webhook_url: str | None, notify: Sequence[str]) -> None:
    """Reject a submission with a recipient that the tenant may not notify.

    Reads the allowlist only if `notify` names recipients.

    Raises:
        InvalidRequest: with every recipient that cannot be used, and those that are allowed.
    """
    url_problems = _url_problems(ctx, webhook_url) if webhook_url is not None else []
    recipients = [(f"notify.{index}", text) for index, text in enumerate(notify)]
    problems = [*url_problems, *_allowlist_problems(ctx, tenant, recipients, parse_recipient)]
    if problems:
        raise InvalidRequest(details=tuple(problems))


def check_addresses(ctx: NotificationContext, tenant: str, recipients: Sequence[tuple[str, str]]) -> None:
    """Reject recipients that the tenant may not notify. Webhooks need no read of the allowlist.

    Args:
        recipients: pairs of the field's path in the request and its text, such as `slack:alerts`.

    Raises:
        InvalidRequest: with up to a hundred recipients that cannot be used, and the allowed ones.
    """
    urls = [(path, text.partition(":")[2]) for path, text in recipients if _is_webhook(text)]
    problems = [Detail(path, detail.message) for path, url in urls for detail in _url_problems(ctx, url)]
    others = [(path, text) for path, text in recipients if not _is_webhook(text)]
    problems += _allowlist_problems(ctx, tenant, others, parse_any_recipient)
    if problems:
        raise InvalidRequest(details=tuple(problems[:MAX_DETAILS]))


def get_allowlist(ctx: NotificationContext, tenant: str, recipient: Recipient) -> RecipientAllowlist:
    """The tenant's allowlist, which names `recipient`. Read again if the cached one does not.

    Raises:
        DeliveryError: the recipient is not on the allowlist any more.
    """
    for fresh in (False, True):
        allowlist = ctx.notification_settings.allowlist(tenant, fresh=fresh)
        if allowlist.allows(recipient):
            return allowlist
    raise DeliveryError("the recipient is no longer on the tenant's allowlist", final=True)


def parse_recipients(webhook_url: str | None, notify: Sequence[str]) -> list[Recipient]:
    """The recipients of an accepted submission."""
    webhooks = [Recipient(Channel.WEBHOOK, webhook_url)] if webhook_url else []
    return [*webhooks, *(parse_recipient(text) for text in notify)]


def redeliver(ctx: NotificationContext, owner: str, delivery_id: str) -> Delivery:
    """Restart a delivery with all its attempts, whatever its state.

    Raises:
        DeliveryNotFound: there is no such delivery.
        DeliveryBusy: a dispatcher is attempting it now.
    """
    found = ctx.deliveries.get(owner, delivery_id)
    if found is None:
        raise DeliveryNotFound
    restarted = restart(found, ctx.clock.now())
    if restarted is None:
        raise DeliveryBusy
    try:
        ctx.deliveries.replace(found, restarted)
    except StaleVersion as stale:
        raise DeliveryBusy from stale
    schedule_delivery(ctx, restarted)
    return restarted


def _url_problems(ctx: NotificationContext, url: str) -> list[Detail]:
    try:
        parse_webhook_url(url, ctx.allowed_networks)
    except ValueError as exc:
        return [Detail("webhook_url", str(exc))]
    return []


def _is_webhook(text: str) -> bool:
    return text.startswith(f"{Channel.WEBHOOK.value}:")


def _allowlist_problems(
    ctx: NotificationContext, tenant: str, recipients: Sequence[tuple[str, str]], parse: RecipientParser
) -> list[Detail]:
    """Problems of the recipients.

    Reads the allowlist again if there are any, because an admin may just have changed it.
    """
    problems: list[Detail] = []
    for fresh in (False, True):
        allowlist = ctx.notification_settings.allowlist(tenant, fresh=fresh) if recipients else RecipientAllowlist()
        checked = ((path, _problem(ctx, allowlist, text, parse)) for path, text in recipients)
        problems = [Detail(path, problem) for path, problem in checked if problem is not None]
        if not problems:
            break
    return problems


def _problem(ctx: NotificationContext, allowlist: RecipientAllowlist, text: str, parse: RecipientParser) -> str | None:
    try:
        recipient = parse(text)
    except ValueError as exc:
        return str(exc)
    if recipient.channel is Channel.EMAIL and not ctx.email.is_configured:
        return "e-mail is not configured for this stage"
    if not allowlist.allows(recipient):
        allowed = ", ".join(allowlist.names) or "no addresses yet: an admin adds them with PUT /webhooks/addresses"
        return f"is not allowed; allowed are {allowed}"
    return None
