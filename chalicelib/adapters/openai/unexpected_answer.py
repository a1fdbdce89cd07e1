"""Answers with status 200 that are no stream: a page, or an error as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chalicelib.adapters.openai.errors import from_response, no_api, redirected
from chalicelib.domain import json_limits

if TYPE_CHECKING:
    from openai._response import AsyncAPIResponse


async def check_answer(response: AsyncAPIResponse[Any]) -> None:
    """Read an answer that is no stream.

    Raises:
        AddressInvalid: it is a page, so the address is that of a web site, or the request was redirected.
        AttemptFailed: it is an error.
    """
    if (elsewhere := redirected(response.http_response)) is not None:
        raise elsewhere
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in ("text/html", "application/xhtml+xml"):
        raise no_api(str(response.http_response.request.url), await response.http_response.aread())
    if kind != "application/json" and not kind.endswith("+json"):
        return
    try:
        body = json_limits.loads(await response.http_response.aread(), json_limits.MAX_ANSWER_VALUES, unique_names=False)
    except ValueError:
        return  # whoever reads the stream finds out
    if _is_error(body):
        raise from_response(200, response.headers, body, str(response.http_response.request.url))


def _is_error(body: object) -> bool:
    """Whether it is an error, and no response; a failed response has an `error`, too, which its reader finds."""
    if not isinstance(body, dict) or body.get("object") == "response" or "output" in body:
        return False
    return bool(body.get("error") or body.get("object") == "error" or "detail" in body or "errors" in body)
