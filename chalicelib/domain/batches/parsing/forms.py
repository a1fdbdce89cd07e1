"""Read the parts of a form (multipart/form-data): the files of a batch, and its options as fields.

The bytes may be cut anywhere; a part is read as it arrives. The time is linear in the bytes, because
the number of parts is bounded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from email.message import Message

from chalicelib.domain.batches.parsing.line_splitter import CHUNK_SIZE
from chalicelib.domain.batches.parsing.problems import UnreadableInput

FORM = "multipart/form-data"
MAX_PARTS = 200
MAX_HEADER_BYTES = 8_192  # of a part
MAX_BOUNDARY_LENGTH = 70  # by RFC 2046
_END_OF_HEADERS, _LINE_END = b"\r\n\r\n", b"\r\n"
_BROKEN = "is no form that can be read"


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a form. Its bytes are read once, before the next part."""

    name: str  # of the field
    filename: str | None  # None: no file
    content_type: str | None
    pieces: Iterator[bytes]


def form_parts(content_type: str, pieces: Iterable[bytes]) -> Iterator[Part]:
    """Yield the parts of a form. What the consumer leaves of one is skipped.

    Raises:
        UnreadableInput: it is not a form with the boundary of its content type.
    """
    form = _Form(_boundary(content_type), pieces)
    form.skip_preamble()
    for _ in range(MAX_PARTS):
        headers = form.headers()
        if headers is None:
            return
        name, filename = (headers.get_param("name", None, "content-disposition"), headers.get_filename())
        if not isinstance(name, str):
            raise UnreadableInput("", f"{_BROKEN}: a part has no name")
        if headers.get("content-transfer-encoding", "binary").strip().lower() not in ("binary", "8bit", "7bit"):
            raise UnreadableInput(name, "has a Content-Transfer-Encoding: send the bytes of the file as they are")
        part = Part(name, filename, headers.get("content-type"), form.content())
        yield part
        for _rest in part.pieces:
            pass
    if form.headers() is not None:
        raise UnreadableInput("", f"has more than {MAX_PARTS} parts")


def _boundary(content_type: str) -> bytes:
    header = Message()
    header["content-type"] = content_type
    boundary = header.get_boundary()
    if not boundary or len(boundary) > MAX_BOUNDARY_LENGTH or not boundary.isascii():
        raise UnreadableInput("Content-Type", "names no boundary of the form; let the client set this header")
    return boundary.encode()


class _Form:
    """A cursor in the bytes of a form."""

    def __init__(self, boundary: bytes, pieces: Iterable[bytes]) -> None:
        self._delimiter = _LINE_END + b"--" + boundary
        self._pieces = (piece[start : start + CHUNK_SIZE] for piece in pieces for start in range(0, len(piece), CHUNK_SIZE))
        self._buffer = bytearray(_LINE_END)  # the first delimiter has no line end before it

    def skip_preamble(self) -> None:
        for _ in self.content():
            pass

    def content(self) -> Iterator[bytes]:
        """Yield the bytes up to the next delimiter, and skip that."""
        while (end := self._buffer.find(self._delimiter)) < 0:
            whole = len(self._buffer) - len(self._delimiter)
            if whole > 0:
                yield bytes(self._buffer[:whole])
                del self._buffer[:whole]
            if not self._read():
                raise UnreadableInput("", f"{_BROKEN}: it ends before its last boundary")
        if end:
            yield bytes(self._buffer[:end])
        del self._buffer[: end + len(self._delimiter)]

    def headers(self) -> Message | None:
        """Return the headers of the next part; None after the last one."""
        from email.parser import HeaderParser

        self._fill(2)
        if self._buffer.startswith(b"--"):
            return None
        while (end := self._buffer.find(_END_OF_HEADERS)) < 0 or end > MAX_HEADER_BYTES:
            if end > 0 or len(self._buffer) > MAX_HEADER_BYTES or not self._read():
                raise UnreadableInput("", f"{_BROKEN}: the headers of a part do not end")
        text = bytes(self._buffer[:end]).decode("utf-8", "replace").lstrip("\r\n")
        del self._buffer[: end + len(_END_OF_HEADERS)]
        return HeaderParser().parsestr(text)

    def _fill(self, size: int) -> None:
        while len(self._buffer) < size and self._read():
            pass

    def _read(self) -> bool:
        piece = next(self._pieces, None)
        if piece is None:
            return False
        self._buffer += piece
        return True
