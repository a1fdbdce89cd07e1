"""Text as OpenAI sends it and as it may be sent on: no half characters, no piece that is too large for where it goes.

Offsets and lengths everywhere count Unicode code points: Python's `len`, JavaScript's `[...text].length`.
"""

from __future__ import annotations

from collections.abc import Iterator

# A frame is at most 32 KB. In JSON a code point takes at most 6 bytes: a control character, as \u0000. Others go as UTF-8, at most 4.
MAX_FRAME_POINTS = 5_000
# A DynamoDB item is at most 400 KB; a code point is at most 4 bytes.
MAX_CHUNK_POINTS = 60_000
REPLACEMENT = "\ufffd"


class SurrogateJoiner:
    """Puts characters together again that were cut in two: JSON may carry an emoji's surrogates in two deltas.

    What comes out can always be encoded. A surrogate that never finds its other half becomes U+FFFD.
    """

    def __init__(self) -> None:
        self._held = ""

    def feed(self, delta: str) -> str:
        """The text that is whole now. At most one code unit is held back for the next delta."""
        text = self._held + delta
        self._held = ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._held = text[:-1], text[-1]
        return repair_surrogates(text)

    @property
    def holds(self) -> bool:
        """Whether half a character is held back."""
        return bool(self._held)

    def flush(self) -> str:
        """What was held back, at the end of the stream."""
        held, self._held = self._held, ""
        return repair_surrogates(held)


def repair_surrogates(text: str) -> str:
    """The same text with surrogate pairs joined and lone surrogates replaced."""
    if text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def split_text(text: str, size: int) -> Iterator[str]:
    """`text` in order, in pieces of at most `size` code points. Nothing for an empty text."""
    for start in range(0, len(text), size):
        yield text[start : start + size]
