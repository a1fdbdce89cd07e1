"""Rows of jobs as CSV, JSON or a JSON object a line, made piece by piece."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any, Protocol

from chalicelib.domain.files.export_formats import escape_formula

FORMATS = {"csv": "text/csv; charset=utf-8", "json": "application/json", "jsonl": "application/x-ndjson"}

Row = dict[str, Any]


class Table(Protocol):
    """What a format makes of the rows: the beginning, each row, the end."""

    def begin(self) -> str: ...

    def row(self, row: Row) -> str: ...

    def end(self) -> str: ...


def table(form: str, columns: Sequence[str]) -> Table:
    if form == "csv":
        return _Csv(columns)
    return _Json() if form == "json" else _Lines()


class _Csv:
    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = columns

    def begin(self) -> str:
        return self._line(self._columns)

    def row(self, row: Row) -> str:
        return self._line([_cell(row.get(column)) for column in self._columns])

    def end(self) -> str:
        return ""

    def _line(self, cells: Sequence[str]) -> str:
        text = io.StringIO()
        csv.writer(text).writerow(cells)
        return text.getvalue()


class _Json:
    def __init__(self) -> None:
        self._between = "\n"

    def begin(self) -> str:
        return "["

    def row(self, row: Row) -> str:
        between, self._between = self._between, ",\n"
        return between + json.dumps(row, ensure_ascii=False)

    def end(self) -> str:
        return "\n]\n"


class _Lines:
    def begin(self) -> str:
        return ""

    def row(self, row: Row) -> str:
        return json.dumps(row, ensure_ascii=False) + "\n"

    def end(self) -> str:
        return ""


def _cell(value: Any) -> str:
    """A value as a cell. Text that a spreadsheet would calculate gets an apostrophe: it may come from anybody, and opens elsewhere."""
    if value is None:
        return ""
    return escape_formula(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
