"""Where the rows of a batch submission come from: the request body or an upload."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from chalicelib.domain.batches.options import merge_options, options_from_query
from chalicelib.domain.errors import Detail, InvalidRequest
from chalicelib.entrypoints.http.server import JSON, ApiRequest
from chalicelib.services.files.uploads import open_upload

NEWLINE, REPLACEMENT = b"\n", "\ufffd".encode()


def batch_source(request: ApiRequest) -> tuple[str, Iterable[bytes], dict[str, Any]]:
    """What the rows of a batch are read from: its Content-Type, its bytes, and the terms beside it.

    That is the body of the request, or the upload that the query or a JSON body names as `upload_id`.

    Raises:
        InvalidRequest: it names an upload and brings rows as well; or some of them were lost on the way.
        UploadNotFound, TooLarge: see `open_upload`.
    """
    content_type, said = str(request.headers.get("content-type") or JSON), options_from_query(request.query)
    body = _object_of(request, said) if content_type.lower().startswith(JSON) else None
    if "upload_id" not in {**said, **(body or {})}:
        return content_type, [_require_utf8(request.raw)], said
    if "items" in (body or {}) or (body is None and request.raw):
        raise InvalidRequest(details=(Detail("upload_id", "stands for the rows: send no others in the body"),))
    said = merge_options(said, body or {})
    upload_id = said.pop("upload_id", None)
    if not isinstance(upload_id, str):
        raise InvalidRequest(details=(Detail("upload_id", "must be text, as POST /uploads answered it"),))
    opened = open_upload(request.container.uploads, request.caller, upload_id)
    return opened.content_type, opened.pieces, said


def _require_utf8(raw: bytes) -> bytes:
    """The body, unless bytes of it were lost. API Gateway hands on text: where it finds no UTF-8 it puts U+FFFD, and nothing else tells."""
    at = raw.find(REPLACEMENT)
    if at >= 0:
        wrong = "is not UTF-8, or has U+FFFD, which stands for that. Save it as UTF-8 and send it again; if it is meant, as an upload."
        raise InvalidRequest("The batch cannot be read.", details=(Detail(f"line {raw.count(NEWLINE, 0, at) + 1}", wrong),))
    return raw


def _object_of(request: ApiRequest, said: Mapping[str, Any]) -> dict[str, Any] | None:
    """A JSON body that may go with an upload, None for any other: whoever reads it as rows says what is wrong with it."""
    if not request.raw or not ("upload_id" in said or b"upload_id" in request.raw):
        return {}
    try:
        data = json.loads(request.raw)
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None
