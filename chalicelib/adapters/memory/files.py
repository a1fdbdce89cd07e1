"""Files in memory: those that jobs write, and those that callers upload."""

from __future__ import annotations

from collections.abc import Iterator

from chalicelib.domain.files.upload import Upload, object_key
from chalicelib.ports import UploadedFile

SCHEME = "memory://"
PIECE_BYTES = 7  # bytes; small, so that a test's file has several pieces


class MemoryFileWriter:
    def __init__(self, files: MemoryJobFiles, key: tuple[str, str, str]) -> None:
        self._files, self._key = files, key
        self._data = bytearray()

    def write(self, data: bytes) -> None:
        self._data += data

    def close(self) -> int:
        self._files.kept[self._key] = bytes(self._data)
        return len(self._data)

    def abort(self) -> None:
        self._data.clear()


class MemoryJobFiles:
    """Tests may use `kept`, the files by (tenant, job, name)."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str, str], bytes] = {}

    def create(self, tenant: str, job_id: str, name: str, content_type: str) -> MemoryFileWriter:
        return MemoryFileWriter(self, (tenant, job_id, name))

    def size(self, tenant: str, job_id: str, name: str) -> int | None:
        data = self.kept.get((tenant, job_id, name))
        return None if data is None else len(data)

    def link(self, tenant: str, job_id: str, name: str, seconds: int) -> str:
        return f"https://files.example/{tenant}/{job_id}/{name}?expires={seconds}"

    def delete_all(self, job_id: str) -> None:
        """Delete the files of a job."""
        for key in [key for key in self.kept if key[1] == job_id]:
            del self.kept[key]


class MemoryUploads:
    """`put` behaves like S3 at a signed link: it refuses what was not signed."""

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
        if content_type != signed.content_type or signed.size != len(data):
            raise ValueError("SignatureDoesNotMatch")
        self._files[key] = content_type, data

    def open(self, upload_id: str, tenant: str, user: str) -> UploadedFile | None:
        found = self._files.get(object_key(upload_id, tenant, user))
        if found is None:
            return None
        content_type, data = found
        return UploadedFile(content_type=content_type, size=len(data), pieces=_pieces(data))


def _pieces(data: bytes) -> Iterator[bytes]:
    return (data[start : start + PIECE_BYTES] for start in range(0, len(data), PIECE_BYTES))
