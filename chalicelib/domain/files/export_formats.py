"""Rows rendered to be taken elsewhere: as CSV, JSON or JSON lines, piece by piece, so that no more than one of them is held.

CSV is mostly opened in spreadsheets, which run what begins like a formula. So a text that does gets an apostrophe before it, which they
show as text; numbers stay as they are. Where that matters, JSON has every value as it is.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

Format = Literal["csv", "json", "jsonl"]
FORMATS: dict[str, str] = {"csv": "text/csv; charset=utf-8", "json": "application/json", "jsonl": "application/x-ndjson"}
FORMULA_PREFIXES = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # the wide ones too, which some read as the others
METADATA = "metadata"
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?", re.ASCII)

Line = Mapping[str, Any]


def rendered(rows: Iterable[Line], kind: Format, *, columns: Sequence[str] | None = None, head: Line | None = None) -> Iterator[str]:
    """The rows as text. `columns` are those of CSV (`metadata.file` for a part of the metadata); None: all that any row has, which
    takes all rows at once.

    `head` stands around the rows in JSON, which are its `items`; the other formats have rows only.
    """
    if kind == "json":
        return _json(rows, head or {})
    return _lines(rows) if kind == "jsonl" else _csv(rows, columns)


def columns_of(rows: Iterable[Line]) -> list[str]:
    """The fields of these rows in the order in which they were first seen, with one for each field of the metadata."""
    found: dict[str, None] = {}
    for row in rows:
        for name, value in row.items():
            inner = value if name == METADATA and isinstance(value, Mapping) else None
            found.update(dict.fromkeys([name] if inner is None else [f"{METADATA}.{part}" for part in inner]))
    return list(found)


def cell(value: Any) -> str | int | float:
    """A value as CSV has it: nothing is empty, lists and objects are JSON, and no text is a formula."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return value
    return escape_formula(value if isinstance(value, str) else _compact(value))


def escape_formula(text: str) -> str:
    """`text`, with an apostrophe before it where a spreadsheet would run it. Texts that are numbers, as `-0.5`, are none."""
    return f"'{text}" if text.startswith(FORMULA_PREFIXES) and not _NUMBER.fullmatch(text) else text


def _csv(rows: Iterable[Line], columns: Sequence[str] | None) -> Iterator[str]:
    if columns is None:
        rows = list(rows)
        columns = columns_of(rows)
    yield _record(escape_formula(name) for name in columns)
    for row in rows:
        yield _record(cell(_value(row, name)) for name in columns)


def _record(cells: Iterable[str | int | float]) -> str:
    """One record, with the line end that RFC 4180 has. A lone empty cell is quoted, or its line would be blank."""
    made = io.StringIO()
    csv.writer(made).writerow(cells)
    return made.getvalue()


def _value(row: Line, column: str) -> Any:
    if column in row:
        return row[column]
    outer, _, inner = column.partition(".")
    part = row.get(outer)
    return part.get(inner) if isinstance(part, Mapping) else None


def _json(rows: Iterable[Line], head: Line) -> Iterator[str]:
    opening = _compact(dict(head))[:-1]
    yield f'{opening}{"," if head else ""}"items":['
    for number, row in enumerate(rows):
        yield f"{',' if number else ''}\n{_compact(row)}"
    yield "\n]}\n"


def _lines(rows: Iterable[Line]) -> Iterator[str]:
    for row in rows:
        yield f"{_compact(row)}\n"


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
