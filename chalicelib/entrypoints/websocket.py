"""Handlers of the WebSocket API. Every message is answered with a frame, errors included."""

from __future__ import annotations

from functools import cache
from typing import Any

from chalicelib.bootstrap import Container, container
from chalicelib.domain import json_limits
from chalicelib.domain.auth.identity import Role
from chalicelib.domain.errors import (
    ConnectionBusy,
    ConnectionGone,
    ConnectionUnknown,
    Forbidden,
    HeadraceError,
    InvalidRequest,
    RateLimited,
    TooManyConnections,
    TooManyWatchers,
    Unauthenticated,
)
from chalicelib.domain.ids import checked_batch_id, checked_job_id
from chalicelib.domain.streaming import frames
from chalicelib.domain.streaming.socket_budget import MAX_MESSAGE_LENGTH
from chalicelib.domain.streaming.subscriptions import LAST_OFFSET, Connection
from chalicelib.domain.validation.schema import problems
from chalicelib.domain.validation.whole_numbers import whole_numbers
from chalicelib.entrypoints.http.requests.jobs import LAST_ATTEMPT
from chalicelib.observability import record
from chalicelib.services.auth.authenticate import authenticate_bearer, authenticate_ticket
from chalicelib.services.batches.subscribe import subscribe_to_batch
from chalicelib.services.jobs.cancel_job import cancel_job
from chalicelib.services.streaming.socket_meter import meter_message
from chalicelib.services.streaming.subscriptions import (
    close_connection,
    get_connection,
    open_connection,
    send_reply,
    subscribe,
    unsubscribe,
)

Event = dict[str, Any]

MAX_DETAILS = 10  # keeps error frames small enough

_JOB_ID = {"type": "string", "minLength": 1, "maxLength": 64}
_ATTEMPT = {"type": "integer", "minimum": 0, "maximum": LAST_ATTEMPT}
_OFFSET = {"type": "integer", "minimum": 0, "maximum": LAST_OFFSET}
_BATCH = {"batch_id": _JOB_ID, "tenant": {"type": "string", "minLength": 1, "maxLength": 64}}
ACTIONS: dict[str, dict[str, Any]] = {
    "subscribe": {"job_id": _JOB_ID, "attempt": _ATTEMPT, "offset": _OFFSET},
    "unsubscribe": {"job_id": _JOB_ID},
    "cancel": {"job_id": _JOB_ID},
    "ping": {},
}
BATCH_ACTIONS: dict[str, dict[str, Any]] = {"subscribe": _BATCH, "unsubscribe": _BATCH}  # for messages with a `batch_id`


def connect(event: Event) -> dict[str, int]:
    """Handle `$connect`: the status makes API Gateway open the connection or refuse it."""
    context, ctx = event["requestContext"], container()
    headers = {name.lower(): value for name, value in (event.get("headers") or {}).items()}
    ticket = (event.get("queryStringParameters") or {}).get("ticket")
    try:
        if ticket:
            caller = authenticate_ticket(ctx.api_key_cache, ctx.tickets, ctx.clock, ticket, context["connectionId"])
        else:
            caller = authenticate_bearer(ctx.api_key_cache, headers.get("authorization"))
        caller.require(Role.USER)
        open_connection(ctx, context["connectionId"], endpoint_of(context), caller)
    except Unauthenticated:
        return {"statusCode": 401}
    except Forbidden:
        return {"statusCode": 403}
    except (RateLimited, TooManyConnections) as exc:
        record("connection_refused", tenant=caller.tenant, key_id=caller.key_id, reason=exc.code)
        return {"statusCode": 429}
    except HeadraceError as exc:
        record("connection_not_opened", error=exc)
        return {"statusCode": 503}
    return {"statusCode": 200}


def message(event: Event) -> dict[str, int]:
    """Handle `$default`: one message of a client."""
    context, ctx = event["requestContext"], container()
    connection_id, endpoint = context["connectionId"], endpoint_of(context)
    reply_to: Any = None
    try:
        connection = get_connection(ctx, connection_id)
        meter_message(ctx, connection)
        data = _parse(event.get("body"))
        reply_to = data.get("id")
        _handle(ctx, connection, data)
    except (ConnectionGone, ConnectionBusy) as exc:  # the client asks again when it hears nothing
        record("socket_reply_failed", connection_id=connection_id, reason=exc.code)
    except (ConnectionUnknown, Unauthenticated) as exc:  # every later message would get this answer, so its client has to connect again
        _reply(ctx, endpoint, connection_id, _error_of(ctx, exc, reply_to))
        _close(ctx, endpoint, connection_id)
    except HeadraceError as exc:
        _reply(ctx, endpoint, connection_id, _error_of(ctx, exc, reply_to))
    except Exception as exc:  # noqa: BLE001 - no internal detail may reach the client, and the connection stays open
        record("socket_message_failed", connection_id=connection_id, error=exc)
        _reply(ctx, endpoint, connection_id, _error(ctx, "internal_error", "Internal error in Headrace. Try again.", reply_to))
    return {"statusCode": 200}


