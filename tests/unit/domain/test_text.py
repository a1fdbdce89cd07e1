"""Text in messages."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib.domain.text import visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\ufeffprompt", "\\ufeffprompt"),
        ("a\u200b\u00a0b", "a\\u200b\\u00a0b"),
        ("\x1a\t\n\x1b[31m", "\\u001a\\t\\n\\u001b[31m"),
        ("\u202eevil", "\\u202eevil"),
        ("Grüße 你好 😀", "Grüße 你好 😀"),
    ],
)
def test_invisible_characters_are_shown_as_in_json(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\\")))
@settings(deadline=None)
def test_shown_text_has_no_invisible_character_and_says_which_ones_there_were(text: str) -> None:
    shown = visible(text)

    assert not any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in shown)
    assert json.loads(f'"{shown.replace(chr(34), chr(92) + chr(34))}"') == text
