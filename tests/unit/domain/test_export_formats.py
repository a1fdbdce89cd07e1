"""Export formats: CSV that a spreadsheet may open, JSON, and JSON lines."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.files.export_formats import FORMATS, CsvStyle, cell, columns_of, escape_formula, render_rows, row_writer

ROWS: list[dict[str, Any]] = [
    {"number": 0, "id": "a", "output": 'Say "hi",\nthen bye', "parsed": {"score": 1}, "cost": "0.001200", "metadata": {"file": "a.sol"}},
    {"number": 1, "id": None, "output": "=HYPERLINK(1)", "parsed": None, "cost": None, "metadata": {"file": "b.sol", "owner": "Ann"}},
]

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
cell_values = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False) | texts
lines = st.lists(st.dictionaries(texts, cell_values, max_size=4), max_size=5)


def read_back(pieces: Iterator[str]) -> list[list[str]]:
    return list(csv.reader(io.StringIO("".join(pieces), newline="")))


def test_csv_has_a_column_for_each_field_and_each_metadata_field() -> None:
    assert read_back(render_rows(ROWS, "csv")) == [
        ["number", "id", "output", "parsed", "cost", "metadata.file", "metadata.owner"],
        ["0", "a", 'Say "hi",\nthen bye', '{"score":1}', "0.001200", "a.sol", ""],
        ["1", "", "'=HYPERLINK(1)", "", "", "b.sol", "Ann"],
    ]


def test_csv_with_requested_columns_streams_without_buffering_rows() -> None:
    def endless() -> Iterator[dict[str, Any]]:
        while True:
            yield ROWS[0]

    pieces = render_rows(endless(), "csv", columns=["id", "metadata.file", "metadata.owner", "missing"])

    assert [next(pieces), next(pieces)] == ["id,metadata.file,metadata.owner,missing\r\n", "a,a.sol,,\r\n"]


def test_json_with_an_envelope_has_the_rows_as_items() -> None:
    assert json.loads("".join(render_rows(ROWS, "json", envelope={"batch_id": "b"}))) == {"batch_id": "b", "items": ROWS}
    assert json.loads("".join(render_rows([], "json", envelope={}))) == {"items": []}


def test_json_without_an_envelope_is_an_array() -> None:
    assert json.loads("".join(render_rows(ROWS, "json"))) == ROWS
    assert json.loads("".join(render_rows([], "json"))) == []


def test_jsonl_export_has_one_row_per_line() -> None:
    assert [json.loads(line) for line in render_rows(ROWS, "jsonl")] == ROWS


@pytest.mark.parametrize("text", ["=1+1", "+49 170", "-x", "@sum", "\tx", "\r=1", "-", "-inf", "+1_0", "＝1"])
def test_formula_cells_are_escaped_with_an_apostrophe(text: str) -> None:
    assert cell(text) == f"'{text}"


@pytest.mark.parametrize("value", ["-0.5", "+3", "-1e5", "0.001200", "plain", "a=b", "'x", ""])
def test_harmless_text_cells_are_unchanged(value: str) -> None:
    assert cell(value) == value


@pytest.mark.parametrize(("value", "shown"), [(-3, -3), (0.5, 0.5), (True, "true"), (None, ""), ([1, "é"], '[1,"é"]')])
def test_numbers_are_unchanged_and_other_values_become_json(value: Any, shown: Any) -> None:
    assert cell(value) == shown


@given(lines)
def test_csv_round_trips_all_rows(rows: list[dict[str, Any]]) -> None:
    columns = columns_of(rows)
    if not columns:
        return

    header, *records = read_back(render_rows(rows, "csv"))

    assert header == [str(cell(name)) for name in columns]
    assert records == [[str(cell(row.get(name))) for name in columns] for row in rows]


@given(lines)
def test_json_and_jsonl_round_trip_all_rows(rows: list[dict[str, Any]]) -> None:
    assert json.loads("".join(render_rows(rows, "json", envelope={"n": 1})))["items"] == rows
    assert [json.loads(line) for line in render_rows(rows, "jsonl")] == rows


def test_export_formats_are_csv_json_and_jsonl() -> None:
    assert FORMATS.keys() == {"csv", "json", "jsonl"}


def test_a_writer_renders_the_rows_one_by_one() -> None:
    """The job type `export` writes its parts as they come; the whole is what `render_rows` yields."""
    writer = row_writer("csv", ["id", "output"])

    assert writer.begin() + "".join(map(writer.row, ROWS)) + writer.end() == "".join(render_rows(ROWS, "csv", columns=["id", "output"]))
    [line] = list(csv.reader(io.StringIO(writer.row({"id": "a", "output": "=1+1"}), newline="")))
    assert line == ["a", escape_formula("=1+1")]


@given(lines, st.sampled_from([",", ";", "\t", "|"]), st.booleans())
def test_csv_in_any_style_is_the_same_table(rows: list[dict[str, Any]], delimiter: str, bom: bool) -> None:
    text = "".join(render_rows(rows, "csv", style=CsvStyle(delimiter, bom)))

    assert text.startswith("\ufeff") or not bom
    again = list(csv.reader(io.StringIO(text[1:] if bom else text, newline=""), delimiter=delimiter))
    assert again == read_back(render_rows(rows, "csv"))


@pytest.mark.parametrize("file_format", ["json", "jsonl"])
def test_style_of_csv_changes_no_other_format(file_format: Any) -> None:
    assert "".join(render_rows(ROWS, file_format, style=CsvStyle(";", bom=True))) == "".join(render_rows(ROWS, file_format))
