"""Sign links for uploads, and open uploaded files."""

from __future__ import annotations

from dataclasses import dataclass

from chalicelib.domain.auth.identity import Caller
from chalicelib.domain.batches.parsing.forms import FORM
from chalicelib.domain.batches.parsing.json_rows import MAX_JSON_BYTES, json_too_large
from chalicelib.domain.batches.parsing.reader import JSON, content_format
from chalicelib.domain.errors import TooLarge, UnsupportedMediaType, UploadNotFound
from chalicelib.domain.files.upload import LINK_SECONDS, MAX_BYTES, Upload, is_upload_id
from chalicelib.domain.units import Ms
from chalicelib.ports import UploadedFile, Uploads


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedUpload:
    """A signed link: the client may put the file described by `upload` at `url` until `expires_at`."""

    upload: Upload
    url: str
    expires_at: Ms


def create_upload(uploads: Uploads, caller: Caller, upload_id: str, now: Ms, content_type: str, size: int) -> SignedUpload:
    """Sign a link for a file of the caller.

    Args:
        size: bytes. The link takes a file of exactly this size, so it bounds what is stored.

    Raises:
        TooLarge: the file is larger than 50 MB, or a JSON document larger than 4 MB.
        UnsupportedMediaType, InvalidRequest: no rows can be read from this content type.
    """
    if size > MAX_BYTES:
        raise _too_large(size)
    input_format = content_format(content_type)
    if input_format == FORM:
        raise UnsupportedMediaType("An upload is the file itself, not a form: name the content type of the file.")
    if input_format == JSON and size > MAX_JSON_BYTES:
        raise json_too_large()
    upload = Upload(id=upload_id, tenant=caller.tenant, user=caller.user, content_type=content_type, size=size)
    return SignedUpload(upload=upload, url=uploads.sign(upload, LINK_SECONDS), expires_at=now + LINK_SECONDS * 1000)


def open_upload(uploads: Uploads, caller: Caller, upload_id: str) -> UploadedFile:
    """Open a file that the caller has uploaded.

    Raises:
        UploadNotFound: the caller has no such upload, or it has expired.
        TooLarge: the file is larger than 50 MB.
    """
    opened = uploads.open(upload_id, caller.tenant, caller.user) if is_upload_id(upload_id) else None
    if opened is None:
        raise UploadNotFound(upload_id)
    if opened.size > MAX_BYTES:
        raise _too_large(opened.size)
    return opened


def _too_large(size: int) -> TooLarge:
    return TooLarge(f"An upload may have at most {MAX_BYTES // 1_000_000} MB; this one has {size:,} bytes.")
