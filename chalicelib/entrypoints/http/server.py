"""What all routes share: authentication, rate limits, request and response types, errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any

from chalice import Blueprint, Response

from chalicelib.bootstrap import Container, container
from chalicelib.domain.auth.identity import Caller, Role
from chalicelib.domain.errors import HeadraceError, RateLimited
from chalicelib.domain.ids import checked_job_id
from chalicelib.entrypoints.http import access_log, errors
from chalicelib.entrypoints.http.query import parse_query
from chalicelib.entrypoints.http.request_body import JSON, check_json_body, parse_object, refuse_body
from chalicelib.observability import record
from chalicelib.services.auth.authenticate import authenticate_bearer, authenticate_ticket
from chalicelib.services.auth.rate_limit import WINDOW_SECONDS, count_requests, seconds_left
from chalicelib.settings import Settings

BYTES_PER_REQUEST = 65_536  # a larger body counts as several requests, because its work grows with it
REPLAYED = {"Idempotent-Replayed": "true"}
WITH_BODY = ("POST", "PATCH", "PUT")
EXPOSED = ("X-Request-Id", "Headrace-Version", "RateLimit", "RateLimit-Policy", "Retry-After", "ETag", "Idempotent-Replayed")


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiRequest:
    """A request as handlers get it.

    `caller_or_none` is None on public routes. `over_rate`: the key is over its rate limit; only on
    routes that slow clients down instead of rejecting them.
    """

    id: str
    container: Container
    method: str
    path: str
    query: dict[str, str]
    headers: Any
    raw: bytes
    caller_or_none: Caller | None = None
    over_rate: bool = False
    # Counts this many further requests; raises `RateLimited` if the key was over its limit before.
    charge: Callable[[int], None] = lambda _requests: None

    @property
    def caller(self) -> Caller:
        """The authenticated caller of a route that is not public."""
        if self.caller_or_none is None:
            raise TypeError("a public route has no caller")
        return self.caller_or_none

    def json(self) -> dict[str, Any]:
        """The body as a JSON object; an empty body is an empty object.

        Raises:
            InvalidRequest: the body is not a JSON object, or has too many values.
        """
        return parse_object(self.raw)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiResponse:
    """The response of a handler. A JSON object gets `success: true`; text is sent unchanged."""

    body: dict[str, Any] | str | None = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class Effect(StrEnum):
    """What a route may change or show in full."""

    OWN = "own"  # what belongs to the caller's tenant
    STAGE = "stage"  # what all tenants share, so that it needs a key of all tenants


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A registered route. The OpenAPI document and docs/routes.md are generated from these."""

    path: str
    method: str
    role: Role | None
    summary: str
    query: tuple[str, ...] = ()
    accepts: tuple[str, ...] = ()
    fallback_status: int | None = None  # sent instead of a 5xx response
    effect: Effect = Effect.OWN


ROUTES: list[Route] = []  # filled by `endpoint`


Handler = Callable[..., ApiResponse]  # called with the request, and the path parameters by name


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteOptions:
    """How a route is served: see `endpoint`."""

    handler: Handler
    role: Role | None
    tickets: bool
    rate_limited: bool
    fallback: ApiResponse | None
    effect: Effect
    query: tuple[str, ...]
    accepts: tuple[str, ...]


@dataclass(slots=True)
class RequestState:
    """What is known about a request while it is handled."""

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
    query: tuple[str, ...] = (),
    tickets: bool = False,
    rate_limited: bool = True,
    fallback: ApiResponse | None = None,
    accepts: tuple[str, ...] | None = None,
    effect: Effect = Effect.OWN,
) -> Callable[[Handler], Handler]:
    """Register the decorated handler as a route.

    Args:
        role: the minimum role of the caller; None makes the route public.
        query: the names of its query parameters; others are refused.
        tickets: a `?ticket=` may replace the API key.
        rate_limited: reject requests over the rate limit. If False, they are counted separately and
            reach the handler with `over_rate` set.
        fallback: sent instead of a 5xx response.
        accepts: the content types of the request body; empty: it reads none. The default is JSON for
            `POST`, `PATCH` and `PUT`. A route with other types than JSON checks them itself.
        effect: a route with an effect on the stage needs a key of all tenants, whatever its role.
    """

    def register(handler: Handler) -> Handler:
        types = accepts if accepts is not None else (JSON,) if method in WITH_BODY else ()
        options = RouteOptions(
            handler=handler,
            role=role,
            tickets=tickets,
            rate_limited=rate_limited,
            fallback=fallback,
            effect=effect,
            query=query,
            accepts=types,
        )

        def view(**path_values: str) -> Response:
            return _handle(blueprint.current_request, options, path_values)

        name = f"{handler.__name__}_{method.lower()}"
        # Chalice would refuse the type of a body that is empty, in one sentence for all routes.
        blueprint.route(path, methods=[method], name=name, content_types=["*/*"])(view)
        summary = (handler.__doc__ or "").strip().split("\n")[0]
        instead = fallback.status if fallback is not None else None
        ROUTES.append(
            Route(path=path, method=method, role=role, summary=summary, query=query, accepts=types, fallback_status=instead, effect=effect)
        )
        return handler

    return register


