"""HTTP in, HTTP out: what every route shares, so that a handler parses, calls one use case, and shapes the answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from chalice import Blueprint, Response

from chalicelib.bootstrap import Container, container
from chalicelib.domain.auth.identity import Caller, Role
from chalicelib.domain.errors import Detail, HeadraceError, InvalidRequest, RateLimited, TooLarge, Unavailable
from chalicelib.domain.ids import checked_job_id
from chalicelib.entrypoints.http import access_log, errors
from chalicelib.observability import record
from chalicelib.services.auth.authenticate import authenticate_bearer, authenticate_ticket
from chalicelib.settings import Settings

MAX_BODY_BYTES = 4_000_000
WINDOW_SECONDS = 60
JSON = "application/json"
REPLAYED = {"Idempotent-Replayed": "true"}
EXPOSED = ("X-Request-Id", "Headrace-Version", "RateLimit", "RateLimit-Policy", "Retry-After", "ETag", "Idempotent-Replayed")


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiRequest:
    """A request as routes see it. `caller` is whoever sent it; public routes have none. `over_rate`: it should come more slowly."""

    id: str
    container: Container
    method: str
    path: str
    query: dict[str, str]
    headers: Any
    raw: bytes
    caller_or_none: Caller | None = None
    over_rate: bool = False

    @property
    def caller(self) -> Caller:
        if self.caller_or_none is None:
            raise TypeError("a public route has no caller")
        return self.caller_or_none

    def json(self) -> dict[str, Any]:
        """The body as a JSON object; an empty body is an empty object.

        Raises:
            InvalidRequest: it is not one.
            TooLarge: it is larger than a request may be.
        """
        if len(self.raw) > MAX_BODY_BYTES:
            raise TooLarge("A request may have 4 MB.")
        if not self.raw:
            return {}
        try:
            data = json.loads(self.raw)
        except (ValueError, RecursionError) as exc:
            raise InvalidRequest("The body is not JSON.", details=(Detail("", str(exc)[:200]),)) from exc
        if not isinstance(data, dict):
            raise InvalidRequest("The body must be a JSON object.", details=(Detail("", f"is {type(data).__name__}, not an object"),))
        return data


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiResponse:
    """What a handler answers. An object gets `success: true`; text goes out as it is."""

    body: dict[str, Any] | str | None = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A line of the API's table: what the document of the API and the tests of its roles are made from."""

    path: str
    method: str
    role: Role | None
    summary: str


ROUTES: list[Route] = []


Handler = Callable[..., ApiResponse]  # (request, and the values of the path by name)


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteOptions:
    """How a route is served: see `endpoint`."""

    handler: Handler
    role: Role | None
    tickets: bool
    rate_limited: bool
    fallback: ApiResponse | None


@dataclass(slots=True)
class RequestState:
    """What is known of a request while it is served."""

    id: str
    container: Container
    caller: Caller | None = None
    over_rate: bool = False
    headers: dict[str, str] = field(default_factory=dict)


def endpoint(
    blueprint: Blueprint,
    method: str,
    path: str,
    role: Role | None,
    *,
    tickets: bool = False,
    slows: bool = False,
    instead: ApiResponse | None = None,
    accepts: tuple[str, ...] = (JSON,),
) -> Callable[[Handler], Handler]:
    """Register a handler. `role` is the least that may call it, None for a public route; `tickets`: `?ticket=` will do instead of a key.

    `slows`: too many requests are not refused but told to come more slowly, and are counted apart from the others.

    `accepts`: what a body may be. `instead` is answered where others answer that something is wrong on our side.
    """

    def register(handler: Handler) -> Handler:
        way = RouteOptions(handler=handler, role=role, tickets=tickets, rate_limited=slows, fallback=instead)

        def view(**path_values: str) -> Response:
            return _handle(blueprint.current_request, way, path_values)

        name = f"{handler.__name__}_{method.lower()}"
        content_types = list(accepts) if method in ("POST", "PATCH") else []
        blueprint.route(path, methods=[method], name=name, content_types=content_types or [JSON])(view)
        ROUTES.append(Route(path=path, method=method, role=role, summary=(handler.__doc__ or "").strip().split("\n")[0]))
        return handler

    return register


def _handle(raw: Any, way: RouteOptions, path_values: dict[str, str]) -> Response:
    visit = RequestState(access_log.id_of(raw), container())
    began = visit.container.clock.now()
    answer = _answer(raw, way, path_values, visit)
    access_log.log_request(raw, visit.id, answer.status, visit.container.clock.now() - began, visit.caller)
    return to_chalice_response(answer, visit.id, {**visit.headers, **cors_headers(raw.headers.get("origin"), visit.container.settings)})


