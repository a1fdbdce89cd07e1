"""What browsers ask before they send a key or JSON to another origin. Where origins are allowed, every path answers it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from chalice import Response

from chalicelib.bootstrap import container
from chalicelib.entrypoints.http import access_log
from chalicelib.entrypoints.http.server import ApiResponse, cors_headers, to_chalice_response
from chalicelib.settings import settings

REQUEST_HEADERS = ("Authorization", "Content-Type", "Idempotency-Key", "If-Match", "If-None-Match", "Last-Event-ID")
MAX_AGE_SECONDS = 7_200  # seconds that a browser need not ask again; Chromium's longest


def add_cors_preflight(app: Any) -> None:
    """Add `OPTIONS` to every path of `app`; without allowed origins, nothing: then no page may call the API.

    Chalice's own CORS would have API Gateway answer, which knows one origin and cannot choose.
    """
    if not settings().allowed_origins:
        return
    for path, methods in list(app.routes.items()):
        app.route(path, methods=["OPTIONS"], name=f"preflight {path}")(_view(app, tuple(methods)))


def _view(app: Any, methods: tuple[str, ...]) -> Callable[..., Response]:
    def preflight(**_path_values: str) -> Response:
        request = app.current_request
        ctx, request_id = container(), access_log.id_of(request)
        began = ctx.clock.now()
        allowed = cors_headers(request.headers.get("origin"), ctx.settings)
        if allowed:
            allowed |= {
                "Access-Control-Allow-Methods": ", ".join(methods),
                "Access-Control-Allow-Headers": ", ".join(REQUEST_HEADERS),
                "Access-Control-Max-Age": str(MAX_AGE_SECONDS),
            }
        access_log.log_request(request, request_id, 204, ctx.clock.now() - began)
        return to_chalice_response(ApiResponse(status=204), request_id, allowed)

    return preflight
