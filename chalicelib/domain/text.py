"""Repair and split text from OpenAI: join surrogates, and cut pieces of bounded size.

Offsets and lengths count Unicode code points everywhere: Python's `len`, JavaScript's
`[...text].length`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

# A frame is at most 32 KB. A code point takes at most 6 bytes in JSON: a control character, as
# \u0000. UTF-8 needs at most 4.
MAX_FRAME_POINTS = 5_000
# A DynamoDB item is at most 400 KB. A code point takes at most 4 bytes.
MAX_CHUNK_POINTS = 60_000
REPLACEMENT = "\ufffd"
_SURROGATE = re.compile("[\ud800-\udfff]")
# Control characters, blanks other than the space, and characters without a shape, such as the byte order mark.
_INVISIBLE = re.compile(
    "[\\x00-\\x1f\\x7f-\\xa0\\xad\\u034f\\u061c\\u115f\\u1160\\u1680\\u180e\\u2000-\\u200f\\u2028-\\u202f\\u205f-\\u206f"
    "\\u3000\\u3164\\ufeff\\uffa0\\ufff9-\\ufffb\\U000e0000-\\U000e007f]"
)


class SurrogateJoiner:
    """Joins characters split between two deltas: JSON may carry an emoji's surrogates apart.

    The output can always be encoded as UTF-8. A surrogate without its other half becomes U+FFFD.
    """

    def __init__(self) -> None:
        self._held = ""

    def feed(self, delta: str) -> str:
        """Return the text that is complete now.

        At most one code unit is held back for the next delta.
        """
        text = self._held + delta
        self._held = ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._held = text[:-1], text[-1]
        return repair_surrogates(text)

    @property
    def holds(self) -> bool:
        """Whether a surrogate is held back."""
        return bool(self._held)

    def flush(self) -> str:
        """Return what was held back; call it at the end of the stream."""
        held, self._held = self._held, ""
        return repair_surrogates(held)


def repair_surrogates(text: str) -> str:
    """Return the text with surrogate pairs joined and lone surrogates replaced by U+FFFD."""
    if text.isascii() or not _SURROGATE.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def visible(text: str) -> str:
    """Return the text with each invisible character written as in JSON: `\\ufeff`.

    Without this, two names that look the same differ, and nobody can see why.
    """
    return _INVISIBLE.sub(lambda match: json.dumps(match.group())[1:-1], text)


def split_text(text: str, size: int) -> Iterator[str]:
    """Yield `text` in order, in pieces of at most `size` code points. Empty text yields nothing."""
    for start in range(0, len(text), size):
        yield text[start : start + size]
