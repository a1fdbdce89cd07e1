"""Files: those that jobs write, and those that callers upload."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from chalicelib.domain.files.upload import Upload


class FileWriter(Protocol):
    """An object in the making. Nobody sees anything of it before `close`; an older one of its name stays until then."""

    def write(self, data: bytes) -> None:
        """Put some more behind what there is; it is sent on in pieces of a few MB, so that no memory holds it all."""

    def close(self) -> int:
        """Let it be there, and say how many bytes it has."""

    def abort(self) -> None:
        """Leave nothing of it."""


class JobFiles(Protocol):
    """Objects that jobs make, in each job's own folder: whoever removes the job removes them."""

    def create(self, tenant: str, job_id: str, name: str, content_type: str) -> FileWriter: ...

    def size(self, tenant: str, job_id: str, name: str) -> int | None:
        """How many bytes it has; None if it is not there (any more)."""

    def link(self, tenant: str, job_id: str, name: str, seconds: int) -> str:
        """An address from which anybody who has it may save the object for some time, under its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadedFile:
    """A file as it comes: `pieces` can be read once, and raise Unavailable where it breaks off. `content_type` is the sender's."""

    content_type: str
    size: int
    pieces: Iterator[bytes]


class Uploads(Protocol):
    def sign(self, upload: Upload, seconds: int) -> str:
        """An address to which anybody who has it may PUT this one file for some time: with its Content-Type, and its size if known."""

    def open(self, upload_id: str, tenant: str, user: str) -> UploadedFile | None:
        """The file; None if this user has put none there, or it is no longer kept."""
