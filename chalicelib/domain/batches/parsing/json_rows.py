"""Read the rows of a batch from JSON (parsed as a whole) or JSON lines (one row a line)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Any

from chalicelib.domain import json_limits
from chalicelib.domain.batches.options import MAX_ROWS, PROPERTIES
from chalicelib.domain.batches.parsing.line_splitter import lines, numbered_lines
from chalicelib.domain.batches.parsing.openai_lines import URLS, body_prompt, shared_config
from chalicelib.domain.batches.parsing.problems import (
    LINE_ENDS_LOST,
    MAX_QUOTED,
    PROMPT_NAMES,
    ParsedRow,
    ProblemCollector,
    UnreadableInput,
    quoted,
)
from chalicelib.domain.batches.row import Row
from chalicelib.domain.errors import Detail, InvalidRequest, TooLarge
from chalicelib.domain.jobs.dependencies import MAX_PARENTS, POLICIES
from chalicelib.domain.json_errors import describe_json_error
from chalicelib.domain.queues.lanes import LANES
from chalicelib.domain.validation.schema import MAX_DETAILS, Schema, problems
from chalicelib.domain.validation.schema_messages import shortened

_IN_METADATA = "what else belongs to a row goes into its `metadata`, where a template finds it"
# What is in the lines of other tools.
FOREIGN_FIELDS = {
    "messages": "OpenAI's batch files have it in `body`; else write what is asked as `prompt`",
    "params": "this is a line for Anthropic; write what is asked as `prompt`",
    "response": "this is a line of the output of OpenAI's batches; send the input file",
    "error": "this is a line of the output of OpenAI's batches; send the input file",
}
_ROWS_ARE_A_LIST = 'is missing: the rows are a list, [...] or {"items": [...]}; pandas writes it with orient="records"'
MAX_JSON_BYTES = 4_000_000  # a document is read whole; JSON lines are not
MAX_ID_LENGTH = 128
# Three names for what the row asks; a row may have one of them.
CONTENT_FIELDS = ("content", "prompt", "input")
BODY = "body"
ID_FIELDS = ("id", "custom_id")

_ID: Schema = {"type": ["string", "integer", "null"], "minLength": 1, "maxLength": MAX_ID_LENGTH}
_TEXT: Schema = {"type": ["string", "null"]}
ITEM: Schema = {
    "type": ["string", "object"],
    "properties": {
        "id": _ID,
        "custom_id": _ID,
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
        # A line of OpenAI's own batch files, with `custom_id`.
        "method": {"enum": ["POST", None]},
        "url": {"enum": [*URLS, None]},
        "body": {"type": ["object", "null"]},
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
        value = _load_document("".join(lines(_limit_size(pieces), MAX_JSON_BYTES)))
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
        found = problems(BATCH, batch)
        is_absent = isinstance(batch, dict) and "items" not in batch
        return tuple(Detail("items", _ROWS_ARE_A_LIST) if is_absent and detail.path == "items" else detail for detail in found)
    details = list(problems(BATCH, {**batch, "items": []}))
    for number, item in enumerate(islice(items, MAX_ROWS)):
        if len(details) >= MAX_DETAILS:
            break
        details += _item_problems(item, f"items.{number}")
    return tuple(details[:MAX_DETAILS])


def _item_problems(item: Any, location: str) -> list[Detail]:
    """The problems of an item; an unknown field is told where its value could go."""
    return [_with_place(detail, location) for detail in problems(ITEM, item, location)]


def _with_place(detail: Detail, location: str) -> Detail:
    name = detail.path.removeprefix(f"{location}.")
    if not detail.message.startswith("unknown field") or "did you mean" in detail.message:
        return detail
    return Detail(detail.path, f"{detail.message}; {FOREIGN_FIELDS.get(name, _IN_METADATA)}")


def json_rows(items: Iterable[Any], found: ProblemCollector, shared: Mapping[str, Any] | None = None) -> Iterator[ParsedRow]:
    """Yield each row with its position in the list: `items.3`. `items` come from `parse_json`.

    Args:
        shared: the config in the first item's `body`, see `openai_lines`. None: bodies are refused.
    """
    for number, item in enumerate(items):
        if row := _parse_item(item, f"items.{number}", found, shared):
            yield row


class JsonLines:
    """The rows of JSON lines. The first line is read at once, because the config of the batch may be in it."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._lines = numbered_lines(pieces)
        self._first: tuple[int, str] | None = None
        self._unreadable: UnreadableInput | None = None
        try:
            self._first = next(self._lines, None)
        except UnreadableInput as exc:  # reported by `rows`, as for any other line
            self._unreadable = exc

    def shared_config(self) -> dict[str, Any]:
        """Return the config in the `body` of the first line; empty if there is none."""
        if self._first is None:
            return {}
        try:
            return shared_config(json_limits.loads(self._first[1]))
        except ValueError:  # reported by `rows`
            return {}

    def rows(self, found: ProblemCollector, shared: Mapping[str, Any] | None = None) -> Iterator[ParsedRow]:
        """Yield each row with its line. Empty lines are skipped. `shared`: see `json_rows`.

        Raises:
            UnreadableInput: the bytes are not lines of text, or no JSON lines.
        """
        if self._unreadable is not None:
            raise self._unreadable
        if self._first is None:
            return
        for number, line in chain([self._first], self._lines):
            if row := _parse_line(line, f"line {number}", found, shared, is_first=number == self._first[0]):
                yield row


