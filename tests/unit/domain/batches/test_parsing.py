"""Parsing of a batch in any format: the rows, or every problem with its position."""

from __future__ import annotations

import csv
import io
import itertools
import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib.domain.batches.options import MAX_ROWS
from chalicelib.domain.batches.parsing.reader import CONTENT_TYPES, BatchReader, read_batch
from chalicelib.domain.batches.row import Row
from chalicelib.domain.errors import DependencyCycle, InvalidRequest, TooLarge, UnsupportedMediaType
from chalicelib.domain.template import name_key
from tests.kit.paths import EXAMPLES

CSV, TEXT, JSON, LINES = "text/csv", "text/plain", "application/json", "application/x-ndjson"


def rows(content_type: str, data: bytes | str, **options: Any) -> list[Row]:
    return list(read_batch(content_type, [data.encode() if isinstance(data, str) else data], options))


def refused(content_type: str, data: bytes | str, **options: Any) -> dict[str, str]:
    """Return the messages of the problems by their positions."""
    with pytest.raises(InvalidRequest) as caught:
        rows(content_type, data, **options)
    return {detail.path: detail.message for detail in caught.value.details}


def cut(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    """Yield `data` in pieces of these sizes, repeated."""
    start = 0
    for size in itertools.cycle(sizes):
        if start >= len(data):
            return
        yield data[start : start + size]
        start += size


class TestCsv:
    def test_csv_fields_may_contain_quotes_delimiters_and_newlines(self) -> None:
        data = 'id,prompt,priority,contract\r\na,"Say ""hi"",\r\nthen ""bye""",HIGH,0x1\r\n\r\n,,,\r\nb,Next,,0x2\r\n'

        assert rows(CSV, data) == [
            Row(number=0, id="a", prompt='Say "hi",\r\nthen "bye"', priority="high", metadata={"contract": "0x1"}),
            Row(number=1, id="b", prompt="Next", metadata={"contract": "0x2"}),
        ]

    @pytest.mark.parametrize("name", ["prompt", " Prompt ", "PROMPT", "text", "Content", "input", "question"])
    def test_prompt_column_has_several_accepted_names(self, name: str) -> None:
        assert rows(CSV, f"{name},x\nhello,1\n") == [Row(number=0, prompt="hello", metadata={"x": "1"})]

    def test_column_named_prompt_wins_over_its_synonyms(self) -> None:
        assert rows(CSV, "text,prompt\nhello,do\n") == [Row(number=0, prompt="do", metadata={"text": "hello"})]

    @pytest.mark.parametrize("name", ["id", "ID", "Id", "custom_id"])
    def test_id_column_has_several_accepted_names(self, name: str) -> None:
        assert rows(CSV, f"{name},prompt\n 7 ,hello\n")[0].id == "7"

    @pytest.mark.parametrize("delimiter", [",", ";", "\t"])
    def test_delimiter_is_detected_from_the_header(self, delimiter: str) -> None:
        text = delimiter.join(["id", "prompt"]) + "\n" + delimiter.join(["1", '"a,b;c\td"']) + "\n"

        assert rows(CSV, text) == [Row(number=0, id="1", prompt="a,b;c\td")]

    def test_delimiter_detection_prefers_a_header_with_a_prompt_column(self) -> None:
        assert rows(CSV, "prompt;a,b,c\nx;y\n") == [Row(number=0, prompt="x", metadata={"a,b,c": "y"})]

    @pytest.mark.parametrize("delimiter", [";", "semicolon"])
    def test_explicit_delimiter_overrides_detection(self, delimiter: str) -> None:
        assert rows(CSV, "prompt,a;text\nx;y\n", delimiter=delimiter, prompt_template="{{text}}")[0].prompt == "y"

    def test_tab_separated_content_type_is_accepted(self) -> None:
        assert rows("text/tab-separated-values", "prompt\nhello\n")[0].prompt == "hello"

    def test_byte_order_mark_is_not_part_of_the_first_column_name(self) -> None:
        assert rows(CSV, b"\xef\xbb\xbfprompt\nhello\n")[0].prompt == "hello"

    @pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
    def test_utf16_and_utf32_are_named_in_the_problem(self, encoding: str) -> None:
        [(position, message)] = refused(CSV, "prompt\nhello\n".encode(encoding)).items()

        assert position == "line 1"
        assert "UTF-16" in message or "UTF-32" in message

    def test_invalid_utf8_is_reported_with_line_and_byte(self) -> None:
        [(position, message)] = refused(CSV, b"prompt\nhello\ncaf\xe9,x\n").items()

        assert position == "line 3"
        assert "byte 17 " in message
        assert "0xE9" in message

    def test_truncated_last_character_is_reported_with_line_and_byte(self) -> None:
        [(position, message)] = refused(CSV, "prompt\nhé".encode()[:-1]).items()

        assert (position, "byte 9 " in message) == ("line 2", True)

    @pytest.mark.parametrize(
        ("header", "reason"),
        [
            ("id,prompt,ID", 'two columns "id"'),
            ("What is a vault?", "has no column `prompt`"),
            ("a,b", "has no column `prompt`"),
            ("prompt,depends_on", "as JSON or JSON lines"),
            (",".join(f"c{number}" for number in range(300)), "the maximum is 256"),
        ],
    )
    def test_invalid_csv_header_is_rejected(self, header: str, reason: str) -> None:
        assert reason in refused(CSV, f"\n{header}\nx\n")["line 2"]

    def test_each_invalid_csv_row_is_reported_at_its_first_line(self) -> None:
        data = 'id,prompt,priority\n1,"two\nlines",low\n2,b\n\n3,b,c,d\n1,x,\n4,y,soon\n5, ,\n'

        wrong = refused(CSV, data)

        assert list(wrong) == ["line 4", "line 6", "line 7.id", "line 8.priority", "line 9.prompt"]
        assert wrong["line 4"] == "has 2 fields, but the header has 3: `2,b`"
        assert wrong["line 7.id"] == '"1" is already the id of line 2'

    @pytest.mark.parametrize(
        ("row", "reason"), [('"a', "never closed"), ('"a"b,c', "after a closing quote"), ('"' + "x" * 1_100_000 + '"', "more than 1 MB")]
    )
    def test_broken_quoting_is_reported_with_its_reason(self, row: str, reason: str) -> None:
        assert reason in refused(CSV, f"prompt\nfine\n{row}\n")["line 3"]

    def test_nul_character_is_rejected(self) -> None:
        assert "NUL" in refused(CSV, b"prompt\nhe\x00llo\n")["line 2"]

    def test_csv_field_may_have_a_million_characters(self) -> None:
        assert rows(CSV, 'id,prompt\n1,"' + "\n" * 999_999 + 'x"\n') == [Row(number=0, id="1", prompt="\n" * 999_999 + "x")]

    def test_prompt_over_one_megabyte_is_rejected(self) -> None:
        assert "longer than 1 MB" in refused(CSV, "prompt\n" + "é" * 500_001)["line 2.prompt"]

    def test_metadata_over_16_kilobytes_is_rejected(self) -> None:
        assert "16 KB" in refused(CSV, f"prompt,more\nx,{'y' * 16_000}\n")["line 2.metadata"]

    def test_at_most_a_hundred_problems_are_reported(self) -> None:
        assert len(refused(CSV, "prompt\n" + "a,b\n" * 1000)) == 100


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], list[list[str]], bytes]:
    """A header, rows, and their CSV text from `csv.writer`."""
    text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
    columns = draw(st.lists(st.text("abcxyz ,;\"'é\n", min_size=1, max_size=6), max_size=3, unique_by=name_key))
    header = ["prompt", *(name for name in columns if name_key(name) not in ("", "input", "text"))]
    row = st.tuples(text.filter(lambda prompt: bool(prompt.strip())), *(text for _ in header[1:]))
    table = [list(cells) for cells in draw(st.lists(row, min_size=1, max_size=5))]
    made = io.StringIO()
    writer = csv.writer(
        made,
        delimiter=draw(st.sampled_from(",;\t")),
        quoting=draw(st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])),
        lineterminator=draw(st.sampled_from(["\n", "\r\n", "\r"])),
    )
    writer.writerows([header, *table])
    mark = draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))
    return [name.strip() for name in header], table, mark + made.getvalue().encode()


SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=5)


@given(tables(), SIZES)
@settings(deadline=None)
def test_csv_writer_output_round_trips_for_any_chunk_sizes(table: tuple[list[str], list[list[str]], bytes], sizes: list[int]) -> None:
    header, written, data = table

    read_back = [[row.prompt, *row.metadata.values()] for row in read_batch(CSV, cut(data, sizes), {})]

    assert read_back == written
    assert [list(row.metadata) for row in read_batch(CSV, [data], {})] == [header[1:]] * len(written)


@given(tables(), SIZES, st.data())
@settings(deadline=None)
def test_reported_line_numbers_match_those_of_a_text_editor(
    table: tuple[list[str], list[list[str]], bytes], sizes: list[int], data: st.DataObject
) -> None:
    written = table[1]
    at = data.draw(st.integers(0, len(written)))
    made = io.StringIO()
    csv.writer(made, quoting=csv.QUOTE_ALL).writerows([["prompt", "x"], *([prompt, "x"] for prompt, *_ in written[:at])])
    line = made.getvalue().replace("\r\n", "\n").replace("\r", "\n").count("\n") + 1
    made.write("one field\r\n")

    with pytest.raises(InvalidRequest) as caught:
        list(read_batch(CSV, cut(made.getvalue().encode(), sizes), {}))

    assert [detail.path for detail in caught.value.details] == [f"line {line}"]


