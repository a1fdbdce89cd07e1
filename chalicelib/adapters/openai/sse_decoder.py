"""Server-sent events, decoded as their bytes arrive. Only the data of each event is returned.

By the standard (WHATWG HTML, "Server-sent events") lines end at LF, CR or CRLF. `httpx`'s
`iter_lines` also ends them at U+2028, U+0085 and others, which may stand unescaped inside JSON and
would tear an event in two. So lines are split in bytes, where no part of a multi-byte character can
look like the end of a line. The data is decoded afterwards.
"""

from __future__ import annotations

from chalicelib.domain.failures import StreamMalformed

MAX_EVENT_BYTES = 8 * 1024 * 1024  # the final event repeats the whole text, which is far smaller
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class EventDecoder:
    """Takes bytes in pieces of any size and returns the data of complete events.

    An incomplete event at the end is dropped.
    """

    def __init__(self, max_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_bytes = max_bytes
        self._held = 0  # bytes of the event that is not complete
        self._line: list[bytes] = []  # pieces of the incomplete line
        self._data: list[bytes] = []  # lines of data of the incomplete event
        self._after_cr = False
        self._first = True

    def feed(self, piece: bytes) -> list[bytes]:
        """Return the data of each event that `piece` completes.

        Lines of data are joined with LF. Comments and other fields are skipped.

        Raises:
            StreamMalformed: an event is larger than `max_bytes`.
        """
        if self._after_cr and piece.startswith(b"\n"):  # the second half of a CRLF
            piece, self._after_cr = piece[1:], False
        if not piece:
            return []
        self._after_cr = piece.endswith(b"\r")
        self._held += len(piece)
        lines = piece.splitlines()  # of bytes: at LF, CR and CRLF only
        rest = b"" if piece[-1] in b"\r\n" else lines.pop()
        events: list[bytes] = []
        for line in lines:
            self._end_line(line, events)
        if rest:
            self._line.append(rest)
        if events:
            self._held = len(rest) + sum(map(len, self._data))
        if self._held > self._max_bytes:
            raise StreamMalformed(f"OpenAI's stream had an event larger than {self._max_bytes} bytes.")
        return events

    def _end_line(self, line: bytes, events: list[bytes]) -> None:
        if self._line:
            line = b"".join((*self._line, line))
            self._line.clear()
        if self._first:
            line, self._first = line.removeprefix(BYTE_ORDER_MARK), False
        if line.startswith(b"data:"):
            self._data.append(line[6:] if line[5:6] == b" " else line[5:])
        elif not line:
            if self._data:
                events.append(b"\n".join(self._data))
                self._data.clear()
            else:
                self._held = 0
        elif line == b"data":
            self._data.append(b"")
        elif not self._data:
            self._held = 0  # pings do not add up
