"""Finding a type's markers in a text that arrives in pieces, each exactly once and as soon as it is there.

The rule does not depend on how the text was cut: a marker is seen at the first position up to which the text holds a match, and what
was matched is not used again. That is so for patterns that match at most `REACH` characters and are decided by what they match: no
`^`, `$`, no `\\b` or look-ahead at their end. A test holds every type to it. A piece costs a search of itself and of `REACH` characters.
"""

from __future__ import annotations

from collections.abc import Sequence
from re import Match

from chalicelib.domain.jobs.job_type import Marker

MAX_MATCH_LENGTH = 256

Sighting = tuple[Marker, dict[str, str]]


class MarkerScanner:
    """Fed with text, answers the markers that it completes, in the order of the text."""

    def __init__(self, markers: Sequence[Marker]) -> None:
        self._markers = markers
        self._tail = ""
        self._begin = 0  # where the tail begins in the whole text
        self._free = [0] * len(markers)  # from where on each marker may match
        self._done = [False] * len(markers)

    def feed(self, text: str) -> list[Sighting]:
        """The markers that `text` completes, each with its named groups."""
        self._tail += text
        seen = sorted((end, index, groups) for index in range(len(self._markers)) for end, groups in self._matches(index))
        drop = max(0, len(self._tail) - MAX_MATCH_LENGTH)
        self._tail, self._begin = self._tail[drop:], self._begin + drop
        return [(self._markers[index], dict(groups)) for _, index, groups in seen]

    def _matches(self, index: int) -> list[tuple[int, tuple[tuple[str, str], ...]]]:
        """Every new match of one marker: where it ends in the whole text, and its groups."""
        found = []
        while not self._done[index] and (match := self._first(index)):
            self._free[index] = self._begin + match.end()
            self._done[index] = self._markers[index].once
            found.append((self._free[index], tuple((name, group or "") for name, group in match.groupdict().items())))
        return found

    def _first(self, index: int) -> Match[str] | None:
        """The match that was there first: the one in the shortest beginning of the tail that holds any, found by halving."""
        pattern, start = self._markers[index].pattern, max(0, self._free[index] - self._begin)
        match = pattern.search(self._tail, start)
        if match is None or match.end() == match.start():
            return None
        low, high = start, match.end()  # at `high` there is a match, at `low` none
        while high - low > 1:
            middle = (low + high) // 2
            earlier = pattern.search(self._tail, start, middle)
            if earlier:
                match, high = earlier, middle
            else:
                low = middle
        return match
