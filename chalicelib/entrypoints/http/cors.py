"""Answer CORS preflight requests on every path, if the stage allows any origin."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from chalice import Response

from chalicelib.bootstrap import container
from chalicelib.entrypoints.http import access_log
from chalicelib.entrypoints.http.server import ApiResponse, cors_headers, to_chalice_response
from chalicelib.settings import settings

# What the API reads. A page may send others too: tracing libraries add theirs (traceparent, baggage,
# sentry-trace, x-datadog-...) to every request, no header but Authorization carries a right, and a
# browser that is refused one does not send the request at all.
REQUEST_HEADERS = ("Authorization", "Content-Type", "Idempotency-Key", "If-Match", "If-None-Match", "Last-Event-ID")
MAX_REQUESTED = 100  # further headers of one request
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
MAX_AGE_SECONDS = 7_200  # how long a browser may cache the answer; Chromium's maximum


def add_cors_preflight(app: Any) -> None:
    """Add an `OPTIONS` route to every path of `app`, if the settings allow any origin.

    Chalice's own CORS support is not used: it lets API Gateway answer, with one fixed origin.
    """
    if not settings().allowed_origins:
        return
    for path, methods in list(app.routes.items()):
        app.route(path, methods=["OPTIONS"], name=f"preflight {path}")(_view(app, tuple(methods)))


def allowed_headers(requested: str | None) -> list[str]:
    """The headers that a page may send: those that the API reads, and those that the page asks for."""
    known = {name.lower() for name in REQUEST_HEADERS}
    others = dict.fromkeys(name for text in (requested or "").split(",") if _HEADER.fullmatch(name := text.strip().lower()))
    return [*REQUEST_HEADERS, *[name for name in others if name not in known][:MAX_REQUESTED]]


def _view(app: Any, methods: tuple[str, ...]) -> Callable[..., Response]:
    def preflight(**_path_values: str) -> Response:
        request = app.current_request
        ctx, request_id = container(), access_log.id_of(request)
        started_at = ctx.clock.now()
        allowed = cors_headers(request.headers.get("origin"), ctx.settings)
        if allowed:
            allowed |= {
                "Access-Control-Allow-Methods": ", ".join(methods),
                "Access-Control-Allow-Headers": ", ".join(allowed_headers(request.headers.get("access-control-request-headers"))),
                "Access-Control-Max-Age": str(MAX_AGE_SECONDS),
            }
        access_log.log_request(request, request_id, 204, ctx.clock.now() - started_at)
        return to_chalice_response(ApiResponse(status=204), request_id, allowed)

    return preflight
