"""Find the rows of a batch submission: in the request body or in an upload."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from chalicelib.domain import json_limits
from chalicelib.domain.batches.options import merge_options, options_from_query
from chalicelib.domain.batches.parsing.forms import FORM, form_parts
from chalicelib.domain.batches.parsing.problems import UnreadableInput, in_file, quoted
from chalicelib.domain.batches.parsing.reader import media_type_of
from chalicelib.domain.batches.parsing.signatures import refusal_through_gateway
from chalicelib.domain.errors import Detail, InvalidRequest
from chalicelib.domain.files.upload import BYTES_PER_REQUEST
from chalicelib.domain.text import visible
from chalicelib.entrypoints.http.request_body import JSON
from chalicelib.entrypoints.http.server import ApiRequest, requests_of
from chalicelib.services.files.uploads import open_upload

HEAD = 400  # bytes that are looked at or shown
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
    if media_type_of(content_type) == FORM:
        options = merge_options(options, _form_options(content_type, request.raw))
    body = _json_options(request, options) if media_type_of(content_type) == JSON else None
    if "upload_id" not in {**options, **(body or {})}:
        if media_type_of(content_type) != FORM:
            _require_utf8(request.raw)
        return content_type, [request.raw], options
    if "items" in (body or {}) or (body is None and request.raw):
        raise InvalidRequest(details=(Detail("upload_id", "cannot be given together with rows in the body"),))
    options = merge_options(options, body or {})
    upload_id = options.pop("upload_id", None)
    if not isinstance(upload_id, str):
        raise InvalidRequest(details=(Detail("upload_id", "must be the text that POST /uploads returned"),))
    opened = open_upload(request.container.uploads, request.caller, upload_id)
    request.charge(requests_of(opened.size, BYTES_PER_REQUEST))
    return opened.content_type, opened.pieces, options


def _require_utf8(raw: bytes, name: str = "") -> None:
    """Refuse a body, or the file of this name in a form, that is not intact.

    API Gateway passes the body as text and replaces bytes that are not UTF-8 by U+FFFD. That
    character is the only sign that bytes were lost.

    Raises:
        InvalidRequest: the body contains U+FFFD.
    """
    position = raw.find(REPLACEMENT)
    if position < 0:
        return
    problem, line = refusal_through_gateway(raw[:HEAD]), 1
    if problem is None:
        line = raw.count(NEWLINE, 0, position) + 1
        start = raw.rfind(NEWLINE, 0, position) + 1
        shown = quoted(raw[start : start + HEAD].partition(NEWLINE)[0].decode("utf-8", "replace"))
        problem = (
            f"is not UTF-8, or contains U+FFFD. Save the file as UTF-8 and send it again; use an upload if U+FFFD is intended: {shown}"
        )
    detail = Detail(f"line {line}", problem)
    raise InvalidRequest("The batch cannot be read.", details=(in_file(name, detail) if name else detail,))


def _form_options(content_type: str, raw: bytes) -> dict[str, Any]:
    """Return the fields of a form as options, and check its files.

    Raises:
        InvalidRequest: it is no form, or a file in it is not UTF-8.
    """
    fields: dict[str, str] = {}
    files = 0
    try:
        for part in form_parts(content_type, [raw]):
            content = b"".join(part.pieces)
            if part.filename is not None:
                files += 1
                _require_utf8(content, visible(part.filename))
            elif part.name in fields:
                raise UnreadableInput(part.name, "is given twice")
            else:
                fields[part.name] = content.decode("utf-8", "replace")
    except UnreadableInput as exc:
        raise InvalidRequest("The form cannot be read.", details=(exc.detail,)) from exc
    if not files and "upload_id" not in fields:
        message = "has no file: send one as a field with a file name, such as curl -F file=@prompts.csv"
        raise InvalidRequest(details=(Detail("file", message),))
    return options_from_query(fields)


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
