"""Uploads in memory."""

from __future__ import annotations

from collections.abc import Iterator

from chalicelib.domain.files.upload import Upload, object_key
from chalicelib.ports import UploadedFile

SCHEME = "memory://"
PIECE = 7  # small, so that a test's file comes in several


class MemoryUploads:
    """What was put, by key. `put` is what S3 does with a signed link: whatever was not signed is refused."""

    def __init__(self) -> None:
        self._signed: dict[str, Upload] = {}
        self._files: dict[str, tuple[str, bytes]] = {}

    def sign(self, upload: Upload, seconds: int) -> str:
        key = object_key(upload.id, upload.tenant, upload.user)
        self._signed[key] = upload
        return SCHEME + key

    def put(self, url: str, data: bytes, content_type: str) -> None:
        key = url.removeprefix(SCHEME)
        signed = self._signed[key]
        if content_type != signed.content_type or signed.size not in (None, len(data)):
            raise ValueError("SignatureDoesNotMatch")
        self._files[key] = content_type, data

    def open(self, upload_id: str, tenant: str, user: str) -> UploadedFile | None:
        found = self._files.get(object_key(upload_id, tenant, user))
        if found is None:
            return None
        content_type, data = found
        return UploadedFile(content_type=content_type, size=len(data), pieces=_pieces(data))


def _pieces(data: bytes) -> Iterator[bytes]:
    return (data[start : start + PIECE] for start in range(0, len(data), PIECE))
