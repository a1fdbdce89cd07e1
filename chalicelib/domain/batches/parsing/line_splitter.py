"""Bytes as they arrive, as lines of text: in any pieces, cut anywhere, with no more than a line of them in memory."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator

from chalicelib.domain.batches.parsing.problems import UnreadableInput

MAX_LINE_BYTES = 4_000_000  # characters: what a row may be, with room
CHUNK_SIZE = 65_536
BYTE_ORDER_MARK = "\ufeff"
_END = re.compile(r"\r\n|\n|\r")
_OTHERS = {  # the longer ones first: UTF-32's begins as UTF-16's
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_LONGEST_BOM = 4


def lines(pieces: Iterable[bytes], longest: int = MAX_LINE_BYTES) -> Iterator[str]:
    """Each line with its end, whichever of LF, CRLF and CR that is; the last may have none. A byte order mark is left out.

    Raises:
        Unreadable: it is not UTF-8, has a NUL byte, or a line of more than `longest` characters.
    """
    splitter, decoder, taken = _Splitter(longest), codecs.getincrementaldecoder("utf-8")(), 0
    for piece in _small(_unmarked(pieces)):
        held = len(decoder.getstate()[0])
        try:
            text = decoder.decode(piece)
        except UnicodeDecodeError as wrong:
            yield from splitter.feed(str(wrong.object[: wrong.start], "utf-8"))
            raise _not_utf8(splitter.place, taken - held + wrong.start, wrong.object[wrong.start]) from wrong
        taken += len(piece)
        yield from splitter.feed(text)
    if left := decoder.getstate()[0]:  # it ends within a character
        raise _not_utf8(splitter.place, taken - len(left), left[0])
    yield from splitter.rest()


class _Splitter:
    """Text in, whole lines out. `place` is that of the line that is not whole yet."""

    def __init__(self, longest: int) -> None:
        self._longest, self._line, self._length = longest, 1, 0
        self._parts: list[str] = []
        self._held = False  # a CR, which a LF may still join
        self._began = False

    @property
    def place(self) -> str:
        return f"line {self._line}"

    def feed(self, text: str) -> Iterator[str]:
        if text and not self._began:
            self._began, text = True, text.removeprefix(BYTE_ORDER_MARK)
        clean, nul, _ = text.partition("\0")
        yield from self._feed(clean)
        if nul:
            raise UnreadableInput(self.place, "has a NUL byte, which is in no text: is this another kind of file, or UTF-16?")

    def rest(self) -> Iterator[str]:
        if self._held or self._parts:
            yield self._whole("\r" if self._held else "", ends=self._held)

    def _feed(self, text: str) -> Iterator[str]:
        start = 0
        if self._held and text:
            start = 1 if text[0] == "\n" else 0
            yield self._whole("\r\n" if start else "\r")
        for end in _END.finditer(text, start):
            if end.end() == len(text) and end.group() == "\r":
                self._keep(text[start : end.start()])
                self._held = True
                return
            self._keep(text[start : end.end()])
            yield self._whole("")
            start = end.end()
        self._keep(text[start:])

    def _keep(self, part: str) -> None:
        self._length += len(part)
        if self._length > self._longest:
            raise UnreadableInput(self.place, f"is longer than {self._longest:,} characters")
        if part:
            self._parts.append(part)

    def _whole(self, end: str, *, ends: bool = True) -> str:
        line = "".join(self._parts) + end
        self._parts, self._length, self._held = [], 0, False
        self._line += ends
        return line


def _unmarked(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same pieces, if they do not begin with the mark of another encoding. UTF-8's own stays: it counts as bytes."""
    head, begun = b"", False
    for piece in pieces:
        if begun:
            yield piece
            continue
        head += piece
        if len(head) >= _LONGEST_BOM:
            _refuse_others(head)
            yield head
            begun = True
    if not begun:
        _refuse_others(head)
        yield head


def _refuse_others(head: bytes) -> None:
    for mark, name in _OTHERS.items():
        if head.startswith(mark):
            raise UnreadableInput("line 1", f"begins as {name} does. Save it as UTF-8 and send it again.")


def _small(pieces: Iterable[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        yield from (piece[start : start + CHUNK_SIZE] for start in range(0, len(piece), CHUNK_SIZE))


def _not_utf8(place: str, offset: int, byte: int) -> UnreadableInput:
    """`offset` counts from 0, people from 1."""
    return UnreadableInput(place, f"is not UTF-8: byte {offset + 1} of what was sent is 0x{byte:02X}. Save it as UTF-8 and send it again.")