def _handle(raw: Any, options: RouteOptions, path_values: dict[str, str]) -> Response:
    state = RequestState(access_log.id_of(raw), container())
    started_at = state.container.clock.now()
    response = _respond(raw, options, path_values, state)
    access_log.log_request(raw, state.id, response.status, state.container.clock.now() - started_at, state.caller)
    return to_chalice_response(response, state.id, {**state.headers, **cors_headers(raw.headers.get("origin"), state.container.settings)})


def _respond(raw: Any, options: RouteOptions, path_values: dict[str, str], state: RequestState) -> ApiResponse:
    try:
        if options.role is not None:
            _authorize(raw, options, options.role, state)
        if "job_id" in path_values:
            checked_job_id(path_values["job_id"])
        return options.handler(_request(raw, state, options), **path_values)
    except HeadraceError as exc:
        response = error_response(exc, state.id)
        if response.status < 500:
            return response
        record("request_failed", request_id=state.id, path=raw.path, error=exc)
    except Exception as exc:  # noqa: BLE001 - no internal detail may reach the client
        record("request_failed", request_id=state.id, path=raw.path, error=exc)
        body = errors.shape("internal_error", f"Internal error in Headrace. Quote request {state.id} when you report it.", state.id)
        response = ApiResponse(status=500, body=body)
    return options.fallback or response


def _authorize(raw: Any, options: RouteOptions, role: Role, state: RequestState) -> None:
    """Authenticate the caller, check the role, and count the request against the rate limit."""
    state.caller = _caller(state.container, raw, tickets=options.tickets)
    state.caller.require(role)
    if options.effect is Effect.STAGE:
        state.caller.require_all_tenants()
    requests = requests_of(len(_body_of(raw)), BYTES_PER_REQUEST)
    if options.rate_limited:
        _charge(state, requests)
    else:
        state.over_rate = not _check_rate_limit(state.container, state.caller, state.headers, "stream", requests)


def requests_of(size: int, size_of_one: int) -> int:
    """Return as how many requests `size` bytes count, each started `size_of_one` as one."""
    return max(1, -(-size // size_of_one))


def _charge(state: RequestState, requests: int) -> None:
    """Count requests against the limit of the key.

    Raises:
        RateLimited: the key was over it before. A request that alone is larger than the rest is
            accepted, and the next ones wait.
    """
    assert state.caller is not None
    if not _check_rate_limit(state.container, state.caller, state.headers, "key", requests):
        raise RateLimited(retry_after=seconds_left(state.container.clock.now()))


def _body_of(raw: Any) -> bytes:
    body: str | bytes | None = raw.raw_body
    return body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body or b""


def _request(raw: Any, state: RequestState, options: RouteOptions) -> ApiRequest:
    """The request as handlers get it.

    Raises:
        InvalidRequest: a query parameter is unknown or repeated, or the body is not what the route reads.
        UnsupportedMediaType: the body has another content type.
    """
    query, body = parse_query(raw.query_params, options.query), _body_of(raw)
    if not options.accepts:
        refuse_body(body)
    elif options.accepts == (JSON,):
        check_json_body(body, raw.headers.get("content-type"), raw.headers.get("content-encoding"))
    return ApiRequest(
        id=state.id,
        container=state.container,
        method=raw.method,
        path=raw.path,
        query=query,
        headers=raw.headers,
        raw=body,
        caller_or_none=state.caller,
        over_rate=state.over_rate,
        charge=partial(_charge, state),
    )


def error_response(error: HeadraceError, request_id: str) -> ApiResponse:
    """The response for an error."""
    headers = {"Retry-After": str(error.retry_after)} if error.retry_after is not None else {}
    return ApiResponse(
        status=errors.status_of(error),
        body=errors.shape(error.code, error.message, request_id, error.details, getattr(error, "facts", {})),
        headers=headers,
    )


def to_chalice_response(response: ApiResponse, request_id: str, headers: dict[str, str]) -> Response:
    """Convert a response for Chalice, with the headers that all responses have."""
    body: Any = response.body
    content_type = {"Content-Type": JSON}
    if isinstance(body, dict):
        body = json.dumps({"success": True, **body}, ensure_ascii=False, separators=(",", ":"))
    elif body is None:
        body, content_type = "", {}
    return Response(
        body=body,
        status_code=response.status,
        headers={
            **content_type,
            "X-Request-Id": request_id,
            "Headrace-Version": "1",
            "Cache-Control": "no-store",
            **headers,
            **response.headers,
        },
    )


def cors_headers(origin: str | None, settings: Settings) -> dict[str, str]:
    """The headers that let a page of an allowed origin read the response."""
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


def _check_rate_limit(ctx: Container, caller: Caller, headers: dict[str, str], policy: str, requests: int) -> bool:
    """Count requests and set the `RateLimit` headers. False if the key was over its limit before."""
    limit = ctx.settings.requests_per_minute
    headers["RateLimit-Policy"] = f'"{policy}";q={limit};w={WINDOW_SECONDS}'
    used = count_requests(ctx, caller, policy, requests)
    if used:
        headers["RateLimit"] = f'"{policy}";r={max(0, limit - used)};t={seconds_left(ctx.clock.now())}'
    return used - requests < limit
