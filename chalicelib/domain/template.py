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

_PLACE = re.compile(r"\{\{\{\{|\{\{\s{0,16}([^{}]{0,300}?)\s{0,16}\}\}")
LITERAL = "{{{{"
LONGEST_SHOWN = 80


def names(text: str) -> tuple[str, ...]:
    """What a template asks for, each once, in the order of the text: `input`, `parents.job_1.output`."""
    return tuple(dict.fromkeys(match.group(1) for match in _PLACE.finditer(text) if match.group(1) is not None))


def names_within(value: Any) -> tuple[str, ...]:
    """What all the texts of a JSON value ask for."""
    return tuple(dict.fromkeys(name for text in _texts(value) for name in names(text)))


def fill(text: str, values: Mapping[str, Any]) -> str:
    """`text` with every place filled from `values`; what is not text is put in as JSON.

    Raises:
        TemplateProblem: it asks for what is not there; the message names it and what there is.
    """
    return _PLACE.sub(lambda match: "{{" if match.group() == LITERAL else _shown(_find(match.group(1), values)), text)


def replaced(text: str, places: Sequence[str], by: str) -> str:
    """`text` with the places of these names replaced by another template, whose own places stay to be filled."""
    return _PLACE.sub(lambda match: by if match.group(1) in places else match.group(), text)


def fill_within(value: Any, values: Mapping[str, Any]) -> Any:
    """The same JSON value with every text in it filled; the names of fields stay as they are.

    Raises:
        TemplateProblem: as above.
    """
    if isinstance(value, str):
        return fill(value, values)
    if isinstance(value, dict):
        return {name: fill_within(part, values) for name, part in value.items()}
    if isinstance(value, list):
        return [fill_within(part, values) for part in value]
    return value


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
