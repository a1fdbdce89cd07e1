"""Uploads in S3."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from chalicelib.adapters.aws import client as aws
from chalicelib.adapters.s3.blobs import Blobs
from chalicelib.domain.files.upload import Upload, object_key
from chalicelib.ports import UploadedFile

PIECE = 65_536


class S3Uploads:
    """The bucket of a stage, below `u/`."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    def sign(self, upload: Upload, seconds: int) -> str:
        asked: dict[str, Any] = {"Key": object_key(upload.id, upload.tenant, upload.user), "ContentType": upload.content_type}
        if upload.size is not None:
            asked["ContentLength"] = upload.size
        return self._blobs.presign_put(asked, seconds)

    def open(self, upload_id: str, tenant: str, user: str) -> UploadedFile | None:
        answer = self._blobs.open(object_key(upload_id, tenant, user))
        if answer is None:
            return None
        return UploadedFile(content_type=answer.get("ContentType", ""), size=answer["ContentLength"], pieces=_pieces(answer["Body"]))


def _pieces(body: Any) -> Iterator[bytes]:
    try:
        with aws.translate_errors():
            yield from body.iter_chunks(PIECE)
    finally:
        body.close()  # read to its end or not: the connection is not kept
