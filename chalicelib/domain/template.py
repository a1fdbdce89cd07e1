"""Fill prompt templates: `{{name}}` is replaced by a value, `{{name.part.0}}` by a part of one.

There are no expressions and no loops. Inserted text is never read as a template again, so text from
outside cannot refer to other values. `{{{{` is the escape for two literal braces.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from chalicelib.domain.errors import TemplateProblem

# The pattern has one way to match at each position, so scanning untrusted text takes linear time.
_PLACEHOLDER = re.compile(r"\{\{\{\{|\{\{([^{}]{0,332})\}\}")
ESCAPED_BRACES = "{{{{"
MAX_NAME_SHOWN = 80
# Characters of all inserted text together. Without it a long value that is named ten thousand times
# would exhaust the memory.
MAX_FILLED_LENGTH = 4_000_000


def names(text: str) -> tuple[str, ...]:
    """Return the distinct names in a template, in order: `input`, `parents.job_1.output`."""
    return tuple(dict.fromkeys(_name(match) for match in _PLACEHOLDER.finditer(text) if match.group() != ESCAPED_BRACES))


def names_within(value: Any) -> tuple[str, ...]:
    """Return the names in all texts of a JSON value."""
    return tuple(dict.fromkeys(name for text in _texts(value) for name in names(text)))


def name_key(name: str) -> str:
    """Return what makes a name the same as another: not capitals, blanks around it, or what is invisible.

    Columns and the names of a template are both compared by it.
    """
    return " ".join(trimmed(unicodedata.normalize("NFKC", name)).split()).casefold()


def trimmed(text: str) -> str:
    """Return the text without blanks around it and without the characters that nobody can see or type.

    These are byte order marks, zero-width characters and the like.
    """
    if text.isascii():
        return text.strip()
    return "".join(character for character in text if unicodedata.category(character) != "Cf").strip()


def match_names(text: str, known: Collection[str]) -> str:
    """Return the template with each name written as in `known`: `{{language}}` becomes `{{Language}}`.

    A name that fits two of `known` in the same way, or none, stays.
    """
    unknown = [name for name in names(text) if name not in known]
    if not unknown:
        return text
    found = _names_by_key(known)
    spelled = {name: exact for name in unknown if (exact := _known_name(name, found)) is not None}

    def respelled(match: re.Match[str]) -> str:
        exact = spelled.get(_name(match))
        return match.group() if exact is None or match.group() == ESCAPED_BRACES else f"{{{{{exact}}}}}"

    return _PLACEHOLDER.sub(respelled, text) if spelled else text


def match_names_within(value: Any, known: Collection[str]) -> Any:
    """Return the JSON value with `match_names` applied to every text in it."""
    return _map_texts(value, lambda text: match_names(text, known))


def _names_by_key(known: Collection[str]) -> dict[str, str | None]:
    """Return the names by their keys; None where two names have one. A name that is its own key comes first."""
    found: dict[str, str | None] = {}
    for name in known:
        placeholder = _PLACEHOLDER.fullmatch(f"{{{{{name}}}}}")
        if placeholder is None or _name(placeholder) != name:
            continue  # no template can name it
        key = name_key(name)
        if name == key or key not in found:
            found[key] = name
        elif found[key] != key:
            found[key] = None
    return found


def _known_name(name: str, found: Mapping[str, str | None]) -> str | None:
    """Return the known name for `name`, or for the part before its first dot."""
    exact = found.get(name_key(name))
    if exact is not None or "." not in name:
        return exact
    first, _, rest = name.partition(".")
    exact = found.get(name_key(first))
    return None if exact is None else f"{exact}.{rest}"


def fill(text: str, values: Mapping[str, Any]) -> str:
    """Return `text` with every placeholder replaced; values that are not text become JSON.

    Raises:
        TemplateProblem: a name is not in `values` (the message names it and the known ones), or the
            result is too long.
    """
    return _Filler(values).text(text)


def rename_placeholders(text: str, placeholders: Sequence[str], replacement: str) -> str:
    """Return `text` with the placeholders of some names replaced by another template.

    Raises:
        TemplateProblem: the result is too long.
    """
    budget = _SizeBudget()
    return _PLACEHOLDER.sub(lambda match: budget.take(replacement) if _name(match) in placeholders else match.group(), text)


def fill_within(value: Any, values: Mapping[str, Any]) -> Any:
    """Return the JSON value with every text in it filled; field names are not templates.

    Raises:
        TemplateProblem: as for `fill`.
    """
    return _Filler(values).within(value)


class _SizeBudget:
    """Counts inserted characters and refuses those beyond the limit."""

    def __init__(self) -> None:
        self._left = MAX_FILLED_LENGTH

    def take(self, text: str) -> str:
        self._left -= len(text)
        if self._left < 0:
            raise TemplateProblem(f"The filled template has more than {MAX_FILLED_LENGTH:,} characters.")
        return text


class _Filler:
    """Fills the texts of one JSON value within one size budget."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values, self._budget = values, _SizeBudget()

    def text(self, text: str) -> str:
        return _PLACEHOLDER.sub(self._replacement, text)

    def within(self, value: Any) -> Any:
        return _map_texts(value, self.text)

    def _replacement(self, match: re.Match[str]) -> str:
        return self._budget.take("{{" if match.group() == ESCAPED_BRACES else _as_text(_value(_name(match), self._values)))


def _name(match: re.Match[str]) -> str:
    """Return the name in a placeholder, without surrounding spaces."""
    return (match.group(1) or "").strip()


def _map_texts(value: Any, change: Callable[[str], str]) -> Any:
    """Return the JSON value with `change` applied to its texts; field names stay."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {name: _map_texts(part, change) for name, part in value.items()}
    if isinstance(value, list):
        return [_map_texts(part, change) for part in value]
    return value


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)


def _value(name: str, values: Mapping[str, Any]) -> Any:
    """Look up the whole name, because column names may have dots; then the dotted path."""
    if name in values:
        return values[name]
    value: Any = values
    for step in name.split("."):
        try:
            value = value[int(step)] if isinstance(value, Sequence) and not isinstance(value, str) else value[step]
        except (KeyError, IndexError, ValueError, TypeError):
            known = ", ".join(f"{{{{{key}}}}}" for key in list(values)[:20])
            unknown = f"{{{{{name[:MAX_NAME_SHOWN]}}}}}"
            raise TemplateProblem(f"The template refers to {unknown}, which does not exist; known are {known or 'none'}.") from None
    return value


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
