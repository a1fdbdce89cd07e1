"""Render rows as CSV, JSON or JSON lines in pieces, so that no export is in memory whole.

Exports of jobs (the job type `export`) and of batches (`GET /batches/{id}/export`) use this one
writer.

CSV is mostly opened in spreadsheets, which run text that begins like a formula. Such text gets an
apostrophe in front, which spreadsheets read as "this is text". Numbers stay as they are. JSON and
JSON lines carry every value unchanged.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Format = Literal["csv", "json", "jsonl"]
FORMATS: dict[str, str] = {  # the content type of each
    "csv": "text/csv; charset=utf-8",
    "json": "application/json",
    "jsonl": "application/x-ndjson",
}
# Some spreadsheets read the wide forms as formulas too.
FORMULA_PREFIXES = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
METADATA = "metadata"
BYTE_ORDER_MARK = "\ufeff"  # at the beginning of a file; without it Excel takes UTF-8 for the code page of the machine
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?", re.ASCII)

Row = Mapping[str, Any]


class RowWriter(Protocol):
    """Renders one export as text: `begin()` once, `row()` for each row, `end()` once.

    Example:
        writer = row_writer("csv", ["id", "output"])
        text = writer.begin() + "".join(writer.row(row) for row in rows) + writer.end()
    """

    def begin(self) -> str: ...

    def row(self, row: Row) -> str: ...

    def end(self) -> str: ...


@dataclass(frozen=True, slots=True)
class CsvStyle:
    """How CSV is written."""

    delimiter: str = ","
    bom: bool = False  # begin with a byte order mark


PLAIN = CsvStyle()


def row_writer(file_format: Format, columns: Sequence[str], *, envelope: Row | None = None, style: CsvStyle = PLAIN) -> RowWriter:
    """Return the writer of a format.

    Args:
        file_format: One of `FORMATS`.
        columns: The columns of CSV; `metadata.file` selects one field of the metadata. The other
            formats ignore them.
        envelope: Fields around the rows in JSON, where the rows then are `items`. None: JSON is a
            plain array of rows. The other formats have rows only.
        style: of CSV; the other formats ignore it.
    """
    if file_format == "csv":
        return _CsvWriter(columns, style)
    return _JsonWriter(envelope) if file_format == "json" else _JsonLinesWriter()


def render_rows(
    rows: Iterable[Row],
    file_format: Format,
    *,
    columns: Sequence[str] | None = None,
    envelope: Row | None = None,
    style: CsvStyle = PLAIN,
) -> Iterator[str]:
    """Yield the text of a whole export. The arguments are those of `row_writer`.

    Without `columns`, CSV has every column that occurs in any row, which needs all rows in memory
    at once.
    """
    if file_format == "csv" and columns is None:
        rows = list(rows)
        columns = columns_of(rows)
    writer = row_writer(file_format, columns or (), envelope=envelope, style=style)
    if header := writer.begin():
        yield header
    yield from map(writer.row, rows)
    if footer := writer.end():
        yield footer


def columns_of(rows: Iterable[Row]) -> list[str]:
    """Return the fields of these rows in order of appearance, one for each metadata field."""
    columns: dict[str, None] = {}
    for row in rows:
        for name, value in row.items():
            fields = value if name == METADATA and isinstance(value, Mapping) else None
            columns.update(dict.fromkeys([name] if fields is None else [f"{METADATA}.{field}" for field in fields]))
    return list(columns)


def cell(value: Any) -> str | int | float:
    """Return a value as a CSV cell: None is empty, lists and objects are JSON, no formulas."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return value
    return escape_formula(value if isinstance(value, str) else _compact_json(value))


def escape_formula(text: str) -> str:
    """Prefix `text` with an apostrophe if a spreadsheet would run it.

    Text that is a number, such as `-0.5`, stays.
    """
    return f"'{text}" if text.startswith(FORMULA_PREFIXES) and not _NUMBER.fullmatch(text) else text


class _CsvWriter:
    """A header, then one record a row, with the line ends of RFC 4180."""

    def __init__(self, columns: Sequence[str], style: CsvStyle) -> None:
        self._columns, self._style = columns, style

    def begin(self) -> str:
        header = self._record(escape_formula(name) for name in self._columns)
        return BYTE_ORDER_MARK + header if self._style.bom else header

    def row(self, row: Row) -> str:
        return self._record(cell(_value(row, name)) for name in self._columns)

    def end(self) -> str:
        return ""

    def _record(self, cells: Iterable[str | int | float]) -> str:
        """Return one record.

        `csv.writer` quotes a lone empty cell, which would otherwise be a blank line.
        """
        text = io.StringIO()
        csv.writer(text, delimiter=self._style.delimiter).writerow(cells)
        return text.getvalue()


class _JsonWriter:
    """An array with one row a line, on its own or as the `items` of the envelope."""

    def __init__(self, envelope: Row | None) -> None:
        self._envelope = envelope
        self._separator = "\n"

    def begin(self) -> str:
        if self._envelope is None:
            return "["
        fields = _compact_json(dict(self._envelope))[:-1]
        return f'{fields}{"," if self._envelope else ""}"items":['

    def row(self, row: Row) -> str:
        separator, self._separator = self._separator, ",\n"
        return separator + _compact_json(row)

    def end(self) -> str:
        return "\n]\n" if self._envelope is None else "\n]}\n"


class _JsonLinesWriter:
    """One JSON object a line."""

    def begin(self) -> str:
        return ""

    def row(self, row: Row) -> str:
        return f"{_compact_json(row)}\n"

    def end(self) -> str:
        return ""


def _value(row: Row, column: str) -> Any:
    """Return the field of a row, or `part` of an object in it for a column `field.part`."""
    if column in row:
        return row[column]
    field, _, part = column.partition(".")
    value = row.get(field)
    return value.get(part) if isinstance(value, Mapping) else None


def _compact_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
