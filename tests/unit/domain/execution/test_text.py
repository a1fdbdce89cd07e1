"""Text from the provider: surrogate pairs are joined, and long text is split into pieces."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.text import MAX_CHUNK_POINTS, MAX_FRAME_POINTS, REPLACEMENT, SurrogateJoiner, repair_surrogates, split_text

HALVES = st.text(st.sampled_from("aé€\ud83d\ude00\udbff\udc00"), max_size=12)


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("", ""),
        ("plain", "plain"),
        ("😀", "😀"),
        ("\ud83d\ude00", "😀"),
        ("a\ud83db", f"a{REPLACEMENT}b"),
        ("\ude00\ud83d", REPLACEMENT * 2),  # the halves in the wrong order
        ("\ud83d\ud83d\ude00", f"{REPLACEMENT}😀"),
        ("\ud83d", REPLACEMENT),
    ],
)
def test_surrogate_pairs_are_joined_and_lone_halves_replaced(text: str, result: str) -> None:
    assert repair_surrogates(text) == result


@given(text=st.text())
def test_valid_text_is_unchanged(text: str) -> None:
    assert repair_surrogates(text) == text


@given(text=HALVES, data=st.data())
def test_surrogate_joiner_output_does_not_depend_on_the_cuts(text: str, data: st.DataObject) -> None:
    """Deltas may cut a character in two; each output must be valid UTF-8."""
    cuts = [0, *sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8))), len(text)]
    joiner = SurrogateJoiner()

    out = [joiner.feed(text[a:b]) for a, b in pairwise(cuts)] + [joiner.flush()]

    assert "".join(out) == repair_surrogates(text)
    assert all(part.encode() is not None for part in out)


def test_surrogate_joiner_delays_only_half_a_character() -> None:
    joiner = SurrogateJoiner()

    assert joiner.feed("abc\ud83d") == "abc"
    assert joiner.feed("") == ""
    assert joiner.feed("\ude00d") == "😀d"
    assert joiner.flush() == ""


@given(text=st.text(max_size=50), size=st.integers(1, 60))
def test_split_text_returns_nonempty_pieces_up_to_the_size(text: str, size: int) -> None:
    parts = list(split_text(text, size))

    assert "".join(parts) == text
    assert all(0 < len(part) <= size for part in parts)


@pytest.mark.parametrize("char", ["a", "\x00", '"', "\\", "é", "漢", "😀", "\u2028", "\x7f", REPLACEMENT])
def test_size_limits_hold_for_characters_with_the_longest_encoding(char: str) -> None:
    """A frame must stay below 32 KB, a chunk below the 400 KB of a DynamoDB item."""
    assert len(json.dumps(char * MAX_FRAME_POINTS, ensure_ascii=False).encode()) <= 32 * 1024 - 1_024
    assert len((char * MAX_CHUNK_POINTS).encode()) <= 400 * 1024 - 16 * 1024
