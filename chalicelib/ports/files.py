"""Files in object storage: those that jobs write, and those that callers upload."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from chalicelib.domain.files.upload import Upload


class FileWriter(Protocol):
    """Writes one file.

    Readers see it only after `close`; an older file of the same name stays until then.
    """

    def write(self, data: bytes) -> None:
        """Append data. It is sent in parts of a few MB, so the file need not fit into memory."""

    def close(self) -> int:
        """Publish the file and return its size in bytes."""

    def abort(self) -> None:
        """Discard what was written."""


class JobFiles(Protocol):
    """Stores the files that jobs write, in a folder for each job that is deleted with it."""

    def create(self, tenant: str, job_id: str, name: str, content_type: str) -> FileWriter:
        """Start a file."""

    def size(self, tenant: str, job_id: str, name: str) -> int | None:
        """Return the size in bytes; None if the file does not exist (any more)."""

    def link(self, tenant: str, job_id: str, name: str, seconds: int) -> str:
        """Return a link that lets its holder download the file for `seconds`, as an attachment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadedFile:
    """An upload as it is read.

    `pieces` can be read once and raise `Unavailable` if the connection breaks. `content_type` is
    the sender's; `size` in bytes.
    """

    content_type: str
    size: int
    pieces: Iterator[bytes]


class Uploads(Protocol):
    """Stores files that callers upload themselves, through signed links."""

    def sign(self, upload: Upload, seconds: int) -> str:
        """Return a link that lets its holder PUT this file for `seconds`.

        Content-Type and size must be those of the upload.
        """

    def open(self, upload_id: str, tenant: str, user: str) -> UploadedFile | None:
        """Return the file; None if this user has not uploaded it, or it is no longer kept."""
