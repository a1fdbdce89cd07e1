"""Find the JSON in a model's answer that is not JSON alone: fenced, after a preamble, after thoughts.

Models that are only asked for JSON, and servers that ignore the requested format, write around it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from chalicelib.domain import json_limits

MAX_CANDIDATES = 4  # documents in one answer that are compared; with more it is unclear which is meant
MAX_STARTS = 50  # brackets at which a document is looked for
MAX_PASSES = 4  # how often the whole text is scanned at most: each bracket that is never closed costs one
_FENCED = re.compile(r"\A\s*```[\w-]*[ \t]*\n(.*?)\n?\s*```\s*\Z", re.DOTALL)
# What ends the thoughts that some servers leave in the text: tags, Mistral's, and the channels of gpt-oss.
_THOUGHTS_END = re.compile(r"</(?:think|thinking|thought|thoughts|reasoning)>|\[/THINK\]|<\|channel\|>final<\|message\|>", re.IGNORECASE)
_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


def candidates(text: str) -> list[Any]:
    """Return the JSON documents in an answer that does not parse as a whole, without repetitions.

    A document is an object or a list; a single fenced block may also be another value. At most
    `MAX_CANDIDATES` and one more.
    """
    text = text.removeprefix("\ufeff")
    found = _candidates(_THOUGHTS_END.split(text)[-1].strip())
    if not found and _THOUGHTS_END.search(text):  # the mark may stand in a text of the document, and ends no thoughts there
        found = [value for value in _candidates(text.strip()) if _THOUGHTS_END.search(json.dumps(value))]
    return found


def _candidates(text: str) -> list[Any]:
    if fenced := _FENCED.match(text):
        with suppress(ValueError):  # several blocks, or none of JSON
            return [json_limits.loads(fenced[1], json_limits.MAX_ANSWER_VALUES, unique_names=False)]
    found: list[Any] = []
    seen = set()
    for value in _documents(text):
        key = json.dumps(value, sort_keys=True)
        if key not in seen:
            seen.add(key)
            found.append(value)
        if len(found) > MAX_CANDIDATES:
            break
    return found


def unwrapped(value: Any) -> Iterator[Any]:
    """Yield what a value may be a wrapping of: JSON as text, an object of one field, a list of one."""
    if isinstance(value, str):
        try:
            yield json_limits.loads(value, json_limits.MAX_ANSWER_VALUES, unique_names=False)
        except ValueError:
            return
    elif isinstance(value, dict | list) and len(value) == 1:
        yield next(iter(value.values() if isinstance(value, dict) else value))


def _documents(text: str) -> Iterator[Any]:
    """Yield the outermost objects and lists of the text that can be parsed."""
    at, left = 0, MAX_PASSES * len(text)
    for _ in range(MAX_STARTS):
        start = min((found for bracket in "{[" if (found := text.find(bracket, at)) >= 0), default=-1)
        if start < 0 or left <= 0:
            return
        end = _end_of(text, start)
        at, left = start + 1, left - ((end or len(text)) - start)
        if end is None:
            continue
        try:
            value = json_limits.loads(text[start:end], json_limits.MAX_ANSWER_VALUES, unique_names=False)
        except ValueError:
            continue
        yield value
        at = end


def _end_of(text: str, start: int) -> int | None:
    """Return where the bracket at `start` is closed; None if it is not."""
    depth = 0
    for token in _TOKENS.finditer(text, start):
        if token[0] in "[{":
            depth += 1
        elif token[0] in "]}":
            depth -= 1
            if depth == 0:
                return token.end()
    return None
