"""Read the body of a request: its content type, its encoding, and the JSON object in it.

API Gateway passes a body as text and replaces bytes that are not UTF-8 by U+FFFD. That character is
the only sign that bytes were lost, so a body that has it is refused. In JSON it can be written as
`\\ufffd` where it is meant.
"""

from __future__ import annotations

import json
import re
from typing import Any

from chalicelib.domain import json_limits
from chalicelib.domain.errors import Detail, InvalidRequest, TooLarge, UnsupportedMediaType
from chalicelib.domain.json_errors import describe_json_error
from chalicelib.domain.text import REPLACEMENT
from chalicelib.domain.validation.schema_messages import describe_kind, shortened

JSON = "application/json"
MAX_BODY_BYTES = 4_000_000
NOTHING = (b"", b"{}", b"null")  # what clients send where there is nothing to send
HOW_TO_SEND_UTF8 = (
    "Encode the body as UTF-8, in PowerShell with `-Body ([Text.Encoding]::UTF8.GetBytes($json))`. "
    "U+FFFD, if it is meant, is written \\ufffd in JSON"
)
_UTF8_NAMES = frozenset(["utf-8", "utf8", "us-ascii", "ascii"])
_LIKE_ASCII = re.compile(r"(iso-?8859-?\d+|latin-?\d|(windows|cp)-?12\d\d)")  # the same bytes for the characters of ASCII
_CHARSET = re.compile(r";\s*charset\s*=\s*\"?([^\s;\"]*)")
_BEFORE = 20  # characters before a lost one that a message shows


def refuse_body(raw: bytes) -> None:
    """Refuse what somebody sends to a route that reads no body; it would be dropped without a word.

    Raises:
        InvalidRequest: the body is more than an empty object.
    """
    if raw[:100].strip() not in NOTHING or len(raw) > 100:
        raise InvalidRequest("This route takes no body.", details=(Detail("", "must be empty; parameters go into the path and the query"),))


def check_json_body(raw: bytes, content_type: str | None, content_encoding: str | None = None) -> None:
    """Refuse a body that is not sent as JSON in UTF-8. The type of an empty body does not matter.

    Raises:
        UnsupportedMediaType: it has another content type.
        InvalidRequest: it is not UTF-8, or bytes were lost because it was not.
        TooLarge: it is too large.
    """
    if len(raw) > MAX_BODY_BYTES:
        raise TooLarge("A request may have at most 4 MB.")
    if not raw.strip():
        return
    kind = (content_type or JSON).lower()
    if JSON not in [part.strip() for part in re.split("[,;]", kind)]:
        raise UnsupportedMediaType(f"Send JSON with `Content-Type: {JSON}`, not {shortened(kind)}.")
    charset = found[1] if (found := _CHARSET.search(kind)) else "utf-8"
    if charset not in _UTF8_NAMES and not (_LIKE_ASCII.fullmatch(charset) and raw.isascii()):
        problem = f"names the charset {shortened(charset)}, and JSON is read as UTF-8. {HOW_TO_SEND_UTF8}"
        raise InvalidRequest("The body is not UTF-8.", details=(Detail("Content-Type", problem),))
    _check_utf8(raw, (content_encoding or "identity").strip().lower())


def parse_object(raw: bytes) -> dict[str, Any]:
    """The body as a JSON object; an empty body is an empty object.

    Raises:
        InvalidRequest: the body is not a JSON object, or has too many values.
    """
    if not raw.strip():
        return {}
    try:
        data = json_limits.loads(raw)
    except json_limits.JsonRefused as exc:
        raise InvalidRequest(f"The body {exc}.", details=(Detail(exc.path, str(exc)),)) from exc
    except json.JSONDecodeError as exc:
        raise InvalidRequest("The body is not JSON.", details=(Detail("", describe_json_error(exc)),)) from exc
    if not isinstance(data, dict):
        raise InvalidRequest("The body must be a JSON object.", details=(Detail("", f"must be an object, not {describe_kind(data)}"),))
    return data


def _check_utf8(raw: bytes, content_encoding: str) -> None:
    """Refuse what is not text in UTF-8. A packed body is named so, because no other encoding would help."""
    text = raw.decode("utf-8", "replace")
    if content_encoding != "identity" and ("\0" in text or REPLACEMENT in text):
        problem = f"names {shortened(content_encoding)}, and bodies are not unpacked: send the JSON as it is"
        raise InvalidRequest("The body is packed.", details=(Detail("Content-Encoding", problem),))
    if "\0" in text:
        problem = f"has NUL bytes, as UTF-16 and UTF-32 have them. {HOW_TO_SEND_UTF8}"
    elif REPLACEMENT in text:
        position = text.index(REPLACEMENT)
        before = text[max(0, position - _BEFORE) : position]
        line = text.count("\n", 0, position) + 1
        problem = (
            f"is not UTF-8 in line {line} after {shortened(before)}: it may be ISO-8859-1 (Latin-1) or Windows-1252. {HOW_TO_SEND_UTF8}"
        )
    else:
        return
    raise InvalidRequest("The body is not UTF-8.", details=(Detail("", problem),))
