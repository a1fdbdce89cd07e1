"""Find the markers of a job type in streamed text, each once and as early as possible.

The result does not depend on where the text is cut: a marker is found at the first position up to
which the text contains a match, and matched text is not used again. This holds for patterns that
match at most `MAX_MATCH_LENGTH` characters and depend only on the matched text: no `^` or `$`, no
`\\b` or look-ahead at the end. A test checks the patterns of every type. Each piece costs one
search of itself and of `MAX_MATCH_LENGTH` characters before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from re import Match

from chalicelib.domain.jobs.job_type import Marker

MAX_MATCH_LENGTH = 256

FoundMarker = tuple[Marker, dict[str, str]]  # with its named groups


class MarkerScanner:
    """Takes pieces of text and returns the markers that each completes, in order."""

    def __init__(self, markers: Sequence[Marker]) -> None:
        self._markers = markers
        self._tail = ""
        self._tail_start = 0  # position of the tail in the whole text
        # Position in the whole text from which each marker may match.
        self._search_from = [0] * len(markers)
        self._done = [False] * len(markers)

    def feed(self, text: str) -> list[FoundMarker]:
        """Return the markers that `text` completes."""
        self._tail += text
        matches = sorted((end, index, groups) for index in range(len(self._markers)) for end, groups in self._matches(index))
        excess = max(0, len(self._tail) - MAX_MATCH_LENGTH)
        self._tail, self._tail_start = self._tail[excess:], self._tail_start + excess
        return [(self._markers[index], dict(groups)) for _, index, groups in matches]

    def _matches(self, index: int) -> list[tuple[int, tuple[tuple[str, str], ...]]]:
        """Return every new match of one marker: its end in the whole text, and its groups."""
        matches = []
        while not self._done[index] and (match := self._first_match(index)):
            self._search_from[index] = self._tail_start + match.end()
            self._done[index] = self._markers[index].once
            matches.append((self._search_from[index], tuple((name, group or "") for name, group in match.groupdict().items())))
        return matches

    def _first_match(self, index: int) -> Match[str] | None:
        """Return the match within the shortest matching prefix of the tail, found by bisection."""
        pattern, start = self._markers[index].pattern, max(0, self._search_from[index] - self._tail_start)
        match = pattern.search(self._tail, start)
        if match is None or match.end() == match.start():
            return None
        # The prefix up to `high` has a match, the one up to `low` has none.
        low, high = start, match.end()
        while high - low > 1:
            middle = (low + high) // 2
            earlier = pattern.search(self._tail, start, middle)
            if earlier:
                match, high = earlier, middle
            else:
                low = middle
        return match
