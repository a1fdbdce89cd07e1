"""Uploads in S3."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from chalicelib.adapters import aws
from chalicelib.adapters.blobs import Blobs
from chalicelib.domain.upload import Upload, key_of
from chalicelib.ports import Opened

PIECE = 65_536


class S3Uploads:
    """The bucket of a stage, below `u/`."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    def sign(self, upload: Upload, seconds: int) -> str:
        asked: dict[str, Any] = {"Key": key_of(upload.id, upload.tenant, upload.user), "ContentType": upload.content_type}
        if upload.size is not None:
            asked["ContentLength"] = upload.size
        return self._blobs.presign_put(asked, seconds)

    def open(self, upload_id: str, tenant: str, user: str) -> Opened | None:
        answer = self._blobs.open(key_of(upload_id, tenant, user))
        if answer is None:
            return None
        return Opened(content_type=answer.get("ContentType", ""), size=answer["ContentLength"], pieces=_pieces(answer["Body"]))


def _pieces(body: Any) -> Iterator[bytes]:
    try:
        with aws.in_our_words():
            yield from body.iter_chunks(PIECE)
    finally:
        body.close()  # read to its end or not: the connection is not kept
