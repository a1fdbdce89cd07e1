"""`/webhooks`: signing secret, recipient allowlist and test events; and the deliveries of a job."""

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
from chalicelib.entrypoints.http.responses.deliveries import delivery_shape
from chalicelib.entrypoints.http.server import ApiRequest, ApiResponse, endpoint
from chalicelib.observability import record
from chalicelib.services.notifications.dispatcher import post_signed
from chalicelib.services.notifications.settings import get_signing_secrets, redeliver, rotate_signing_secret

blueprint = Blueprint(__name__)

VISIBLE_CHARACTERS = 4  # at the end of a masked URL


@endpoint(blueprint, "GET", "/webhooks", Role.ADMIN)
def read(request: ApiRequest) -> ApiResponse:
    """Get the tenant's signing secret, created on first use, and its recipient allowlist."""
    ctx, tenant = request.container, _tenant(request)
    secrets = get_signing_secrets(ctx, tenant, fresh=True)
    return ApiResponse(body=_shape(ctx, secrets, ctx.notification_settings.allowlist(tenant, fresh=True)))


@endpoint(blueprint, "POST", "/webhooks/rotate", Role.ADMIN)
def rotate_secret(request: ApiRequest) -> ApiResponse:
    """Create a new signing secret; for 24 hours messages are also signed with the previous one."""
    ctx, tenant = request.container, _tenant(request)
    job_requests.check(schemas.NOTHING, request.json())
    secrets = rotate_signing_secret(ctx, tenant)
    record("signing_secret_rotated", tenant=tenant, key_id=request.caller.key_id)
    return ApiResponse(body=_shape(ctx, secrets, ctx.notification_settings.allowlist(tenant, fresh=True)))


@endpoint(blueprint, "PUT", "/webhooks/addresses", Role.ADMIN)
def put_addresses(request: ApiRequest) -> ApiResponse:
    """Change the recipients that `notify` may name; `null` keeps a stored Slack URL."""
    ctx, tenant = request.container, _tenant(request)
    data = job_requests.check(schemas.ADDRESSES, request.json())
    allowlist = _allowlist(data, ctx.notification_settings.allowlist(tenant, fresh=True), ctx.allowed_networks)
    ctx.notification_settings.put_allowlist(tenant, allowlist)
    record(
        "recipient_allowlist_changed", tenant=tenant, key_id=request.caller.key_id, emails=len(allowlist.emails), slack=len(allowlist.slack)
    )
    return ApiResponse(body=_shape(ctx, get_signing_secrets(ctx, tenant), allowlist))


@endpoint(blueprint, "POST", "/webhooks/test", Role.ADMIN)
def test(request: ApiRequest) -> ApiResponse:
    """Send one signed test event to a URL now and return the outcome."""
    ctx, tenant = request.container, _tenant(request)
    url = job_requests.check(schemas.WEBHOOK_TEST, request.json())["url"]
    try:
        parse_webhook_url(url, ctx.allowed_networks)
    except ValueError as exc:
        raise InvalidRequest(details=(Detail("url", str(exc)),)) from exc
    started_at = ctx.clock.now()
    message = NotificationMessage(id=message_id("test", ctx.new_id()), type="webhook.test", created_at=started_at, subject="", text="")
    status, error = None, None
    try:
        status = post_signed(ctx, tenant, url, message.id, message.payload()).status
    except DeliveryError as exc:
        error = exc.message
    delivered = status is not None and 200 <= status < 300
    duration = seconds(ctx.clock.now() - started_at)
    return ApiResponse(
        body={"delivered": delivered, "message_id": message.id, "status_code": status, "error": error, "duration_seconds": duration}
    )


@endpoint(blueprint, "GET", "/jobs/{job_id}/deliveries", Role.USER)
def deliveries(request: ApiRequest, job_id: str) -> ApiResponse:
    """List the notification deliveries of a job with their attempts."""
    job = _own_job(request, job_id)
    found = request.container.deliveries.for_owner(job.id)
    return ApiResponse(body={"job_id": job.id, "data": [delivery_shape(delivery) for delivery in found], "next_cursor": None})


@endpoint(blueprint, "POST", "/jobs/{job_id}/deliveries/{delivery_id}/retry", Role.OPERATOR, accepts=())
def retry(request: ApiRequest, job_id: str, delivery_id: str) -> ApiResponse:
    """Restart a delivery for another 24 hours, whatever its status."""
    job = _own_job(request, job_id)
    return ApiResponse(status=202, body=delivery_shape(redeliver(request.container, job.id, checked_delivery_id(delivery_id))))


def _own_job(request: ApiRequest, job_id: str) -> Job:
    if request.caller.read_only:
        raise Forbidden("A ticket only reads a job's text and events.")
    return request.caller.require_readable(request.container.jobs.get(job_id), job_id)


def _tenant(request: ApiRequest) -> str:
    if request.caller.read_only:
        raise Forbidden("A ticket is read-only.")
    return request.caller.tenant


def _shape(ctx: Container, secrets: SigningSecrets, allowlist: RecipientAllowlist) -> dict[str, Any]:
    return {
        "secret": secrets.current,
        "rotated_at": rfc3339(secrets.rotated_at or None),
        "previous_valid_until": rfc3339(secrets.previous_until(ctx.clock.now())),
        "addresses": {"emails": list(allowlist.emails), "slack": {name: _masked(url) for name, url in sorted(allowlist.slack.items())}},
        "email_configured": ctx.email.is_configured,
    }


def _masked(url: str) -> str:
    """Host and last characters of a Slack URL; the full URL would let its reader post."""
    return f"{'/'.join(url.split('/')[:3])}/...{url[-VISIBLE_CHARACTERS:]}"


def _allowlist(data: dict[str, Any], current: RecipientAllowlist, networks: Sequence[Network]) -> RecipientAllowlist:
    """The new allowlist. Missing fields keep their value, and so does a Slack URL that is null.

    Raises:
        InvalidRequest: addresses are invalid; the details name all of them.
    """
    emails, slack = data.get("emails", list(current.emails)), data.get("slack")
    details = [Detail(f"emails.{index}", "is not an e-mail address") for index, text in enumerate(emails) if not is_email(text)]
    urls = dict(current.slack)
    if slack is not None:
        urls = {name: url if url is not None else current.slack.get(name, "") for name, url in slack.items()}
        details += [Detail(f"slack.{name}", problem) for name, url in urls.items() if (problem := _slack_problem(name, url, networks))]
    if details:
        raise InvalidRequest(details=tuple(details))
    return RecipientAllowlist(emails=tuple(dict.fromkeys(text.lower() for text in emails)), slack=urls)


def _slack_problem(name: str, url: str, networks: Sequence[Network]) -> str | None:
    if not is_name(name):
        return "must be a name of at most 64 lower-case letters, digits, dashes and underscores"
    if not url:
        return "has no stored URL to keep"
    try:
        parse_webhook_url(url, networks)
    except ValueError as exc:
        return str(exc)
    return None
