"""Uploaded files that are made to need time or memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from chalicelib.ports import UploadedFile
from tests.kit.hostile_bodies import CSV, JSON, LINES, TEXT

PIECE = 65_536


@dataclass(frozen=True)
class HostileFile:
    """A file of `size` bytes, made piece by piece as S3 sends it."""

    content_type: str
    size: int
    before: bytes
    piece: bytes
    status: int = 400
    says: str = ""

    def opened(self) -> UploadedFile:
        return UploadedFile(content_type=self.content_type, size=self.size, pieces=self._pieces())

    def _pieces(self) -> Iterator[bytes]:
        yield self.before
        block = self.piece * max(1, PIECE // len(self.piece))
        for _ in range((self.size - len(self.before)) // len(block)):
            yield block


MB = 1_000_000
FILES: dict[str, HostileFile] = {
    "json of objects": HostileFile(JSON, 16 * MB, b'{"items":[', b"{},", 413, "JSON lines"),
    "a line of lists": HostileFile(LINES, 16 * MB, b"[", b"[],", says="longer than 4,000,000 characters"),
    "lines of lists": HostileFile(LINES, 50 * MB, b"", b'{"input":[' + b"[]," * 20_000 + b"[]]}\n", says="values"),
    "csv of a million columns": HostileFile(CSV, 16 * MB, b"prompt", b",a", says="longer than 4,000,000 characters"),
    "csv of many columns in each row": HostileFile(
        CSV, 50 * MB, b"prompt," + b",".join(b"c%d" % n for n in range(255)) + b"\n", b"ab," * 255 + b"ab\n", says="values"
    ),
    "csv with a quote that does not end": HostileFile(CSV, 50 * MB, b'prompt\n"', b"text,\n", says="not closed"),
    "csv with a record of many quoted fields": HostileFile(CSV, 50 * MB, b"prompt,b\n", b'"' + b"a\n" * 500_000 + b'",', says="not closed"),
    "csv of empty lines": HostileFile(CSV, 50 * MB, b"prompt\n", b"\n", says="empty lines"),
    "csv of prompts of line ends": HostileFile(CSV, 50 * MB, b"prompt\n", b'"x' + b"\n" * 900_000 + b'"\n', says="lines"),
    "prompts with one emoji each": HostileFile(TEXT, 50 * MB, b"", ("\U0001f600" + "x" * 900_000 + "\n").encode(), 202),
    "form of files of empty lines": HostileFile(
        "multipart/form-data; boundary=b",
        50 * MB,
        b"",
        b'--b\r\nContent-Disposition: form-data; name="f"; filename="a.txt"\r\n\r\n' + b"\n" * 65_000 + b"\r\n",
        says="all files together",
    ),
}
