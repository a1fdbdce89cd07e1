"""`/webhooks`: what a tenant's messages are signed with, and whom they may go to; and what became of those of a job."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chalice import Blueprint

from chalicelib.bootstrap import Container
from chalicelib.domain.auth.identity import Role
from chalicelib.domain.errors import DeliveryError, Detail, Forbidden, InvalidRequest
from chalicelib.domain.ids import checked_delivery_id
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.notifications.message import NotificationMessage, message_id
from chalicelib.domain.notifications.network_policy import Network
from chalicelib.domain.notifications.recipients import RecipientAllowlist, SigningSecrets, is_email, is_name
from chalicelib.domain.notifications.webhook_url import parse_webhook_url
from chalicelib.domain.units import rfc3339, seconds
from chalicelib.entrypoints.http.requests import jobs as job_requests
from chalicelib.entrypoints.http.requests import schemas
from chalicelib.entrypoints.http.responses.deliveries import delivery
from chalicelib.entrypoints.http.server import ApiRequest, ApiResponse, endpoint
from chalicelib.observability import record
from chalicelib.services.notifications.dispatcher import post_signed
from chalicelib.services.notifications.settings import get_signing_secrets, redeliver, rotate_signing_secret

blueprint = Blueprint(__name__)

VISIBLE_CHARACTERS = 4  # letters at the end of a URL that is a secret


@endpoint(blueprint, "GET", "/webhooks", Role.ADMIN)
def read(request: ApiRequest) -> ApiResponse:
    """The signing secret of the tenant, made at the first look, and the addresses that `notify` may name."""
    ctx, tenant = request.container, _tenant(request)
    seal = get_signing_secrets(ctx, tenant, fresh=True)
    return ApiResponse(body=_shape(ctx, seal, ctx.notification_settings.allowlist(tenant, fresh=True)))


@endpoint(blueprint, "POST", "/webhooks/rotate", Role.ADMIN)
def rotate_secret(request: ApiRequest) -> ApiResponse:
    """A new signing secret; messages carry a signature of the one before, too, for 24 hours."""
    ctx, tenant = request.container, _tenant(request)
    job_requests.check(schemas.NOTHING, request.json())
    seal = rotate_signing_secret(ctx, tenant)
    record("signing_secret_rotated", tenant=tenant, key_id=request.caller.key_id)
    return ApiResponse(body=_shape(ctx, seal, ctx.notification_settings.allowlist(tenant, fresh=True)))


@endpoint(blueprint, "PUT", "/webhooks/addresses", Role.ADMIN)
def put_addresses(request: ApiRequest) -> ApiResponse:
    """Whom `notify` may name from now on; `null` keeps a Slack URL that is there."""
    ctx, tenant = request.container, _tenant(request)
    data = job_requests.check(schemas.ADDRESSES, request.json())
    book = _allowlist(data, ctx.notification_settings.allowlist(tenant, fresh=True), ctx.allowed_networks)
    ctx.notification_settings.put_allowlist(tenant, book)
    record("recipient_allowlist_changed", tenant=tenant, key_id=request.caller.key_id, emails=len(book.emails), slack=len(book.slack))
    return ApiResponse(body=_shape(ctx, get_signing_secrets(ctx, tenant), book))


@endpoint(blueprint, "POST", "/webhooks/test", Role.ADMIN)
def test(request: ApiRequest) -> ApiResponse:
    """Send a signed test event to a URL, once and now, and say what happened."""
    ctx, tenant = request.container, _tenant(request)
    url = job_requests.check(schemas.WEBHOOK_TEST, request.json())["url"]
    try:
        parse_webhook_url(url, ctx.allowed_networks)
    except ValueError as exc:
        raise InvalidRequest(details=(Detail("url", str(exc)),)) from exc
    began = ctx.clock.now()
    message = NotificationMessage(id=message_id("test", ctx.new_id()), type="webhook.test", created_at=began, subject="", text="")
    status, error = None, None
    try:
        status = post_signed(ctx, tenant, url, message.id, message.payload()).status
    except DeliveryError as exc:
        error = exc.message
    delivered = status is not None and 200 <= status < 300
    duration = seconds(ctx.clock.now() - began)
    return ApiResponse(
        body={"delivered": delivered, "message_id": message.id, "status_code": status, "error": error, "duration_seconds": duration}
    )


@endpoint(blueprint, "GET", "/jobs/{job_id}/deliveries", Role.USER)
def deliveries(request: ApiRequest, job_id: str) -> ApiResponse:
    """Who was sent word of the job's end: each attempt, and what came of it."""
    job = _job(request, job_id)
    return ApiResponse(
        body={"job_id": job.id, "data": [delivery(one) for one in request.container.deliveries.for_owner(job.id)], "next_cursor": None}
    )


@endpoint(blueprint, "POST", "/jobs/{job_id}/deliveries/{delivery_id}/retry", Role.OPERATOR)
def retry(request: ApiRequest, job_id: str, delivery_id: str) -> ApiResponse:
    """Deliver it again from the start, for another 24 hours, however it ended."""
    job = _job(request, job_id)
    return ApiResponse(status=202, body=delivery(redeliver(request.container, job.id, checked_delivery_id(delivery_id))))


def _job(request: ApiRequest, job_id: str) -> Job:
    if request.caller.read_only:
        raise Forbidden("A ticket only reads a job's stream.")
    return request.caller.require_readable(request.container.jobs.get(job_id), job_id)


def _tenant(request: ApiRequest) -> str:
    if request.caller.read_only:
        raise Forbidden("A ticket only reads.")
    return request.caller.tenant


def _shape(ctx: Container, seal: SigningSecrets, book: RecipientAllowlist) -> dict[str, Any]:
    return {
        "secret": seal.current,
        "rotated_at": rfc3339(seal.rotated_at or None),
        "previous_valid_until": rfc3339(seal.previous_until(ctx.clock.now())),
        "addresses": {"emails": list(book.emails), "slack": {name: _masked(url) for name, url in sorted(book.slack.items())}},
        "email_configured": ctx.email.is_configured,
    }


def _masked(url: str) -> str:
    """Enough to tell one from another: whoever has such a URL may write to its channel."""
    return f"{'/'.join(url.split('/')[:3])}/...{url[-VISIBLE_CHARACTERS:]}"


def _allowlist(data: dict[str, Any], there: RecipientAllowlist, allowed: Sequence[Network]) -> RecipientAllowlist:
    """The new address book. What is not said stays as it is; a Slack URL may stay unsaid, since nobody is shown it.

    Raises:
        InvalidRequest: with every address that is none.
    """
    emails, slack = data.get("emails", list(there.emails)), data.get("slack")
    wrong = [Detail(f"emails.{at}", "is no e-mail address") for at, text in enumerate(emails) if not is_email(text)]
    urls = dict(there.slack)
    if slack is not None:
        urls = {name: url if url is not None else there.slack.get(name, "") for name, url in slack.items()}
        wrong += [Detail(f"slack.{name}", problem) for name, url in urls.items() if (problem := _slack_problem(name, url, allowed))]
    if wrong:
        raise InvalidRequest(details=tuple(wrong))
    return RecipientAllowlist(emails=tuple(dict.fromkeys(text.lower() for text in emails)), slack=urls)


def _slack_problem(name: str, url: str, allowed: Sequence[Network]) -> str | None:
    if not is_name(name):
        return "must be a name of lower-case letters, digits, dashes and underscores, at most 64"
    if not url:
        return "has no URL that could stay"
    try:
        parse_webhook_url(url, allowed)
    except ValueError as exc:
        return str(exc)
    return None
