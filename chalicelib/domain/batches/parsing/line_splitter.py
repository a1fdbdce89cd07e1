"""Split a stream of bytes into lines of text.

The bytes may be cut anywhere; at most one line is in memory.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator

from chalicelib.domain.batches.parsing.problems import UnreadableInput
from chalicelib.domain.batches.parsing.signatures import is_undecided, refusal_of

MAX_LINE_LENGTH = 4_000_000  # characters: more than the largest valid row
MAX_LINES = 2_000_000  # of a file; they bound the time, of which each line takes a microsecond
MAX_EMPTY_LINES = 100_000  # of a file; they are skipped, so no limit of rows ends them
CHUNK_SIZE = 65_536
BYTE_ORDER_MARK = "\ufeff"
DOS_END = "\x1a"  # Ctrl-Z, which some programs write behind the last line
_LINE_END = re.compile(r"\r\n|\n|\r")


def lines(pieces: Iterable[bytes], max_length: int = MAX_LINE_LENGTH) -> Iterator[str]:
    """Yield each line with its end: LF, CRLF or CR.

    Byte order marks at the beginning and the end mark of DOS are removed.

    Raises:
        UnreadableInput: the bytes are not UTF-8, contain a NUL byte, or have a line of more than
            `max_length` characters; or there are too many lines.
    """
    splitter, decoder, decoded_bytes = _Splitter(max_length), codecs.getincrementaldecoder("utf-8")(), 0
    for piece in _cut(_check_format(pieces)):
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


class LineEnds:
    """Counts the line ends of several files that are one batch, which together have the lines of one file."""

    def __init__(self) -> None:
        self._count = 0

    def counted(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the pieces of a file.

        Raises:
            UnreadableInput: the files have too many lines.
        """
        for piece in pieces:
            self._count += piece.count(b"\n") + piece.count(b"\r") - piece.count(b"\r\n")
            if self._count > MAX_LINES:
                raise UnreadableInput("", f"exceeds the maximum of {MAX_LINES:,} lines in all files together")
            yield piece


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
            text = text.lstrip(BYTE_ORDER_MARK)  # a program that adds one does not look whether there is one
            self._started = bool(text)
        valid, nul, _ = text.partition("\0")
        yield from self._feed(valid)
        if nul:
            raise UnreadableInput(self.location, "has a NUL byte, so it is not UTF-8 text: it may be UTF-16 or a binary file")

    def flush(self) -> Iterator[str]:
        """Yield the last line if it has no end."""
        if not self._has_cr:
            self._parts = ["".join(self._parts).rstrip(DOS_END)]
        if self._has_cr or self._parts[0]:
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


def _check_format(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the same bytes; refuse a file that is not text in UTF-8, by the name of what it is."""
    head, checked = b"", False
    for piece in pieces:
        if checked:
            yield piece
            continue
        head += piece
        if not is_undecided(head):
            _refuse_other_formats(head)
            yield head
            checked = True
    if not checked:
        _refuse_other_formats(head)
        yield head


def _refuse_other_formats(head: bytes) -> None:
    if refusal := refusal_of(head):
        raise UnreadableInput("line 1", refusal)


def _cut(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Bound the pieces, so that decoding one never needs much memory."""
    for piece in pieces:
        yield from (piece[start : start + CHUNK_SIZE] for start in range(0, len(piece), CHUNK_SIZE))


def _not_utf8(location: str, offset: int, byte: int) -> UnreadableInput:
    """Return the error for the byte at `offset`, which counts from 0; the message counts from 1."""
    return UnreadableInput(location, f"is not UTF-8: byte {offset + 1} of the input is 0x{byte:02X}. Save it as UTF-8 and send it again.")
