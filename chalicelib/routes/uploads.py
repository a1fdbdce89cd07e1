"""`/uploads`: a place for what is too large for a request."""

from __future__ import annotations

from typing import Any

from chalice import Blueprint

from chalicelib import wiring
from chalicelib.domain.identity import Role
from chalicelib.domain.units import rfc3339
from chalicelib.domain.upload import MAX_BYTES
from chalicelib.routes import parse
from chalicelib.routes.http import Answer, Request, endpoint
from chalicelib.usecases.upload import begin_upload

blueprint = Blueprint(__name__)

UPLOAD: dict[str, Any] = {
    "type": "object",
    "properties": {
        "content_type": {"type": ["string", "null"], "minLength": 1, "maxLength": 100, "pattern": "^[ -~]*$"},
        "size": {"type": ["integer", "null"], "minimum": 1},
    },
    "additionalProperties": False,
}
DEFAULT_TYPE = "text/csv"


@endpoint(blueprint, "POST", "/uploads", Role.USER)
def begin(request: Request) -> Answer:
    """A signed link to which a file of up to 50 MB can be PUT, for `upload_id` in `POST /batches`."""
    data, have = parse.check(UPLOAD, request.json()), wiring.adapters()
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
