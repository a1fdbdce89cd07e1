"""Uploads of callers, in the bucket of the stage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from chalicelib.adapters.aws import client as aws
from chalicelib.adapters.s3.blobs import Blobs
from chalicelib.domain.files.upload import Upload, object_key
from chalicelib.ports import UploadedFile

PIECE_BYTES = 65_536


class S3Uploads:
    """Objects below `u/`. Calls: none to sign a link, 1 to open a file."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    def sign(self, upload: Upload, seconds: int) -> str:
        key = object_key(upload.id, upload.tenant, upload.user)
        # The length becomes a signed header: S3 refuses another one, and a body without any.
        return self._blobs.presign_put({"Key": key, "ContentType": upload.content_type, "ContentLength": upload.size}, seconds)

    def open(self, upload_id: str, tenant: str, user: str) -> UploadedFile | None:
        response = self._blobs.open(object_key(upload_id, tenant, user))
        if response is None:
            return None
        return UploadedFile(content_type=response.get("ContentType", ""), size=response["ContentLength"], pieces=_pieces(response["Body"]))


def _pieces(body: Any) -> Iterator[bytes]:
    try:
        with aws.translate_errors():
            yield from body.iter_chunks(PIECE_BYTES)
    finally:
        body.close()  # the connection is not reused, whether or not the body was read to its end