@given(
    st.sampled_from([CSV, TEXT, JSON, LINES]),
    st.binary(max_size=60) | st.text('{}[]",:ab1\n\r;prompt items\\u00d8', max_size=60).map(lambda text: text.encode()),
    SIZES,
)
@settings(max_examples=300, deadline=None)  # the first example compiles the schemas
def test_arbitrary_bytes_are_parsed_or_rejected_for_any_chunk_sizes(content_type: str, data: bytes, sizes: list[int]) -> None:
    """The chunk sizes make no difference to the outcome."""

    def outcome(pieces: Any) -> Any:
        try:
            return list(read_batch(content_type, pieces, {}))
        except InvalidRequest as wrong:
            return wrong.details
        except DependencyCycle as wrong:
            return wrong.cycle

    assert outcome([data]) == outcome(cut(data, sizes))


@pytest.mark.parametrize("content_type", [CSV, TEXT, LINES])
def test_parsing_fifty_megabytes_uses_little_memory(content_type: str) -> None:
    row = "x" * 4_990
    piece = {CSV: f'"{row}",a\r\n', TEXT: f"{row}\n", LINES: json.dumps({"content": row}) + "\n"}[content_type].encode()
    head = b"prompt,b\r\n" if content_type == CSV else b""
    pieces = itertools.chain([head], (piece * 10 for _ in range(MAX_ROWS // 10)))
    reading = read_batch(content_type, pieces, {})

    tracemalloc.start()
    size = sum(len(one.prompt or "") for one in reading)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert (reading.count, size) == (MAX_ROWS, MAX_ROWS * 4_990)
    assert peak < 3_000_000


class TestText:
    def test_each_text_line_is_a_prompt(self) -> None:
        assert [row.prompt for row in rows(TEXT, "Say hello\r\n\r\n  \nand goodbye\rthen \u2028 go")] == [
            "Say hello",
            "and goodbye",
            "then \u2028 go",
        ]

    def test_text_template_knows_only_the_input_placeholder(self) -> None:
        assert rows(TEXT, "hello", prompt_template="Say {{input}}!")[0].prompt == "Say hello!"
        assert "{{name}}" in refused(TEXT, "hello", prompt_template="Say {{name}}!")["prompt_template"]


class TestJson:
    def test_json_items_are_strings_or_objects(self) -> None:
        items = ["plain", {"id": 7, "content": "b", "metadata": {"x": 1}, "priority": "high"}, {"prompt": "c"}, {"input": {"a": 1}}]
        expected = [
            Row(number=0, prompt="plain"),
            Row(number=1, id="7", prompt="b", metadata={"x": 1}, priority="high"),
            Row(number=2, prompt="c"),
            Row(number=3, input={"a": 1}),
        ]

        assert rows(JSON, json.dumps({"items": items})) == expected
        assert rows(JSON, json.dumps(items)) == expected
        assert rows(LINES, "\n".join(json.dumps(item) for item in items)) == expected

    def test_metadata_priority_applies_to_items_without_a_priority(self) -> None:
        items = [{"content": "a", "metadata": {"priority": "high"}}, {"content": "b", "priority": "low", "metadata": {"priority": "high"}}]

        assert [row.priority for row in rows(JSON, json.dumps(items))] == ["high", "low"]
        assert "one of urgent" in refused(JSON, '[{"content": "a", "metadata": {"priority": "P1"}}]')["items.0.metadata.priority"]

    def test_options_come_from_the_document_and_from_the_query(self) -> None:
        reading = read_batch(JSON, [b'{"items": ["a"], "type": "general", "config": {"model": "m", "priority": "high"}}'], {"name": "n"})

        assert (reading.options.name, reading.options.priority, reading.options.config) == ("n", "high", {"model": "m"})

    def test_conflicting_values_of_an_option_are_rejected(self) -> None:
        assert list(refused(JSON, '{"items": ["a"], "name": "one"}', name="two")) == ["name"]
        assert list(refused(JSON, '{"items": ["a"], "model": "m", "config": {"model": "n"}}')) == ["model"]

    def test_all_invalid_json_fields_are_reported_with_suggestions(self) -> None:
        wrong = refused(JSON, '{"items": [{"contnt": "a"}, 3, {"id": true}], "batchsize": 3, "delay": -1}')

        assert wrong.keys() == {"items.0.contnt", "items.1", "items.2.id", "batchsize", "delay"}
        assert "did you mean `content`?" in wrong["items.0.contnt"]
        assert "did you mean `batch_size`?" in wrong["batchsize"]

    def test_invalid_items_are_reported_by_item_path(self) -> None:
        items = [{"id": "a", "content": "x"}, {"id": "a", "content": " "}, {"content": "x", "prompt": "y"}, {"id": "z"}, ""]

        assert refused(JSON, json.dumps(items)) == {
            "items.1.id": '"a" is already the id of items.0',
            "items.1.content": "is empty",
            "items.2.prompt": "cannot be given together with content: they are the same field",
            "items.3.content": "is missing: each row needs a prompt or an input",
            "items.4": "is empty",
        }

    @pytest.mark.parametrize("data", ["", "{", '{"items": [NaN]}', "[" * 100_000, '["a"] x', '"text"', '[1e400, "\\ud800"]'])
    def test_malformed_json_batch_is_rejected(self, data: str) -> None:
        assert refused(JSON, data)

    def test_json_syntax_error_is_reported_with_line_and_column(self) -> None:
        assert "column 3" in refused(JSON, '["a",\n  b]')["line 2"]

    def test_json_lines_after_an_invalid_line_are_still_checked(self) -> None:
        assert list(refused(LINES, '"a"\n\n{\n[]\n{"conten": "x"}\n')) == ["line 3", "line 4", "line 5.conten"]

    def test_too_large_json_names_the_streamable_formats(self) -> None:
        with pytest.raises(TooLarge, match="JSON lines, CSV or text"):
            read_batch(JSON, (b" " * 1_000_000 for _ in range(17)), {})


class TestLimits:
    """What a small file becomes is bounded, wherever the limit is passed."""

    @pytest.mark.parametrize(
        ("content_type", "data", "location", "message"),
        [
            (CSV, "prompt\n" + "\n" * 100_001, "", "more than 100,000 empty lines"),
            (CSV, "prompt,id\n" + ",\n" * 100_001, "", "more than 100,000 empty lines"),
            (TEXT, "a\n" + "\r\n" * 100_001, "", "more than 100,000 empty lines"),
            (LINES, '"a"\n' + " \n" * 100_001, "", "more than 100,000 empty lines"),
            (TEXT, "a\n" * 10_001, "line 10001", "10,000 rows"),
            (CSV, "prompt\n" + "x," * 256 + "x\n", "line 2", "257 columns; the maximum is 256"),
            (CSV, "prompt,b,c,d,e\n" + ('"' + "x\n" * 450_000 + '",') * 5 + "\n", "line 2", "record of more than 4,000,000 characters"),
            (LINES, "[" + "1," * 50_000 + "1]", "line 1", "has 50,002 values; at most 50,000 are allowed"),
            (LINES, "[" * 101 + "]" * 101, "line 1", "is nested 101 levels deep"),
            (JSON, '{"items": [' + "1," * 200_000 + "1]}", "", "has 200,003 values; at most 200,000 are allowed"),
        ],
    )
    def test_input_beyond_a_limit_is_refused_with_the_limit(self, content_type: str, data: str, location: str, message: str) -> None:
        assert message in refused(content_type, data)[location]

    def test_values_of_all_rows_together_are_bounded(self) -> None:
        row = json.dumps({"input": [[]] * 24_000})

        assert "maximum of 750,000 values" in refused(LINES, f"{row}\n" * 40)["line 32"]

    def test_line_numbers_are_right_whatever_the_line_ends(self) -> None:
        for end in ("\n", "\r\n", "\r"):
            data = f"prompt{end}a{end}{end}" + f'"x{end}y"{end}' + f"b,c{end}"

            assert list(refused(CSV, data)) == ["line 6"]


class TestTemplates:
    def test_template_placeholders_are_filled_from_csv_columns(self) -> None:
        data = "text,language\nhello,German\n{{language}},French\n"

        assert [row.prompt for row in rows(CSV, data, prompt_template="Translate {{input}} to {{language}}: {{text}}")] == [
            "Translate hello to German: hello",
            "Translate {{language}} to French: {{language}}",
        ]

    def test_prompt_column_is_optional_with_a_template_without_input(self) -> None:
        assert rows(CSV, "a,b\n1,2\n", prompt_template="{{a}}+{{b}}") == [Row(number=0, prompt="1+2", metadata={"a": "1", "b": "2"})]

    def test_unknown_template_placeholder_is_reported_once(self) -> None:
        wrong = refused(CSV, "prompt,a\n1,2\n3,4\n", prompt_template="{{a}} {{b}}")

        assert list(wrong) == ["prompt_template"]
        assert "{{a}}" in wrong["prompt_template"]

    def test_template_placeholders_are_filled_from_metadata(self) -> None:
        items = [{"content": "hello", "metadata": {"to": {"name": "Ann"}, "input": "not this"}}]

        assert rows(JSON, json.dumps({"items": items, "prompt_template": "{{input}} {{to.name}}"}))[0].prompt == "hello Ann"
        assert "{{from}}" in refused(JSON, json.dumps({"items": items, "prompt_template": "{{from}}"}))["items.0"]

    def test_prompt_is_not_expanded_without_a_template(self) -> None:
        assert rows(TEXT, "{{input}}")[0].prompt == "{{input}}"

    def test_template_without_placeholders_is_rejected(self) -> None:
        assert "the same" in refused(TEXT, "a\nb", prompt_template="Analyze: {input}")["prompt_template"]


class TestDependencies:
    def test_dependent_row_keeps_parent_placeholders_and_template_values(self) -> None:
        items = [
            {
                "id": "b",
                "content": "Sum up {{parents.a.output}}",
                "depends_on": ["a"],
                "metadata": {"to": "Ann"},
                "on_parent_failure": "run_anyway",
            },
            {"id": "a", "content": "Read"},
        ]

        first, second = rows(JSON, json.dumps({"items": items, "prompt_template": "{{input}} for {{id}}"}))

        assert first.prompt == "Sum up {{parents.a.output}} for {{id}}"
        assert first.values == {"id": "b", "to": "Ann"}
        assert (first.depends_on, first.on_parent_failure) == (("a",), "run_anyway")
        assert second == Row(number=1, id="a", prompt="Read for a")

    def test_structured_input_of_a_dependent_row_is_a_template_value(self) -> None:
        items = [{"id": "a", "content": "x"}, {"input": {"n": 1}, "depends_on": ["a"]}]

        row = rows(JSON, json.dumps({"items": items, "prompt_template": "{{input}}."}))[1]

        assert (row.prompt, row.values["input"]) == ("{{input}}.", {"n": 1})

    def test_dependent_row_without_a_template_value_is_rejected(self) -> None:
        items = [{"id": "a", "content": "x"}, {"metadata": {"b": 1}, "depends_on": ["a"]}]

        assert list(refused(JSON, json.dumps({"items": items, "prompt_template": "{{input}}"}))) == ["items.1"]

    def test_row_may_depend_on_an_existing_job(self) -> None:
        job = f"job_{'0' * 26}"
        item = {"input": {"text": f"{{{{parents.{job}.output}}}}"}, "depends_on": [job]}

        assert rows(JSON, json.dumps([item]))[0].input == item["input"]

    @pytest.mark.parametrize(
        ("item", "position"),
        [
            ({"content": "x", "depends_on": ["missing"]}, "items.1.depends_on"),
            ({"content": "{{parents.a.outptu}}", "depends_on": ["a"]}, "items.1"),
            ({"content": "{{parents.c.output}}", "depends_on": ["a"]}, "items.1"),
            ({"content": "{{other}}", "depends_on": ["a"]}, "items.1"),
            ({"depends_on": ["a"]}, "items.1.content"),
        ],
    )
    def test_unresolvable_dependency_references_are_rejected(self, item: dict[str, Any], position: str) -> None:
        assert list(refused(JSON, json.dumps([{"id": "a", "content": "x"}, item]))) == [position]

    def test_dependency_cycle_is_reported_with_its_path(self) -> None:
        items = [{"id": one, "content": "x", "depends_on": [other]} for one, other in ("ab", "bc", "ca")]

        with pytest.raises(DependencyCycle, match="a -> b -> c -> a"):
            rows(JSON, json.dumps(items))


@pytest.mark.parametrize(("content_type", "data"), [(TEXT, "\n \n"), (JSON, "[]"), (LINES, ""), (CSV, "")])
def test_batch_without_rows_is_rejected(content_type: str, data: str) -> None:
    assert "at least one row" in refused(content_type, data)["items"]


def test_batch_over_ten_thousand_rows_is_rejected() -> None:
    assert len(rows(TEXT, "x\n" * MAX_ROWS)) == MAX_ROWS
    assert refused(TEXT, "x\n" * (MAX_ROWS + 1)) == {"line 10001": "exceeds the maximum of 10,000 rows"}


def test_example_files_are_valid_batches() -> None:
    prompts = rows(CSV, (EXAMPLES / "prompts.csv").read_bytes(), prompt_template="In {{language}}: {{input}}")
    workflow = rows(JSON, (EXAMPLES / "workflow.json").read_bytes())

    assert [(row.id, row.priority) for row in prompts] == [("greeting", "high"), ("haiku", None), ("headrace", "low")]
    assert prompts[1].prompt == "In English: Write a haiku about a river.\nThree lines, please."
    assert [row.depends_on for row in workflow] == [(), ("changes",), ("notes",), ("notes",)]


def test_rows_are_yielded_before_the_input_is_complete() -> None:
    def arriving() -> Iterator[bytes]:
        yield b"first\nsec"
        raise AssertionError("more input was read than the first row needs")

    reading: BatchReader = read_batch(TEXT, arriving(), {})

    assert next(iter(reading)).prompt == "first"


def test_no_rows_are_yielded_after_the_first_problem() -> None:
    reading, seen = read_batch(CSV, [b"prompt\na\nb,c\nd\n"], {}), []

    with pytest.raises(InvalidRequest):
        seen.extend(iter_prompts(reading))
    assert reading.count == 1


def iter_prompts(reading: BatchReader) -> Iterator[str | None]:
    return (row.prompt for row in reading)


def test_unsupported_content_type_names_the_supported_formats() -> None:
    with pytest.raises(UnsupportedMediaType, match="text/csv"):
        rows("application/pdf", b"")
    assert "Content-Type" in refused("text/csv; charset=ISO-8859-1", b"")
    assert rows("Text/CSV; charset=UTF-8", "prompt\nx\n")
    assert CONTENT_TYPES["application/jsonl"] == LINES


def test_total_size_of_expanded_prompts_is_bounded() -> None:
    """A long template around tiny rows must not exceed the limit that an upload has."""
    template = "Of this, " * 11_000 + "{{input}}"

    wrong = refused(TEXT, "x\n" * 10_000, prompt_template=template)

    assert list(wrong) == ["line 647"]
    assert "64 MB" in wrong["line 647"]
