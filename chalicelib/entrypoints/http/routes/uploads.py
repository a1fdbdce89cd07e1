"""`/uploads`: files that are too large for a request body."""

from __future__ import annotations

from chalice import Blueprint

from chalicelib.domain.auth.identity import Role
from chalicelib.domain.files.upload import BYTES_PER_REQUEST, MAX_BYTES
from chalicelib.domain.units import rfc3339
from chalicelib.entrypoints.http.requests import jobs as job_requests
from chalicelib.entrypoints.http.requests import schemas
from chalicelib.entrypoints.http.server import ApiRequest, ApiResponse, endpoint, requests_of
from chalicelib.services.files.uploads import create_upload

blueprint = Blueprint(__name__)

DEFAULT_CONTENT_TYPE = "text/csv"


@endpoint(blueprint, "POST", "/uploads", Role.USER)
def create(request: ApiRequest) -> ApiResponse:
    """Create an upload for `POST /batches`: a signed link for a PUT of up to 50 MB."""
    data, ctx = job_requests.check(schemas.UPLOAD, request.json()), request.container
    content_type, new_id = data.get("content_type") or DEFAULT_CONTENT_TYPE, f"upload_{ctx.new_id()}"
    created = create_upload(ctx.uploads, request.caller, new_id, ctx.clock.now(), content_type, data["size"])
    request.charge(requests_of(created.upload.size, BYTES_PER_REQUEST))
    return ApiResponse(
        status=201,
        body={
            "upload_id": created.upload.id,
            "url": created.url,
            "method": "PUT",
            "headers": {"Content-Type": content_type},
            "expires_at": rfc3339(created.expires_at),
            "max_bytes": MAX_BYTES,
        },
    )