def _answer(raw: Any, way: RouteOptions, path_values: dict[str, str], visit: RequestState) -> ApiResponse:
    try:
        if way.role is not None:
            _admit(raw, way, way.role, visit)
        if "job_id" in path_values:
            checked_job_id(path_values["job_id"])
        return way.handler(_request(raw, visit), **path_values)
    except HeadraceError as exc:
        answer = error_response(exc, visit.id)
        if answer.status < 500:
            return answer
        record("request_failed", request_id=visit.id, path=raw.path, error=exc)
    except Exception as exc:  # noqa: BLE001 - the last line of defence: nothing internal may show
        record("request_failed", request_id=visit.id, path=raw.path, error=exc)
        body_shape = errors.shape("internal_error", f"Something went wrong on our side. Quote request {visit.id}.", visit.id)
        answer = ApiResponse(status=500, body=body_shape)
    return way.fallback or answer


def _admit(raw: Any, way: RouteOptions, role: Role, visit: RequestState) -> None:
    visit.caller = _caller(visit.container, raw, tickets=way.tickets)
    visit.caller.require(role)
    visit.over_rate = not _check_rate_limit(visit.container, visit.caller, visit.headers, "stream" if way.rate_limited else "key")
    if visit.over_rate and not way.rate_limited:
        raise RateLimited(retry_after=WINDOW_SECONDS - visit.container.clock.now() // 1000 % WINDOW_SECONDS)


def _request(raw: Any, visit: RequestState) -> ApiRequest:
    body = raw.raw_body
    return ApiRequest(
        id=visit.id,
        container=visit.container,
        method=raw.method,
        path=raw.path,
        query={key: raw.query_params[key] for key in raw.query_params or {}},
        headers=raw.headers,
        raw=body.encode() if isinstance(body, str) else body or b"",
        caller_or_none=visit.caller,
        over_rate=visit.over_rate,
    )


def error_response(error: HeadraceError, request_id: str) -> ApiResponse:
    """An error as an answer."""
    retry = {"Retry-After": str(error.retry_after)} if error.retry_after is not None else {}
    return ApiResponse(
        status=errors.status_of(error), body=errors.shape(error.code, error.message, request_id, error.details), headers=retry
    )


def to_chalice_response(answer: ApiResponse, request_id: str, headers: dict[str, str]) -> Response:
    """An answer as it leaves: with the headers that every answer has."""
    body: Any = answer.body
    content_type = {"Content-Type": JSON}
    if isinstance(body, dict):
        body = json.dumps({"success": True, **body}, ensure_ascii=False, separators=(",", ":"))
    elif body is None:
        body, content_type = "", {}
    return Response(
        body=body,
        status_code=answer.status,
        headers={
            **content_type,
            "X-Request-Id": request_id,
            "Headrace-Version": "1",
            "Cache-Control": "no-store",
            **headers,
            **answer.headers,
        },
    )


def cors_headers(origin: str | None, settings: Settings) -> dict[str, str]:
    """The headers that let a page of an allowed origin read the answer."""
    allowed = settings.allowed_origins
    if not origin or (origin not in allowed and "*" not in allowed):
        return {}
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Expose-Headers": ", ".join(EXPOSED),
        "Vary": "Origin",
    }


def _caller(ctx: Container, raw: Any, *, tickets: bool) -> Caller:
    ticket = (raw.query_params or {}).get("ticket")
    if tickets and ticket:
        return authenticate_ticket(ctx.api_key_cache, ctx.tickets, ctx.clock, ticket)
    return authenticate_bearer(ctx.api_key_cache, raw.headers.get("authorization"))


def _check_rate_limit(ctx: Container, caller: Caller, headers: dict[str, str], meter: str) -> bool:
    """Count the request against its key's minute, and say in the headers what is left of it. False: nothing is."""
    limit = ctx.settings.requests_per_minute
    now = ctx.clock.now() // 1000
    headers["RateLimit-Policy"] = f'"{meter}";q={limit};w={WINDOW_SECONDS}'
    try:
        used = ctx.request_counters.increment(f"{meter}#{caller.key_id}", now // WINDOW_SECONDS, now + 2 * WINDOW_SECONDS)
    except Unavailable as exc:  # who cannot be counted is let in: the meter guards against haste, not against strangers
        record("rate_limit_count_failed", key_id=caller.key_id, error=exc)
        return True
    headers["RateLimit"] = f'"{meter}";r={max(0, limit - used)};t={WINDOW_SECONDS - now % WINDOW_SECONDS}'
    return used <= limit