def disconnect(event: Event) -> dict[str, int]:
    """Handle `$disconnect`. It is not guaranteed to arrive, so connections also expire."""
    close_connection(container(), event["requestContext"]["connectionId"])
    return {"statusCode": 200}


def endpoint_of(context: dict[str, Any]) -> str:
    """The URL that frames of this connection are posted to: `https://{domain}/{stage}`.

    The domain may have its own scheme (a local stack).
    """
    domain: str = context["domainName"]
    return f"{domain if '://' in domain else f'https://{domain}'}/{context['stage']}"


def _parse(body: str | None) -> dict[str, Any]:
    """Parse and validate a message.

    Raises:
        InvalidRequest: the message is invalid; the details say why.
    """
    if len(body or "") > MAX_MESSAGE_LENGTH:
        raise InvalidRequest(f"A message may have {MAX_MESSAGE_LENGTH} characters.")
    try:
        data = json_limits.loads(body or "")
    except json_limits.JsonRefused as exc:
        raise InvalidRequest(f"The message {exc}.") from exc
    except ValueError as exc:
        raise InvalidRequest("The message is not JSON.") from exc
    action = data.get("action") if isinstance(data, dict) else None
    if not isinstance(action, str) or action not in ACTIONS:
        raise InvalidRequest(f"`action` must be one of {', '.join(ACTIONS)}.")
    schema = _message_schema(action, of_batch="batch_id" in data)
    details = problems(schema, data)
    if details:
        raise InvalidRequest(details=details)
    checked: dict[str, Any] = whole_numbers(schema, data)
    return checked


@cache
def _message_schema(action: str, *, of_batch: bool) -> dict[str, Any]:
    """Return the schema of a message. It is made once, because it is compiled and kept by its identity."""
    fields = BATCH_ACTIONS.get(action, ACTIONS[action]) if of_batch else ACTIONS[action]
    properties = {"action": {}, "id": {"type": ["string", "integer"], "maxLength": 128}, **fields}
    return {"type": "object", "properties": properties, "additionalProperties": False, "required": list(fields)[:1]}


def _handle(ctx: Container, connection: Connection, data: dict[str, Any]) -> None:
    action = data["action"]
    if "batch_id" in data:
        _subscribe_batch(ctx, connection, data)
        return
    if "job_id" in data:
        checked_job_id(data["job_id"])
    if action == "ping":
        send_reply(ctx, connection.endpoint, connection.id, {"event": "pong", "reply_to": data.get("id")})
    elif action == "subscribe":
        subscribe(ctx, connection, data["job_id"], data.get("attempt", 0), data.get("offset", 0), data.get("id"))
    elif action == "unsubscribe":
        unsubscribe(ctx, connection, data["job_id"])
    else:
        _cancel(ctx, connection, data["job_id"])


def _subscribe_batch(ctx: Container, connection: Connection, data: dict[str, Any]) -> None:
    batch_id = checked_batch_id(data["batch_id"])
    if data["action"] == "subscribe":
        subscribe_to_batch(ctx, connection, batch_id, data.get("tenant"), data.get("id"))
    else:
        unsubscribe(ctx, connection, batch_id)


def _cancel(ctx: Container, connection: Connection, job_id: str) -> None:
    if connection.caller.read_only:
        raise Forbidden("A ticket is read-only. Cancel over HTTPS with an API key.")
    job = connection.caller.require_readable(ctx.jobs.get(job_id), job_id)
    if not job.status.is_terminal:
        cancel_job(ctx, job)


def _error_of(ctx: Container, exc: HeadraceError, reply_to: Any) -> frames.Frame:
    details = [{"path": detail.path[:100], "message": detail.message[:200]} for detail in exc.details[:MAX_DETAILS]]
    advice = {"poll": exc.poll} if isinstance(exc, TooManyWatchers) else {}
    wait = {"retry_after": exc.retry_after} if exc.retry_after is not None else {}
    return {**_error(ctx, exc.code, exc.message, reply_to), "details": details, **wait, **advice}


def _error(ctx: Container, code: str, text: str, reply_to: Any) -> frames.Frame:
    return frames.error(code, text, ctx.clock.now(), reply_to=reply_to)


def _reply(ctx: Container, endpoint: str, connection_id: str, frame: frames.Frame) -> None:
    try:
        send_reply(ctx, endpoint, connection_id, frame)
    except HeadraceError as exc:
        record("socket_reply_failed", connection_id=connection_id, reason=exc.code)


def _close(ctx: Container, endpoint: str, connection_id: str) -> None:
    try:
        ctx.sockets.close(endpoint, connection_id)
    except HeadraceError as exc:
        record("socket_not_closed", connection_id=connection_id, reason=exc.code)
