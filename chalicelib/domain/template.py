"""Templates in prompts: `{{name}}` stands for a value, `{{name.part.0}}` for a part of one.

There is nothing else to them: no expressions, no loops. What is put in is never read as a template again, so text from outside cannot
name anything. `{{{{` stands for two braces that are to stay.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from chalicelib.domain.errors import TemplateProblem

_PLACE = re.compile(r"\{\{\{\{|\{\{([^{}]{0,332})\}\}")  # one way to match it, or none: text from outside costs no more than its length
LITERAL = "{{{{"
LONGEST_SHOWN = 80
MAX_FILLED_LENGTH = (
    4_000_000  # characters, of all that is filled together: a value may be long, and its name stand there ten thousand times
)


def names(text: str) -> tuple[str, ...]:
    """What a template asks for, each once, in the order of the text: `input`, `parents.job_1.output`."""
    return tuple(dict.fromkeys(_name(match) for match in _PLACE.finditer(text) if match.group() != LITERAL))


def names_within(value: Any) -> tuple[str, ...]:
    """What all the texts of a JSON value ask for."""
    return tuple(dict.fromkeys(name for text in _texts(value) for name in names(text)))


def fill(text: str, values: Mapping[str, Any]) -> str:
    """`text` with every place filled from `values`; what is not text is put in as JSON.

    Raises:
        TemplateProblem: it asks for what is not there, and the message names it and what there is; or it becomes far too long.
    """
    return _Filler(values).text(text)


def rename_placeholders(text: str, places: Sequence[str], by: str) -> str:
    """`text` with the places of these names replaced by another template, whose own places stay to be filled.

    Raises:
        TemplateProblem: it becomes far too long.
    """
    room = _SizeBudget()
    return _PLACE.sub(lambda match: room.take(by) if _name(match) in places else match.group(), text)


def fill_within(value: Any, values: Mapping[str, Any]) -> Any:
    """The same JSON value with every text in it filled; the names of fields stay as they are.

    Raises:
        TemplateProblem: as above.
    """
    return _Filler(values).within(value)


class _SizeBudget:
    """How much may still be put in."""

    def __init__(self) -> None:
        self._left = MAX_FILLED_LENGTH

    def take(self, text: str) -> str:
        self._left -= len(text)
        if self._left < 0:
            raise TemplateProblem(f"The template comes to more than {MAX_FILLED_LENGTH:,} characters.")
        return text


class _Filler:
    """One value's texts being filled."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values, self._room = values, _SizeBudget()

    def text(self, text: str) -> str:
        return _PLACE.sub(self._of, text)

    def within(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {name: self.within(part) for name, part in value.items()}
        if isinstance(value, list):
            return [self.within(part) for part in value]
        return value

    def _of(self, match: re.Match[str]) -> str:
        return self._room.take("{{" if match.group() == LITERAL else _shown(_find(_name(match), self._values)))


def _name(match: re.Match[str]) -> str:
    """What stands in a place, without the spaces around it."""
    return (match.group(1) or "").strip()


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)


def _find(name: str, values: Mapping[str, Any]) -> Any:
    """A whole name first, because columns may have dots in theirs; then step by step."""
    if name in values:
        return values[name]
    here: Any = values
    for step in name.split("."):
        try:
            here = here[int(step)] if isinstance(here, Sequence) and not isinstance(here, str) else here[step]
        except (KeyError, IndexError, ValueError, TypeError):
            known = ", ".join(f"{{{{{key}}}}}" for key in list(values)[:20])
            raise TemplateProblem(f"The template asks for {{{{{name[:LONGEST_SHOWN]}}}}}; there is {known or 'nothing'}.") from None
    return here


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
