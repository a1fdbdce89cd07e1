"""Rows taken elsewhere: as CSV that a spreadsheet may open, as JSON, as JSON lines."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.files.export_formats import FORMATS, cell, columns_of, escape_formula, rendered
from chalicelib.job_types._shared.table_writer import table

ROWS: list[dict[str, Any]] = [
    {"number": 0, "id": "a", "output": 'Say "hi",\nthen bye', "parsed": {"score": 1}, "cost": "0.001200", "metadata": {"file": "a.sol"}},
    {"number": 1, "id": None, "output": "=HYPERLINK(1)", "parsed": None, "cost": None, "metadata": {"file": "b.sol", "owner": "Ann"}},
]

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
values = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False) | texts
lines = st.lists(st.dictionaries(texts, values, max_size=4), max_size=5)


def read_back(pieces: Iterator[str]) -> list[list[str]]:
    return list(csv.reader(io.StringIO("".join(pieces), newline="")))


def test_csv_has_a_column_for_each_field_and_each_field_of_the_metadata() -> None:
    assert read_back(rendered(ROWS, "csv")) == [
        ["number", "id", "output", "parsed", "cost", "metadata.file", "metadata.owner"],
        ["0", "a", 'Say "hi",\nthen bye', '{"score":1}', "0.001200", "a.sol", ""],
        ["1", "", "'=HYPERLINK(1)", "", "", "b.sol", "Ann"],
    ]


def test_or_the_columns_that_were_asked_for_and_then_no_row_is_held() -> None:
    def endless() -> Iterator[dict[str, Any]]:
        while True:
            yield ROWS[0]

    pieces = rendered(endless(), "csv", columns=["id", "metadata.file", "metadata.owner", "missing"])

    assert [next(pieces), next(pieces)] == ["id,metadata.file,metadata.owner,missing\r\n", "a,a.sol,,\r\n"]


def test_json_is_whole_with_what_stands_around_the_rows() -> None:
    assert json.loads("".join(rendered(ROWS, "json", head={"batch_id": "b"}))) == {"batch_id": "b", "items": ROWS}
    assert json.loads("".join(rendered([], "json"))) == {"items": []}


def test_json_lines_are_a_row_each() -> None:
    assert [json.loads(line) for line in rendered(ROWS, "jsonl")] == ROWS


@pytest.mark.parametrize("text", ["=1+1", "+49 170", "-x", "@sum", "\tx", "\r=1", "-", "-inf", "+1_0", "＝1"])
def test_what_a_spreadsheet_would_run_gets_an_apostrophe(text: str) -> None:
    assert cell(text) == f"'{text}"


@pytest.mark.parametrize("value", ["-0.5", "+3", "-1e5", "0.001200", "plain", "a=b", "'x", ""])
def test_other_texts_stay_as_they_are(value: str) -> None:
    assert cell(value) == value


@pytest.mark.parametrize(("value", "shown"), [(-3, -3), (0.5, 0.5), (True, "true"), (None, ""), ([1, "é"], '[1,"é"]')])
def test_numbers_stay_numbers_and_what_csv_has_not_is_json(value: Any, shown: Any) -> None:
    assert cell(value) == shown


@given(lines)
def test_csv_is_read_back_with_the_same_rows(rows: list[dict[str, Any]]) -> None:
    columns = columns_of(rows)
    if not columns:
        return

    header, *records = read_back(rendered(rows, "csv"))

    assert header == [str(cell(name)) for name in columns]
    assert records == [[str(cell(row.get(name))) for name in columns] for row in rows]


@given(lines)
def test_json_is_read_back_as_it_was(rows: list[dict[str, Any]]) -> None:
    assert json.loads("".join(rendered(rows, "json", head={"n": 1})))["items"] == rows
    assert [json.loads(line) for line in rendered(rows, "jsonl")] == rows


def test_every_format_has_its_content_type() -> None:
    assert FORMATS.keys() == {"csv", "json", "jsonl"}


@pytest.mark.parametrize("text", ["=1+1", "\n=1+1", "＝1+1", "-0.5", "plain", "+cmd|' /C calc'!A0"])
def test_the_export_of_jobs_guards_as_that_of_batches_does(text: str) -> None:
    """What opens in the same spreadsheet must be as safe there, whoever wrote it."""
    [line] = list(csv.reader(io.StringIO(table("csv", ["output"]).row({"output": text}), newline="")))

    assert line == [escape_formula(text)]
