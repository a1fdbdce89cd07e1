"""Parse JSON from outside: count its values and levels before anything is built of it.

A value takes up to a hundred times the memory of its three bytes in `[],[],...`, so a limit in bytes
does not bound what a document becomes. Everything that a caller, a queue, a model or a file sends is
parsed here; what Headrace itself has stored is not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from itertools import accumulate, chain
from typing import Any

from chalicelib.domain.text import repair_surrogates, visible

MAX_VALUES = 50_000  # of one document: a request, a row, a message
MAX_ROWS_VALUES = 200_000  # of a document that holds the rows of a batch
MAX_BATCH_VALUES = 750_000  # of the inputs and the metadata of all rows of a batch, which are kept until it is stored
# Of a model's answer. The longest answer has 128,000 tokens, and a value takes about one.
MAX_ANSWER_VALUES = 200_000
MAX_LEVELS = 100  # of lists and objects; `json` would fail, depending on the version, at about a thousand
MAX_DIGITS = 4_300  # of a whole number: Python's own limit, because the time grows with the square
MAX_NAME_SHOWN = 80  # characters of a field's name in a message
MAX_PATH_SHOWN = 300

_STRUCTURE = frozenset(b'"[]{},')
_OTHER_BYTES = bytes(set(range(256)) - _STRUCTURE)
# A text, which may not end, or where a level begins or ends.
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"?|[][{}]', re.DOTALL)
_LEVEL_CHANGES = [(byte in b"[{") - (byte in b"]}") for byte in range(256)]


class JsonRefused(ValueError):
    """The document is beyond a limit. The message continues a sentence about it: `has 70,000 values; ...`.

    `path`: the place in the document, such as `metadata.size`; empty if it is about all of it.
    """

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(message)
        self.path = path


def loads(document: str | bytes, max_values: int = MAX_VALUES, *, unique_names: bool = True) -> Any:
    """Parse a document.

    Args:
        document: the text, or its bytes in UTF-8, UTF-16 or UTF-32.
        max_values: how many values it may have: texts, numbers, lists, objects and so on, at all
            levels.
        unique_names: refuse two fields of one name in an object. False: the last one counts, as for
            a model's answer, which is not to be bought twice because of that.

    Raises:
        JsonRefused: it has too many values, levels or digits, or a field twice.
        ValueError: it is not JSON. `JsonRefused` is one as well, so callers catch this alone.
    """
    encoded = _utf8(document)
    if encoded.count(b",") + _openings(encoded) >= max_values or _openings(encoded) > MAX_LEVELS:
        _check(encoded, max_values)
    repeated: list[tuple[dict[str, Any], str]] = []
    try:
        value = json.loads(document, object_pairs_hook=_noting(repeated) if unique_names else None)
    except (json.JSONDecodeError, UnicodeError):
        raise
    except ValueError as exc:
        raise JsonRefused(f"has a whole number of more than {MAX_DIGITS:,} digits", _path_of_long_number(document)) from exc
    if repeated:
        raise _repeated(*repeated[0], value)
    return value


def _repeated(owner: dict[str, Any], name: str, value: Any) -> JsonRefused:
    """Return the error for two fields of one name, of which a parser would take the last without a word."""
    shown = visible(repair_surrogates(name[:MAX_NAME_SHOWN]))
    path = _path_of(owner, shown, value)
    place = f" (at {path[:MAX_PATH_SHOWN]})" if path not in ("", shown) else ""
    return JsonRefused(f"has the field `{shown}` twice in one object{place}", path)


def _noting(repeated: list[tuple[dict[str, Any], str]]) -> Callable[[list[tuple[str, Any]]], dict[str, Any]]:
    """Return a hook that builds objects, and notes those in which a name occurs twice."""

    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        built = dict(pairs)
        if len(built) != len(pairs):
            seen: set[str] = set()
            name = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
            repeated.append((built, name))
        return built

    return build


def _path_of(owner: dict[str, Any], name: str, value: Any) -> str:
    """Return where a field of `owner` is in the document; empty if it is within a value that was replaced."""
    level: list[tuple[str, Any]] = [("", value)]
    while level:
        parts = []
        for path, part in level:
            if part is owner:
                return f"{path}{name}"
            if isinstance(part, dict):
                parts += [(f"{path}{step[:MAX_NAME_SHOWN]}.", inner) for step, inner in part.items() if isinstance(inner, dict | list)]
            elif isinstance(part, list):
                parts += [(f"{path}{index}.", inner) for index, inner in enumerate(part) if isinstance(inner, dict | list)]
        level = parts
    return ""


def count_values(value: Any) -> int:
    """Return how many values a parsed one has, itself included."""
    count, level = 0, [value]
    while level:
        count += len(level)
        parts = (part.values() if isinstance(part, dict) else part for part in level if isinstance(part, dict | list))
        level = list(chain.from_iterable(parts))
    return count


def _check(encoded: bytes, max_values: int) -> None:
    """Refuse what exceeds a limit. Only structure outside of texts counts, so the texts are removed.

    What is not JSON is counted as far as a parser would read it.
    """
    # Within a text a quote is escaped by a backslash, and a backslash by another.
    bare = encoded.replace(rb"\\", b"").replace(rb"\"", b"").translate(None, _OTHER_BYTES)
    texts = bare.count(b'"') // 2
    if texts > 2 * max_values:  # a value has at most two texts, its name and itself; splitting would need too much memory
        raise _too_many(texts // 2, max_values, "more than ")
    structure = b"".join(bare.split(b'"')[::2])
    values = 1 + structure.count(b",") + _openings(structure)
    if values > max_values:
        raise _too_many(values, max_values)
    deepest = max(accumulate(_LEVEL_CHANGES[byte] for byte in structure), default=0)
    if deepest > MAX_LEVELS:
        line, column = _place_of_level(encoded, MAX_LEVELS + 1)
        place = f"line {line}, column {column}"
        raise JsonRefused(f"is nested {deepest:,} levels deep; at most {MAX_LEVELS} are allowed, and the next begins in {place}")


def _place_of_level(encoded: bytes, level: int) -> tuple[int, int]:
    """Return line and column, in bytes, of the list or object that begins this level."""
    depth, place = 0, 0
    for token in _TOKEN.finditer(encoded):
        depth += _LEVEL_CHANGES[token[0][0]]
        if depth == level:
            place = token.start()
            break
    return encoded.count(b"\n", 0, place) + 1, place - encoded.rfind(b"\n", 0, place)


def _path_of_long_number(document: str | bytes) -> str:
    """Return the path of the first whole number with too many digits; empty if it is the document itself."""
    too_long = object()
    level: list[tuple[str, Any]] = [("", json.loads(document, parse_int=lambda digits: too_long if len(digits) > MAX_DIGITS else 0))]
    while level:
        found = next((path for path, part in level if part is too_long), None)
        if found is not None:
            return found[1:]
        level = [
            (f"{path}.{step[:80]}", inner)
            for path, part in level
            for step, inner in (part.items() if isinstance(part, dict) else _numbered(part) if isinstance(part, list) else ())
        ]
    return ""


def _numbered(items: list[Any]) -> Iterator[tuple[str, Any]]:
    """Return the items of a list with their number as text."""
    return ((str(index), item) for index, item in enumerate(items))


def _too_many(values: int, limit: int, about: str = "") -> JsonRefused:
    return JsonRefused(f"has {about}{values:,} values; at most {limit:,} are allowed")


def _openings(encoded: bytes) -> int:
    """Return how many lists and objects begin."""
    return encoded.count(b"[") + encoded.count(b"{")


def _utf8(document: str | bytes) -> bytes:
    if isinstance(document, bytes):
        encoding = json.detect_encoding(document)
        if encoding.startswith("utf-8"):
            return document
        document = document.decode(encoding, "surrogatepass")
    return document.encode("utf-8", "surrogatepass")
