"""Convert the errors that Chalice itself answers into the API's error shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from chalice import Response

from chalicelib.bootstrap import container
from chalicelib.domain.errors import UnsupportedMediaType
from chalicelib.entrypoints.http import access_log, errors
from chalicelib.entrypoints.http.server import ApiResponse, cors_headers, to_chalice_response

CODES = {
    400: ("invalid_request", "The request could not be read."),
    404: ("not_found", "There is no such route; docs/api.md lists them."),
    405: ("method_not_allowed", "This route does not support this method."),
    415: (UnsupportedMediaType.code, UnsupportedMediaType().message),
}
FALLBACK = ("internal_error", "Internal error in Headrace.")


def wrap_chalice_errors(event: Any, get_response: Callable[[Any], Response]) -> Response:
    """Convert Chalice's error responses (`{"Code", "Message"}`); pass all others through."""
    ctx = container()
    started_at = ctx.clock.now()
    response = get_response(event)
    if not (isinstance(response.body, dict) and "Code" in response.body):
        return response
    request_id = access_log.id_of(event)
    if event is not None:
        access_log.log_request(event, request_id, response.status_code, ctx.clock.now() - started_at)
    code, message = CODES.get(response.status_code, FALLBACK)
    origin = event.headers.get("origin") if event is not None else None
    error = ApiResponse(status=response.status_code, body=errors.shape(code, message, request_id), headers=dict(response.headers))
    return to_chalice_response(error, request_id, cors_headers(origin, ctx.settings))
