"""Find the rows of a batch submission: in the request body or in an upload."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from chalicelib.domain import json_limits
from chalicelib.domain.batches.options import merge_options, options_from_query
from chalicelib.domain.errors import Detail, InvalidRequest
from chalicelib.domain.files.upload import BYTES_PER_REQUEST
from chalicelib.entrypoints.http.request_body import JSON
from chalicelib.entrypoints.http.server import ApiRequest, requests_of
from chalicelib.services.files.uploads import open_upload

NEWLINE, REPLACEMENT = b"\n", "\ufffd".encode()


def batch_source(request: ApiRequest) -> tuple[str, Iterable[bytes], dict[str, Any]]:
    """Content type, bytes and options of a batch submission.

    The rows are the request body, or the upload that the query or a JSON body names as `upload_id`.

    Raises:
        InvalidRequest: the request has both an upload and rows, or its body is not UTF-8.
        UploadNotFound, TooLarge: see `open_upload`.
        RateLimited: the key was over its limit before the upload was counted.
    """
    content_type, options = str(request.headers.get("content-type") or JSON), options_from_query(request.query)
    body = _json_options(request, options) if content_type.lower().startswith(JSON) else None
    if "upload_id" not in {**options, **(body or {})}:
        return content_type, [_require_utf8(request.raw)], options
    if "items" in (body or {}) or (body is None and request.raw):
        raise InvalidRequest(details=(Detail("upload_id", "cannot be given together with rows in the body"),))
    options = merge_options(options, body or {})
    upload_id = options.pop("upload_id", None)
    if not isinstance(upload_id, str):
        raise InvalidRequest(details=(Detail("upload_id", "must be the text that POST /uploads returned"),))
    opened = open_upload(request.container.uploads, request.caller, upload_id)
    request.charge(requests_of(opened.size, BYTES_PER_REQUEST))
    return opened.content_type, opened.pieces, options


def _require_utf8(raw: bytes) -> bytes:
    """The body, if it is intact.

    API Gateway passes the body as text and replaces bytes that are not UTF-8 by U+FFFD. That
    character is the only sign that bytes were lost.

    Raises:
        InvalidRequest: the body contains U+FFFD.
    """
    position = raw.find(REPLACEMENT)
    if position >= 0:
        problem = "is not UTF-8, or contains U+FFFD. Save the file as UTF-8 and send it again; use an upload if U+FFFD is intended."
        raise InvalidRequest("The batch cannot be read.", details=(Detail(f"line {raw.count(NEWLINE, 0, position) + 1}", problem),))
    return raw


def _json_options(request: ApiRequest, options: Mapping[str, Any]) -> dict[str, Any] | None:
    """The JSON object beside an upload, None if the body is something else.

    The row reader reports what is wrong with such a body.
    """
    if not request.raw or not ("upload_id" in options or b"upload_id" in request.raw):
        return {}
    try:
        data = json_limits.loads(request.raw, json_limits.MAX_ROWS_VALUES)
    except ValueError:
        return None
    return data if isinstance(data, dict) else None
