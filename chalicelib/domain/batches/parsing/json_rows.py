"""Rows out of JSON, which is read whole because only its end says whether it is JSON; and out of JSON lines, a row a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NoReturn

from chalicelib.domain.batches.options import PROPERTIES
from chalicelib.domain.batches.parsing.line_splitter import lines
from chalicelib.domain.batches.parsing.problems import OF_THE_PROMPT, ParsedRow, ProblemCollector, UnreadableInput
from chalicelib.domain.batches.row import Row
from chalicelib.domain.errors import InvalidRequest, TooLarge
from chalicelib.domain.jobs.dependencies import MAX_PARENTS, POLICIES
from chalicelib.domain.queues.lanes import LANES
from chalicelib.domain.validation.schema import Schema, problems
from chalicelib.domain.validation.schema_messages import shortened

MAX_JSON_BYTES = 16_000_000
LONGEST_ID = 128
CONTENTS = ("content", "prompt", "input")  # what a row asks, under any one of these names

_TEXT: Schema = {"type": ["string", "null"]}
ITEM: Schema = {
    "type": ["string", "object"],
    "properties": {
        "id": {"type": ["string", "integer", "null"], "minLength": 1, "maxLength": LONGEST_ID},
        "content": _TEXT,
        "prompt": _TEXT,
        "input": {},
        "metadata": {"type": ["object", "null"]},
        "priority": {"enum": [*LANES, None]},
        "depends_on": {
            "type": ["array", "null"],
            "maxItems": MAX_PARENTS,
            "items": {"type": ["string", "integer"], "minLength": 1, "maxLength": LONGEST_ID},
        },
        "on_parent_failure": {"enum": [*POLICIES, None]},
    },
    "additionalProperties": False,
}
BATCH: Schema = {
    "type": "object",
    "properties": {"items": {"type": "array", "items": ITEM}, **PROPERTIES},
    "required": ["items"],
    "additionalProperties": False,
}


def parsed(pieces: Iterable[bytes]) -> tuple[list[Any], dict[str, Any]]:
    """The items of a JSON body and what else it says: its terms.

    Raises:
        InvalidRequest: it is no JSON, or no batch; with every field that cannot be used.
        TooLarge: it has more than 16 MB.
    """
    try:
        value = _json("".join(lines(_bounded(pieces), MAX_JSON_BYTES)))
    except UnreadableInput as wrong:
        raise InvalidRequest("The batch cannot be read.", details=(wrong.detail,)) from wrong
    batch: Any = {"items": value} if isinstance(value, list) else value
    wrong_fields = problems(BATCH, batch)
    if wrong_fields:
        raise InvalidRequest(details=wrong_fields)
    return batch["items"], {name: said for name, said in batch.items() if name != "items"}


def json_rows(items: Iterable[Any], flaws: ProblemCollector) -> Iterator[ParsedRow]:
    """Each row at its place in the list: `items.3`. The items are as `parsed` gives them."""
    for number, item in enumerate(items):
        if found := _found(item, f"items.{number}", flaws):
            yield found


def json_line_rows(pieces: Iterable[bytes], flaws: ProblemCollector) -> Iterator[ParsedRow]:
    """Each row at its line. Lines with nothing in them are left out.

    Raises:
        Unreadable: the lines are no text.
    """
    for number, line in enumerate(lines(pieces), start=1):
        if line.strip() and (found := _line(line, f"line {number}", flaws)):
            yield found


def _line(line: str, place: str, flaws: ProblemCollector) -> ParsedRow | None:
    try:
        item = _json(line)
    except UnreadableInput as wrong:
        flaws.add(place, f"is not JSON: {wrong}")
        return None
    wrong_fields = problems(ITEM, item, place)
    if wrong_fields:
        flaws.extend(wrong_fields)
        return None
    return _found(item, place, flaws)


def _found(item: Any, place: str, flaws: ProblemCollector) -> ParsedRow | None:
    """The row of an item that fits the schema; None where it contradicts itself."""
    if isinstance(item, str):
        return ParsedRow(place, Row(number=0, prompt=item, values=dict.fromkeys(OF_THE_PROMPT, item)), "")
    contents = [name for name in CONTENTS if item.get(name) is not None]
    if len(contents) > 1:
        flaws.add(f"{place}.{contents[1]}", f"cannot be given together with {contents[0]}: they are the same thing")
        return None
    content = item[contents[0]] if contents else None
    return ParsedRow(place, _row(item, content, _priority(item, place, flaws)), (contents or CONTENTS)[0])


def _row(item: Mapping[str, Any], content: Any, priority: str | None) -> Row:
    """In the template `{{input}}` is the item's content, whatever its metadata say."""
    metadata = item.get("metadata") or {}
    name = None if item.get("id") is None else str(item["id"])
    own = {"id": name, **dict.fromkeys(OF_THE_PROMPT, content)}
    return Row(
        number=0,
        id=name,
        prompt=content if isinstance(content, str) else None,
        input=None if isinstance(content, str) else content,
        priority=priority,
        metadata=metadata,
        values={**metadata, **{key: value for key, value in own.items() if value is not None}},
        depends_on=tuple(dict.fromkeys(str(parent) for parent in item.get("depends_on") or ())),
        on_parent_failure=item.get("on_parent_failure"),
    )


def _priority(item: Mapping[str, Any], place: str, flaws: ProblemCollector) -> str | None:
    """The item's own, else that of its metadata."""
    own: Any = item.get("priority") or (item.get("metadata") or {}).get("priority")
    if own is None or own in tuple(LANES):
        return None if own is None else str(own)
    message = f"counts where an item has no priority of its own: one of {', '.join(LANES)}, not {shortened(own)}"
    flaws.add(f"{place}.metadata.priority", message)
    return None


def _json(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_number)
    except json.JSONDecodeError as wrong:
        raise UnreadableInput(f"line {wrong.lineno}", f"column {wrong.colno}: {wrong.msg[:1].lower()}{wrong.msg[1:]}") from wrong
    except (ValueError, RecursionError) as wrong:  # a number that is none or has thousands of digits, lists in lists in lists
        raise UnreadableInput("", str(wrong)[:200] or "is nested too deeply") from wrong


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _bounded(pieces: Iterable[bytes]) -> Iterator[bytes]:
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > MAX_JSON_BYTES:
            raise TooLarge("JSON may have 16 MB, because it is read whole. Send more as CSV, text, or JSON lines, by upload up to 50 MB.")
        yield piece
