"""`/uploads`: a place for what is too large for a request, and what a request means that names it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from chalice import Blueprint

from chalicelib import wiring
from chalicelib.domain.errors import Detail, InvalidRequest
from chalicelib.domain.identity import Role
from chalicelib.domain.terms import from_query, together
from chalicelib.domain.units import rfc3339
from chalicelib.domain.upload import MAX_BYTES
from chalicelib.routes import parse, schemas
from chalicelib.routes.http import JSON, Answer, Request, endpoint
from chalicelib.usecases.upload import begin_upload, open_upload

blueprint = Blueprint(__name__)

DEFAULT_TYPE = "text/csv"
NEWLINE, LOST = b"\n", "\ufffd".encode()


@endpoint(blueprint, "POST", "/uploads", Role.USER)
def begin(request: Request) -> Answer:
    """A signed link to which a file of up to 50 MB can be PUT, for `upload_id` in `POST /batches`."""
    data, have = parse.check(schemas.UPLOAD, request.json()), wiring.adapters()
    content_type, new_id = data.get("content_type") or DEFAULT_TYPE, f"upload_{have.new_id()}"
    begun = begin_upload(have.uploads, request.caller, new_id, have.clock.now(), content_type, data.get("size"))
    return Answer(
        status=201,
        body={
            "upload_id": begun.upload.id,
            "url": begun.url,
            "method": "PUT",
            "headers": {"Content-Type": content_type},
            "expires_at": rfc3339(begun.expires_at),
            "max_bytes": MAX_BYTES,
        },
    )


def sent(request: Request) -> tuple[str, Iterable[bytes], dict[str, Any]]:
    """What the rows of a batch are read from: its Content-Type, its bytes, and the terms beside it.

    That is the body of the request, or the upload that the query or a JSON body names as `upload_id`.

    Raises:
        InvalidRequest: it names an upload and brings rows as well; or some of them were lost on the way.
        UploadNotFound, TooLarge: see `open_upload`.
    """
    content_type, said = str(request.headers.get("content-type") or JSON), from_query(request.query)
    body = _object_of(request, said) if content_type.lower().startswith(JSON) else None
    if "upload_id" not in {**said, **(body or {})}:
        return content_type, [_as_it_was(request.raw)], said
    if "items" in (body or {}) or (body is None and request.raw):
        raise InvalidRequest(details=(Detail("upload_id", "stands for the rows: send no others in the body"),))
    said = together(said, body or {})
    upload_id = said.pop("upload_id", None)
    if not isinstance(upload_id, str):
        raise InvalidRequest(details=(Detail("upload_id", "must be text, as POST /uploads answered it"),))
    opened = open_upload(wiring.adapters().uploads, request.caller, upload_id)
    return opened.content_type, opened.pieces, said


def _as_it_was(raw: bytes) -> bytes:
    """The body, unless bytes of it were lost. API Gateway hands on text: where it finds no UTF-8 it puts U+FFFD, and nothing else tells."""
    at = raw.find(LOST)
    if at >= 0:
        wrong = "is not UTF-8, or has U+FFFD, which stands for that. Save it as UTF-8 and send it again; if it is meant, as an upload."
        raise InvalidRequest("The batch cannot be read.", details=(Detail(f"line {raw.count(NEWLINE, 0, at) + 1}", wrong),))
    return raw


def _object_of(request: Request, said: Mapping[str, Any]) -> dict[str, Any] | None:
    """A JSON body that may go with an upload, None for any other: whoever reads it as rows says what is wrong with it."""
    if not request.raw or not ("upload_id" in said or b"upload_id" in request.raw):
        return {}
    try:
        data = json.loads(request.raw)
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None
