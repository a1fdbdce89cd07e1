"""Read the rows of a batch from JSON (parsed as a whole) or JSON lines (one row a line)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from chalicelib.domain import json_limits
from chalicelib.domain.batches.options import MAX_ROWS, PROPERTIES
from chalicelib.domain.batches.parsing.line_splitter import lines, numbered_lines
from chalicelib.domain.batches.parsing.problems import PROMPT_NAMES, ParsedRow, ProblemCollector, UnreadableInput
from chalicelib.domain.batches.row import Row
from chalicelib.domain.errors import Detail, InvalidRequest, TooLarge
from chalicelib.domain.jobs.dependencies import MAX_PARENTS, POLICIES
from chalicelib.domain.queues.lanes import LANES
from chalicelib.domain.validation.schema import MAX_DETAILS, Schema, problems
from chalicelib.domain.validation.schema_messages import shortened

MAX_JSON_BYTES = 4_000_000  # a document is read whole; JSON lines are not
MAX_ID_LENGTH = 128
# Three names for what the row asks; a row may have one of them.
CONTENT_FIELDS = ("content", "prompt", "input")

_TEXT: Schema = {"type": ["string", "null"]}
ITEM: Schema = {
    "type": ["string", "object"],
    "properties": {
        "id": {"type": ["string", "integer", "null"], "minLength": 1, "maxLength": MAX_ID_LENGTH},
        "content": _TEXT,
        "prompt": _TEXT,
        "input": {},
        "metadata": {"type": ["object", "null"]},
        "priority": {"enum": [*LANES, None]},
        "depends_on": {
            "type": ["array", "null"],
            "maxItems": MAX_PARENTS,
            "items": {"type": ["string", "integer"], "minLength": 1, "maxLength": MAX_ID_LENGTH},
        },
        "on_parent_failure": {"enum": [*POLICIES, None]},
    },
    "additionalProperties": False,
}
BATCH: Schema = {
    "type": "object",
    "properties": {"items": {"type": "array"}, **PROPERTIES},
    "required": ["items"],
    "additionalProperties": False,
}


def parse_json(pieces: Iterable[bytes]) -> tuple[list[Any], dict[str, Any]]:
    """Return the items of a JSON body and its other fields, the options.

    Raises:
        InvalidRequest: it is not JSON or not a batch; with every invalid field.
        TooLarge: it has more than 4 MB.
    """
    try:
        value = _loads("".join(lines(_limit_size(pieces), MAX_JSON_BYTES)), json_limits.MAX_ROWS_VALUES)
    except UnreadableInput as exc:
        raise InvalidRequest("The batch cannot be read.", details=(exc.detail,)) from exc
    batch: Any = {"items": value} if isinstance(value, list) else value
    details = _batch_problems(batch)
    if details:
        raise InvalidRequest(details=details)
    return batch["items"], {name: option for name, option in batch.items() if name != "items"}


def _batch_problems(batch: Any) -> tuple[Detail, ...]:
    """Return the problems of a batch, one item after the other, so that those beyond the limit are never built."""
    items = batch.get("items") if isinstance(batch, dict) else None
    if not isinstance(items, list):
        return problems(BATCH, batch)
    details = list(problems(BATCH, {**batch, "items": []}))
    for number, item in enumerate(islice(items, MAX_ROWS)):
        if len(details) >= MAX_DETAILS:
            break
        details += problems(ITEM, item, f"items.{number}")
    return tuple(details[:MAX_DETAILS])


def json_rows(items: Iterable[Any], found: ProblemCollector) -> Iterator[ParsedRow]:
    """Yield each row with its position in the list: `items.3`. `items` come from `parse_json`."""
    for number, item in enumerate(items):
        if row := _parse_item(item, f"items.{number}", found):
            yield row


def json_line_rows(pieces: Iterable[bytes], found: ProblemCollector) -> Iterator[ParsedRow]:
    """Yield each row with its line. Empty lines are skipped.

    Raises:
        UnreadableInput: the bytes are not lines of text.
    """
    for number, line in numbered_lines(pieces):
        if row := _parse_line(line, f"line {number}", found):
            yield row


def _parse_line(line: str, location: str, found: ProblemCollector) -> ParsedRow | None:
    try:
        item = _loads(line, json_limits.MAX_VALUES)
    except UnreadableInput as exc:
        found.add(location, f"is not JSON: {exc}")
        return None
    details = problems(ITEM, item, location)
    if details:
        found.extend(details)
        return None
    return _parse_item(item, location, found)


def _parse_item(item: Any, location: str, found: ProblemCollector) -> ParsedRow | None:
    """Return the row of a valid item; None after adding a contradiction in it to `found`."""
    if isinstance(item, str):
        return ParsedRow(location, Row(number=0, prompt=item, values=dict.fromkeys(PROMPT_NAMES, item)), "")
    given = [name for name in CONTENT_FIELDS if item.get(name) is not None]
    if len(given) > 1:
        found.add(f"{location}.{given[1]}", f"cannot be given together with {given[0]}: they are the same field")
        return None
    content = item[given[0]] if given else None
    return ParsedRow(location, _row(item, content, _priority(item, location, found)), (given or CONTENT_FIELDS)[0])


def _row(item: Mapping[str, Any], content: Any, priority: str | None) -> Row:
    """Build the row.

    In the template `{{input}}` is the item's content, even if its metadata has a field of that
    name.
    """
    metadata = item.get("metadata") or {}
    row_id = None if item.get("id") is None else str(item["id"])
    own_values = {"id": row_id, **dict.fromkeys(PROMPT_NAMES, content)}
    return Row(
        number=0,
        id=row_id,
        prompt=content if isinstance(content, str) else None,
        input=None if isinstance(content, str) else content,
        priority=priority,
        metadata=metadata,
        values={**metadata, **{name: value for name, value in own_values.items() if value is not None}},
        depends_on=tuple(dict.fromkeys(str(parent) for parent in item.get("depends_on") or ())),
        on_parent_failure=item.get("on_parent_failure"),
    )


def _priority(item: Mapping[str, Any], location: str, found: ProblemCollector) -> str | None:
    """Return the item's `priority`, else that of its metadata."""
    priority: Any = item.get("priority") or (item.get("metadata") or {}).get("priority")
    if priority is None or priority in tuple(LANES):
        return None if priority is None else str(priority)
    message = f"is used because the item has no `priority`: must be one of {', '.join(LANES)}, not {shortened(priority)}"
    found.add(f"{location}.metadata.priority", message)
    return None


def _loads(text: str, max_values: int) -> Any:
    try:
        return json_limits.loads(text, max_values)
    except json.JSONDecodeError as exc:
        raise UnreadableInput(f"line {exc.lineno}", f"column {exc.colno}: {exc.msg[:1].lower()}{exc.msg[1:]}") from exc
    except ValueError as exc:
        raise UnreadableInput("", str(exc)) from exc


def _limit_size(pieces: Iterable[bytes]) -> Iterator[bytes]:
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > MAX_JSON_BYTES:
            raise json_too_large()
        yield piece


def json_too_large() -> TooLarge:
    return TooLarge("A JSON batch may have at most 4 MB. Send larger ones as JSON lines, CSV or text, with an upload up to 50 MB.")
