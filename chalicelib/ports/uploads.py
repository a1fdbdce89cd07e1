"""What callers put into object storage themselves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from chalicelib.domain.files.upload import Upload


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
