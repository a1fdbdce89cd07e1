"""Fill prompt templates: `{{name}}` is replaced by a value, `{{name.part.0}}` by a part of one.

There are no expressions and no loops. Inserted text is never read as a template again, so text from
outside cannot refer to other values. `{{{{` is the escape for two literal braces.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
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
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {name: self.within(part) for name, part in value.items()}
        if isinstance(value, list):
            return [self.within(part) for part in value]
        return value

    def _replacement(self, match: re.Match[str]) -> str:
        return self._budget.take("{{" if match.group() == ESCAPED_BRACES else _as_text(_value(_name(match), self._values)))


def _name(match: re.Match[str]) -> str:
    """Return the name in a placeholder, without surrounding spaces."""
    return (match.group(1) or "").strip()


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
