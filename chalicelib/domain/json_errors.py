"""Say what is wrong with a text that is not JSON, and where, in words for users."""

from __future__ import annotations

import json

from chalicelib.domain.text import repair_surrogates

MAX_SHOWN = 20  # characters from the place on
# By the beginnings of the parser's own messages.
_MEANINGS = {
    "Expecting value": "a value is missing",
    "Expecting property name": "a field's name in double quotes is missing",
    "Expecting ':'": "a colon after the field's name is missing",
    "Expecting ','": "a comma, or the end of the list or object, is missing",
    "Illegal trailing comma": "a comma is followed by nothing",
    "Extra data": "the JSON is over, but more follows",
    "Unterminated string": "a text begins that does not end",
    "Invalid control character": "a text has a line break or another control character, which JSON writes as \\n or \\u000a",
    "Invalid \\u": "`\\u` is not followed by four hexadecimal digits",
    "Invalid \\escape": "a backslash begins nothing that JSON knows; the backslash itself is written twice",
}


def describe_json_error(error: json.JSONDecodeError) -> str:
    """Continue a sentence about the text: `is not JSON in line 1, column 9: a value is missing before "}"`."""
    meaning = next((words for begin, words in _MEANINGS.items() if error.msg.startswith(begin)), "it cannot be read")
    rest = error.doc[error.pos : error.pos + MAX_SHOWN]
    shown = json.dumps(repair_surrogates(rest), ensure_ascii=False) if rest else "the end"
    return f"is not JSON in line {error.lineno}, column {error.colno}: {meaning}, at {shown}"