def _parse_line(line: str, location: str, found: ProblemCollector, shared: Mapping[str, Any] | None, *, is_first: bool) -> ParsedRow | None:
    try:
        item = json_limits.loads(line)
    except json_limits.JsonRefused as exc:
        found.add(location, f"{exc}: {quoted(line)}")
        return None
    except ValueError as exc:
        if is_first and (other := _other_format(line, exc)):
            raise UnreadableInput(location, f"{other}: {quoted(line)}") from exc
        found.add(location, f"{_syntax_problem(exc)}: {quoted(line)}")
        return None
    if is_first and isinstance(item, list):
        message = f"is a JSON list, so the file is one JSON document and not JSON lines: {_AS_JSON}: {quoted(line)}"
        raise UnreadableInput(location, message)
    details = _item_problems(item, location)
    if details:
        found.extend(details)
        return None
    return _parse_item(item, location, found, shared)


_AS_JSON = "send it as application/json, in a file that ends with .json, or write each row on a line of its own, as jq -c does"


def _other_format(line: str, error: ValueError) -> str | None:
    """Return why the whole file is no JSON lines; None if it is only this line."""
    text = line.rstrip()
    if text.endswith(",") and _is_json(text[:-1]):
        return "ends with a comma: JSON lines have no commas between them; remove those at the ends of the lines"
    if isinstance(error, json.JSONDecodeError) and error.msg == "Extra data" and text[error.pos : error.pos + 1] in ("{", "["):
        return f"has several values: {LINE_ENDS_LOST}"
    if isinstance(error, json.JSONDecodeError) and error.pos >= len(text) and text[:1] in ("{", "["):
        return f"is the beginning of a value that goes on in other lines, so the file is one JSON document and not JSON lines: {_AS_JSON}"
    return None


def _is_json(text: str) -> bool:
    try:
        json_limits.loads(text)
    except ValueError:
        return False
    return True


def _parse_item(item: Any, location: str, found: ProblemCollector, shared: Mapping[str, Any] | None) -> ParsedRow | None:
    """Return the row of a valid item; None after adding a contradiction in it to `found`."""
    given = [] if isinstance(item, str) else [name for name in (*CONTENT_FIELDS, BODY) if item.get(name) is not None]
    if shared and given in ([], *([name] for name in CONTENT_FIELDS)):
        found.add(location, f"has no `{BODY}`, but the first row has one, with the config of all rows")
        return None
    if isinstance(item, str):
        return ParsedRow(location, Row(number=0, prompt=item, values=dict.fromkeys(PROMPT_NAMES, item)), "")
    if len(given) > 1:
        found.add(f"{location}.{given[1]}", f"cannot be given together with {given[0]}: they are the same field")
        return None
    if item.get("id") is not None and item.get("custom_id") not in (None, item["id"]):
        found.add(f"{location}.custom_id", "cannot be given together with id: they are the same field")
        return None
    if given == [BODY]:
        content = body_prompt(item, location, shared, found)
        if content is None:
            return None
    else:
        content = item[given[0]] if given else None
    return ParsedRow(location, _row(item, content, _priority(item, location, found)), (given or CONTENT_FIELDS)[0])


def _row(item: Mapping[str, Any], content: Any, priority: str | None) -> Row:
    """Build the row.

    In the template `{{input}}` is the item's content, even if its metadata has a field of that
    name.
    """
    metadata = item.get("metadata") or {}
    row_id = next((str(item[name]) for name in ID_FIELDS if item.get(name) is not None), None)
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


def _load_document(text: str) -> Any:
    """Parse a whole document.

    Raises:
        UnreadableInput: it is not JSON, with the line and the place in it.
    """
    try:
        return json_limits.loads(text, json_limits.MAX_ROWS_VALUES)
    except json_limits.JsonRefused as exc:
        raise UnreadableInput(exc.path, str(exc)) from exc
    except json.JSONDecodeError as exc:
        start = text.rfind("\n", 0, exc.pos) + 1
        line = text[start : start + MAX_QUOTED + 1].partition("\n")[0]
        if exc.msg == "Extra data" and text[exc.pos] in '{["':
            message = f"begins a second JSON value, so this looks like JSON lines: {_AS_LINES}: {quoted(line)}"
        else:
            message = f"{_syntax_problem(exc)}: {quoted(line)}"
        raise UnreadableInput(f"line {exc.lineno}", message) from exc
    except ValueError as exc:
        raise UnreadableInput("", "is not JSON") from exc


_AS_LINES = "send it as application/x-ndjson, in a file that ends with .jsonl"


def _syntax_problem(error: ValueError) -> str:
    """Return what is wrong with a text, without the line: it is said beside the message."""
    if not isinstance(error, json.JSONDecodeError):
        return "is not JSON"
    return describe_json_error(error).replace(f"in line {error.lineno}, column", "in column", 1)


def _limit_size(pieces: Iterable[bytes]) -> Iterator[bytes]:
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > MAX_JSON_BYTES:
            raise json_too_large()
        yield piece


def json_too_large() -> TooLarge:
    return TooLarge("A JSON batch may have at most 4 MB. Send larger ones as JSON lines, CSV or text, with an upload up to 50 MB.")
