"""Split a stream of bytes into lines of text.

The bytes may be cut anywhere; at most one line is in memory.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator

from chalicelib.domain.batches.parsing.problems import UnreadableInput

MAX_LINE_LENGTH = 4_000_000  # characters: more than the largest valid row
MAX_LINES = 2_000_000  # of a file; they bound the time, of which each line takes a microsecond
MAX_EMPTY_LINES = 100_000  # of a file; they are skipped, so no limit of rows ends them
CHUNK_SIZE = 65_536
BYTE_ORDER_MARK = "\ufeff"
_LINE_END = re.compile(r"\r\n|\n|\r")
_OTHER_ENCODINGS = {  # UTF-32 first, because its little-endian mark begins with that of UTF-16
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_LONGEST_BOM = 4


def lines(pieces: Iterable[bytes], max_length: int = MAX_LINE_LENGTH) -> Iterator[str]:
    """Yield each line with its end: LF, CRLF or CR. The byte order mark is removed.

    Raises:
        UnreadableInput: the bytes are not UTF-8, contain a NUL byte, or have a line of more than
            `max_length` characters; or there are too many lines.
    """
    splitter, decoder, decoded_bytes = _Splitter(max_length), codecs.getincrementaldecoder("utf-8")(), 0
    for piece in _cut(_check_encoding(pieces)):
        pending = len(decoder.getstate()[0])
        try:
            text = decoder.decode(piece)
        except UnicodeDecodeError as exc:
            yield from splitter.feed(str(exc.object[: exc.start], "utf-8"))
            raise _not_utf8(splitter.location, decoded_bytes - pending + exc.start, exc.object[exc.start]) from exc
        decoded_bytes += len(piece)
        yield from splitter.feed(text)
    if left := decoder.getstate()[0]:  # the input ends within a character
        raise _not_utf8(splitter.location, decoded_bytes - len(left), left[0])
    yield from splitter.flush()


class EmptyLines:
    """Counts the lines that are skipped because nothing is in them."""

    def __init__(self) -> None:
        self.count = 0

    def add(self) -> None:
        """Count a line.

        Raises:
            UnreadableInput: there are too many.
        """
        self.count += 1
        if self.count > MAX_EMPTY_LINES:
            raise UnreadableInput("", f"has more than {MAX_EMPTY_LINES:,} empty lines")


def numbered_lines(pieces: Iterable[bytes]) -> Iterator[tuple[int, str]]:
    """Yield each line that is not empty, with its number from 1.

    Raises:
        UnreadableInput: as `lines`, or there are too many empty lines.
    """
    empty = EmptyLines()
    for number, line in enumerate(lines(pieces), start=1):
        if line.strip():
            yield number, line
        else:
            empty.add()


class _Splitter:
    """Takes pieces of text and yields complete lines."""

    def __init__(self, max_length: int) -> None:
        self._max_length, self._line, self._length = max_length, 1, 0
        self._parts: list[str] = []
        self._has_cr = False  # the text so far ends with a CR; a LF may follow in the next piece
        self._started = False

    @property
    def location(self) -> str:
        """The line that is not complete yet."""
        return f"line {self._line}"

    def feed(self, text: str) -> Iterator[str]:
        if text and not self._started:
            self._started, text = True, text.removeprefix(BYTE_ORDER_MARK)
        valid, nul, _ = text.partition("\0")
        yield from self._feed(valid)
        if nul:
            raise UnreadableInput(self.location, "has a NUL byte, so it is not UTF-8 text: it may be UTF-16 or a binary file")

    def flush(self) -> Iterator[str]:
        """Yield the last line if it has no end."""
        if self._has_cr or self._parts:
            yield self._complete("\r" if self._has_cr else "", ended=self._has_cr)

    def _feed(self, text: str) -> Iterator[str]:
        if "\r" not in text and not self._has_cr and len(text) <= self._max_length:
            yield from self._feed_lines(text)
            return
        start = 0
        if self._has_cr and text:
            start = 1 if text[0] == "\n" else 0
            yield self._complete("\r\n" if start else "\r")
        for end in _LINE_END.finditer(text, start):
            if end.end() == len(text) and end.group() == "\r":
                self._append(text[start : end.start()])
                self._has_cr = True
                return
            self._append(text[start : end.end()])
            yield self._complete("")
            start = end.end()
        self._append(text[start:])

    def _feed_lines(self, text: str) -> Iterator[str]:
        """Take text whose only line ends are LF: several times as fast."""
        first, *others = text.split("\n")
        if not others:
            self._append(first)
            return
        self._append(f"{first}\n")
        yield self._complete("")
        for line in others[:-1]:
            self._count_line()
            yield f"{line}\n"
        self._append(others[-1])

    def _append(self, part: str) -> None:
        self._length += len(part)
        if self._length > self._max_length:
            raise UnreadableInput(self.location, f"is longer than {self._max_length:,} characters")
        if part:
            self._parts.append(part)

    def _complete(self, end: str, *, ended: bool = True) -> str:
        line = "".join(self._parts) + end
        self._parts, self._length, self._has_cr = [], 0, False
        if ended:
            self._count_line()
        return line

    def _count_line(self) -> None:
        self._line += 1
        if self._line > MAX_LINES:
            raise UnreadableInput(self.location, f"exceeds the maximum of {MAX_LINES:,} lines")


def _check_encoding(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the same bytes; refuse a byte order mark of another encoding than UTF-8."""
    head, checked = b"", False
    for piece in pieces:
        if checked:
            yield piece
            continue
        head += piece
        if len(head) >= _LONGEST_BOM:
            _refuse_other_encodings(head)
            yield head
            checked = True
    if not checked:
        _refuse_other_encodings(head)
        yield head


def _refuse_other_encodings(head: bytes) -> None:
    for mark, name in _OTHER_ENCODINGS.items():
        if head.startswith(mark):
            raise UnreadableInput("line 1", f"is encoded as {name}. Save the file as UTF-8 and send it again.")


def _cut(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Bound the pieces, so that decoding one never needs much memory."""
    for piece in pieces:
        yield from (piece[start : start + CHUNK_SIZE] for start in range(0, len(piece), CHUNK_SIZE))


def _not_utf8(location: str, offset: int, byte: int) -> UnreadableInput:
    """Return the error for the byte at `offset`, which counts from 0; the message counts from 1."""
    return UnreadableInput(location, f"is not UTF-8: byte {offset + 1} of the input is 0x{byte:02X}. Save it as UTF-8 and send it again.")
