"""Tables as programs write them: spreadsheets, pandas, R, editors, and OpenAI's own batch files."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib.domain.batches.parsing.csv_records import AroundQuotes
from chalicelib.domain.batches.parsing.forms import form_parts
from chalicelib.domain.batches.parsing.line_splitter import MAX_LINES
from chalicelib.domain.batches.parsing.problems import UnreadableInput
from chalicelib.domain.batches.parsing.reader import CONTENT_TYPES, CSV, JSON, LINES, TEXT, read_batch
from chalicelib.domain.batches.row import Row
from chalicelib.domain.errors import InvalidRequest
from chalicelib.services.batches.submit_batch import base_submission
from tests.kit.paths import ROOT

TABLES = ROOT / "tests" / "kit" / "tables"


def read(content_type: str, data: bytes | str, **options: Any) -> list[Row]:
    return list(read_batch(content_type, [data.encode() if isinstance(data, str) else data], options))


def prompts(content_type: str, data: bytes | str, **options: Any) -> list[str | None]:
    return [row.prompt for row in read(content_type, data, **options)]


def refused(content_type: str, data: bytes | str, **options: Any) -> dict[str, str]:
    with pytest.raises(InvalidRequest) as caught:
        read(content_type, data, **options)
    return {detail.path: detail.message for detail in caught.value.details}


def test_table_that_is_a_header_only_quotes_it_and_says_how_line_ends_are_kept() -> None:
    """`curl -d @file` makes one line of a file, which is a header with a prompt column and many others."""
    [(place, message)] = refused(CSV, "id,prompt,language1,Say hello,de2,Say bye,fr").items()

    assert place == "line 1"
    assert "`id,prompt,language1,Say hello,de2,Say bye,fr`" in message
    assert "--data-binary" in message


def test_header_without_rows_among_other_tables_is_no_problem() -> None:
    part = '--x\r\nContent-Disposition: form-data; name="file"; filename="{}"\r\n\r\n{}\r\n'
    form = part.format("jan.csv", "prompt\n") + part.format("feb.csv", "prompt\nhello\n") + "--x--\r\n"

    assert prompts("multipart/form-data; boundary=x", form) == ["hello"]

    empty = part.format("jan.csv", "id,prompt\n") + "--x--\r\n"
    assert list(refused("multipart/form-data; boundary=x", empty)) == ["jan.csv: line 1"]


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({"prompt": "x", "Sprache": "de"}, "goes into its `metadata`"),
        ({"messages": [{"role": "user", "content": "x"}]}, "OpenAI's batch files have it in `body`"),
        ({"custom_id": "a", "params": {"messages": []}}, "a line for Anthropic"),
        ({"custom_id": "a", "response": {"body": {}}}, "the output of OpenAI's batches"),
        ({"prompt": "x", "priorty": "high"}, "did you mean `priority`?"),
    ],
)
def test_field_that_no_row_has_is_told_where_it_belongs(item: dict[str, Any], words: str) -> None:
    for content_type, data in ((LINES, json.dumps(item)), (JSON, json.dumps([item]))):
        assert words in "".join(refused(content_type, data).values())


@pytest.mark.parametrize(
    "document",
    [
        {"prompt": {"0": "a"}, "id": {"0": 1}},
        {"columns": ["prompt"], "index": [0], "data": [["a"]]},
        {"0": {"prompt": "a"}},
        {"schema": {}, "data": [{"prompt": "a"}]},
    ],
    ids=["columns", "split", "index", "table"],
)
def test_json_of_pandas_in_another_shape_is_told_which_one_is_read(document: dict[str, Any]) -> None:
    assert 'orient="records"' in refused(JSON, json.dumps(document))["items"]


MORNING = ["Say good morning", "Say good night"]


class TestDelimiterLine:
    @pytest.mark.parametrize("line", ["sep=;", "SEP=;", '"sep=;"', "sep=;;", "\ufeffsep=;", "\n\nsep=;"])
    def test_line_that_names_the_delimiter_is_no_header(self, line: str) -> None:
        [row] = read(CSV, f"{line}\r\nprompt;a,b\r\nSay hi, you;x\r\n")

        assert (row.prompt, row.metadata) == ("Say hi, you", {"a,b": "x"})

    @pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", "^", ":", "~", " "])
    def test_delimiter_is_the_one_that_the_line_names(self, delimiter: str) -> None:
        assert read(CSV, f"sep={delimiter}\nprompt{delimiter}b\nx{delimiter}y\n") == [Row(number=0, prompt="x", metadata={"b": "y"})]

    def test_line_without_a_delimiter_is_left_out(self) -> None:
        assert prompts(CSV, "sep=\nprompt;b\nx;y\n") == ["x"]

    def test_given_delimiter_counts_more_than_the_line_and_the_line_more_than_the_content_type(self) -> None:
        assert prompts(CSV, "sep=;\nprompt|b\nx;z|y\n", delimiter="|") == ["x;z"]
        assert prompts("text/tab-separated-values", "sep=;\nprompt;b\nx;y\n") == ["x"]

    def test_places_count_the_line_that_names_the_delimiter(self) -> None:
        assert list(refused(CSV, "sep=;\nprompt;b\nx;y\nx;y;z\n")) == ["line 4"]

    def test_row_that_looks_like_the_line_is_a_row(self) -> None:
        assert prompts(CSV, "prompt\nsep=;\n") == ["sep=;"]


class TestPrograms:
    """Bytes as these programs write them."""

    @pytest.mark.parametrize(
        "data",
        [
            b'\xef\xbb\xbfid;prompt;Sprache\r\n1;"Sag ""Hallo"", bitte";de\r\n2;"Zeile 1\nZeile 2";fr\r\n',  # Excel, CSV UTF-8, German
            b'id,prompt,Sprache\n1,"Sag ""Hallo"", bitte",de\n2,"Zeile 1\nZeile 2",fr\n',  # LibreOffice
            b'id;prompt;Sprache\n1;"Sag ""Hallo"", bitte";de\n2;"Zeile 1\nZeile 2";fr\n',  # Numbers, German
            b',id,prompt,Sprache\n0,1,"Sag ""Hallo"", bitte",de\n1,2,"Zeile 1\nZeile 2",fr\n',  # pandas, with its index
            b'"","id","prompt","Sprache"\n"1",1,"Sag ""Hallo"", bitte","de"\n"2",2,"Zeile 1\nZeile 2","fr"\n',  # write.csv of R
            b'id,prompt,Sprache,,,\r\n1,"Sag ""Hallo"", bitte",de,,,\r\n2,"Zeile 1\nZeile 2",fr\r\n,,,,,\r\n',  # columns once used
            b'id\tprompt\tSprache\r\n1\t"Sag ""Hallo"", bitte"\tde\r\n2\t"Zeile 1\nZeile 2"\tfr\r\n\x1a',  # with the end mark of DOS
        ],
    )
    def test_table_is_read_as_it_was_in_the_program(self, data: bytes) -> None:
        assert read(CSV, data) == [
            Row(number=0, id="1", prompt='Sag "Hallo", bitte', metadata={"Sprache": "de"}),
            Row(number=1, id="2", prompt="Zeile 1\nZeile 2", metadata={"Sprache": "fr"}),
        ]

    def test_text_in_a_column_without_a_name_is_refused_because_it_may_be_the_rest_of_a_prompt(self) -> None:
        [(place, message)] = refused(CSV, "id,prompt,\n1,Hello, world\n").items()

        assert place == "line 2"
        assert message.startswith('has " world" in column 3, which has no name in the header')
        assert "`1,Hello, world`" in message

    def test_more_fields_than_the_header_are_read_only_if_they_are_empty(self) -> None:
        assert prompts(CSV, "id,prompt\n1,Hello,,\n") == ["Hello"]
        assert "in quotes" in refused(CSV, "id,prompt\n1,Hello, world\n")["line 2"]

    def test_a_thousand_empty_columns_are_left_out(self) -> None:
        assert prompts(CSV, f"prompt{',' * 1_000}\nHello{',' * 1_000}\n") == ["Hello"]

    def test_fewer_fields_than_named_columns_are_refused(self) -> None:
        assert "has 1 field, but the header has 2: `Hello`" in refused(CSV, "prompt,language\nHello\n")["line 2"]


class TestNames:
    @pytest.mark.parametrize(
        "name", ["\u200bprompt", "\ufeff\ufeffPrompt", "prompt\u00a0", "\u00a0 PROMPT\u200d", "ｐｒｏｍｐｔ", "\u2060prompt"]
    )
    def test_column_is_found_whatever_is_invisible_in_its_name(self, name: str) -> None:
        assert prompts(CSV, f"{name},id\nSay hello,1\n") == ["Say hello"]
        assert prompts(CSV, f"id,{name}\n1,Say hello\n") == ["Say hello"]

    @pytest.mark.parametrize(
        ("header", "name"),
        [
            ("Language", "language"),
            ("language", "LANGUAGE"),
            ("\u200bLanguage\u00a0", "language"),
            ("Customer  Name", "customer name"),
            ('"Customer\nName"', "Customer Name"),
            ("Größe", "größe"),
            ("Gro\u0308ße", "GRÖSSE"),
        ],
    )
    def test_template_finds_a_column_by_the_same_rule(self, header: str, name: str) -> None:
        assert prompts(CSV, f"{header},Prompt\nde,Hi\n", prompt_template=f"{{{{{name}}}}}: {{{{prompt}}}}") == ["de: Hi"]

    def test_template_finds_metadata_of_json_by_the_same_rule(self) -> None:
        items = [{"prompt": "Hi", "metadata": {"Language": "de"}}, {"prompt": "Ho", "metadata": {"LANGUAGE": "fr"}}, {"prompt": "x"}]

        assert prompts(JSON, json.dumps(items[:2]), prompt_template="{{language}} {{Input}} {{PROMPT}}") == ["de Hi Hi", "fr Ho Ho"]
        assert list(refused(JSON, json.dumps(items), prompt_template="{{language}}")) == ["items.2"]

    def test_template_of_a_dependent_row_finds_its_values_by_the_same_rule(self) -> None:
        items = [
            {"id": "a", "prompt": "x"},
            {"prompt": "{{parents.a.output}} in {{LANGUAGE}}", "depends_on": ["a"], "metadata": {"Language": "de"}},
        ]

        assert read(JSON, json.dumps(items))[1].prompt == "{{parents.a.output}} in {{Language}}"

    def test_name_that_fits_two_values_is_refused(self) -> None:
        items = [{"prompt": "Hi", "metadata": {"Language": "de", "LANGUAGE": "fr"}}]

        assert "does not exist" in refused(JSON, json.dumps(items), prompt_template="{{language}}")["items.0"]
        assert prompts(JSON, json.dumps(items), prompt_template="{{Language}}") == ["de"]

    def test_two_columns_that_differ_only_in_what_nobody_sees_are_refused(self) -> None:
        assert 'two columns "language"' in refused(CSV, "prompt,Language,language\u200b\nx,a,b\n")["line 1"]

    def test_plain_text_template_may_write_its_placeholder_in_capitals(self) -> None:
        assert prompts(TEXT, "hello", prompt_template="Say {{Input}}!") == ["Say hello!"]

    def test_what_is_invisible_is_shown_in_messages(self) -> None:
        [message] = refused(CSV, "qu\u200bestions\ufeff,i\u00a0d\nSay hello,1\n").values()

        assert "\\u200b" in message
        assert not any(character in message for character in "\u200b\ufeff\u00a0")
        [(path, _)] = refused(JSON, '[{"\\ufeffprompt": "x"}]').items()
        assert path == "items.0.\\ufeffprompt"


class TestHeader:
    def test_lines_above_the_header_are_quoted_and_the_header_is_found(self) -> None:
        [(place, message)] = refused(CSV, (TABLES / "title-lines.csv").read_bytes()).items()

        assert place == "line 1"
        assert "`Report: customer questions;;`" in message
        assert "line 4 looks like the header" in message

    def test_header_is_found_below_a_title_with_another_delimiter(self) -> None:
        assert "line 3 looks" in refused(CSV, "Questions, 2026\n\nid;prompt\n1;x\n")["line 1"]

    def test_unclosed_quote_below_a_title_hides_no_problem(self) -> None:
        assert "no column `prompt`" in refused(CSV, 'Title\n"never closed\n')["line 1"]

    @pytest.mark.parametrize("row", ['"a', '"a"b,c'])
    def test_broken_quoting_quotes_the_line(self, row: str) -> None:
        assert f"`{row}`" in refused(CSV, f"prompt,b\nx,y\n{row}\n")["line 3"]

    def test_asked_column_is_known_as_it_is_written(self) -> None:
        def asked(header: str, **options: Any) -> str | None:
            reader = read_batch(CSV, [f"{header}\na,b\n".encode()], options)
            list(reader)
            return reader.prompt_column

        assert asked("ID,Question") == "Question"
        assert asked("Text,Prompt") == "Prompt"
        assert asked("Text,City", prompt_template="{{city}}") is None
        assert asked("Text,City", prompt_template="{{input}} in {{city}}") == "Text"


class TestBlanksAroundQuotes:
    def test_blank_before_a_quote_is_read_as_meant(self) -> None:
        assert prompts(CSV, (TABLES / "space-after-comma.csv").read_bytes()) == ["Say good morning, then leave", "Say good night"]

    @pytest.mark.parametrize(
        ("record", "cells"),
        [
            (' "a, b" , "c"\t,d', ["a, b", "c", "d"]),
            ('a, "two\nlines, and more" ,d', ["a", "two\nlines, and more", "d"]),
            ('a, "say ""hi"", you",d', ["a", 'say "hi", you', "d"]),
            ('a, "hi" he said,d', ["a", ' "hi" he said', "d"]),
            ('5" pipe, 6" pipe ,d', ['5" pipe', ' 6" pipe ', "d"]),
            ('a,"b, ""c""",d', ["a", 'b, "c"', "d"]),
            ("  a , b ,d", ["  a ", " b ", "d"]),
        ],
    )
    def test_record_is_read_as_meant(self, record: str, cells: list[str]) -> None:
        assert [[row.prompt, *row.metadata.values()] for row in read(CSV, f"prompt,b,c\n{record}\n")] == [cells]

    @given(st.lists(st.lists(st.text(' \t",;ab\n', max_size=8), min_size=2, max_size=4), min_size=1, max_size=4), st.sampled_from(",;\t|"))
    @settings(deadline=None)  # other processes are no fault
    def test_what_a_csv_writer_writes_is_not_changed(self, table: list[list[str]], delimiter: str) -> None:
        made = io.StringIO()
        csv.writer(made, delimiter=delimiter).writerows(table)
        around, within, read_lines = AroundQuotes(delimiter), False, []
        for line in made.getvalue().splitlines(keepends=True):
            read_lines.append(around.without_blanks(line, within_quotes=within))
            within ^= line.count('"') % 2 == 1

        assert "".join(read_lines) == made.getvalue()


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=15), min_size=2, max_size=2).map(tuple),
    st.sampled_from([*",;\t|^~: #é", "😀"]),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC]),
    st.sampled_from(["", "\ufeff", "\ufeff\ufeff"]),
    st.booleans(),
    st.sampled_from(["", "\x1a"]),
)
@settings(deadline=None)  # other processes are no fault
def test_csv_writer_output_is_read_back_in_every_dialect(
    cells: tuple[str, str], delimiter: str, quoting: Any, mark: str, says_delimiter: bool, end: str
) -> None:
    made = io.StringIO()
    writer = csv.writer(made, delimiter=delimiter, quoting=quoting)
    writer.writerows([["prompt", "Other"], [f"x{cells[0]}", cells[1]], ["y", "z"]])
    before = f"sep={delimiter}\r\n" if says_delimiter else ""
    options = {} if says_delimiter or delimiter in ",;\t|" else {"delimiter": delimiter}

    found = read(CSV, mark + before + made.getvalue() + end, **options)

    assert [(row.prompt, row.metadata) for row in found] == [(f"x{cells[0]}", {"Other": cells[1]}), ("y", {"Other": "z"})]


class TestFormats:
    @pytest.mark.parametrize(
        ("head", "name"),
        [
            (b"PK\x03\x04\x14\x00", "xlsx"),
            (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", ".xls"),
            (b"\x1f\x8b\x08\x00", "gzip"),
            (b"%PDF-1.7\n", "PDF"),
            (b"PAR1\x15\x04", "Parquet"),
            (b"SQLite format 3\x00", "SQLite"),
            (b"{\\rtf1\\ansi", "RTF"),
            ("prompt\nhello\n".encode("utf-16"), "UTF-16"),
            ("prompt\nhello\n".encode("utf-32"), "UTF-32"),
        ],
    )
    @pytest.mark.parametrize("content_type", [CSV, TEXT, JSON, LINES])
    def test_file_that_is_no_text_is_named(self, head: bytes, name: str, content_type: str) -> None:
        for pieces in ([head + b"\x00rest"], [bytes([byte]) for byte in head + b"\x00rest"]):
            with pytest.raises(InvalidRequest) as caught:
                list(read_batch(content_type, pieces, {}))
            assert name in caught.value.details[0].message

    @pytest.mark.parametrize("text", ["PK is my name", "%PDF files: what are they?", "GIF8?", "BZh", "PAR1 for golf", "Rar!"])
    def test_prompt_that_begins_like_a_format_is_a_prompt(self, text: str) -> None:
        assert prompts(TEXT, text) == [text]


class TestJson:
    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("trailing-comma.jsonl", "ends with a comma"),
            ("pretty.jsonl", "goes on in other lines"),
            ("array.jsonl", "is a JSON list, so the file is one JSON document and not JSON lines"),
        ],
    )
    def test_document_sent_as_json_lines_gets_one_hint(self, name: str, words: str) -> None:
        data = (TABLES / name).read_text()
        [(place, message)] = refused(LINES, data).items()

        assert place == "line 1"
        assert words in message
        assert f"`{data.splitlines()[0]}`" in message

    def test_json_lines_sent_as_a_document_get_the_hint(self) -> None:
        [(place, message)] = refused(JSON, '{"prompt":"a"}\n{"prompt":"b"}\n').items()

        assert place == "line 2"
        assert 'looks like JSON lines: send it as application/x-ndjson, in a file that ends with .jsonl: `{"prompt":"b"}`' in message

    @pytest.mark.parametrize(
        ("content_type", "data"),
        [(LINES, '{"id":"a","prompt":"x"}{"id":"b","prompt":"y"}'), (CSV, "id,prompt1,Say hello2,Say bye")],
    )
    def test_rows_without_line_ends_get_the_hint_at_curl(self, content_type: str, data: str) -> None:
        assert "--data-binary" in refused(content_type, data)["line 1"]

    def test_wrong_line_is_quoted(self) -> None:
        assert '`{"prompt":"b" "id":1}`' in refused(LINES, '"a"\n{"prompt":"b" "id":1}\n')["line 2"]

    def test_number_that_is_none_is_named_with_its_place(self) -> None:
        assert "finite" in refused(JSON, (TABLES / "records-nan.json").read_bytes())["items.0.metadata.score"]
        assert "finite" in refused(LINES, '{"prompt":"a","metadata":{"x":-Infinity}}\n')["line 1.metadata.x"]

    @pytest.mark.parametrize(
        ("data", "place"),
        [
            ('{"items":[{"id":"a","prompt":"x","prompt":"y"}]}', "items.0.prompt"),
            ('[{"prompt":"x","metadata":{"a":1,"a":1}}]', "0.metadata.a"),
            ('{"items":["a"],"name":"x","name":"y"}', "name"),
        ],
    )
    def test_field_that_occurs_twice_is_named(self, data: str, place: str) -> None:
        assert "twice in one object" in refused(JSON, data)[place]

    def test_field_that_occurs_twice_in_a_line_is_named(self) -> None:
        [(place, message)] = refused(LINES, '"a"\n{"prompt":"x","prompt":"y"}\n').items()

        assert place == "line 2"
        assert "`prompt` twice" in message

    @pytest.mark.parametrize("content_type", [JSON, LINES])
    def test_custom_id_is_an_id_in_json_too(self, content_type: str) -> None:
        items = [{"custom_id": "a", "prompt": "x"}, {"custom_id": 7, "prompt": "y"}]
        data = json.dumps(items) if content_type == JSON else "\n".join(map(json.dumps, items))

        assert [row.id for row in read(content_type, data)] == ["a", "7"]
        assert list(refused(JSON, '[{"id": "a", "custom_id": "b", "prompt": "x"}]')) == ["items.0.custom_id"]


def line_of_openai(body: dict[str, Any], url: str = "/v1/chat/completions", **fields: Any) -> dict[str, Any]:
    return {"custom_id": "r1", "method": "POST", "url": url, "body": body, **fields}


USER = {"role": "user", "content": "Hi"}


class TestOpenAiLines:
    def test_requests_of_one_config_become_a_batch(self) -> None:
        body = {
            "model": "gpt-4o-mini",
            "messages": [{"role": "system", "content": "Be terse."}, USER],
            "max_completion_tokens": 50,
            "temperature": 0.5,
            "top_p": 0.9,
            "reasoning_effort": "low",
            "response_format": {"type": "json_object"},
            "stream": False,
            "n": 1,
            "stop": None,
        }
        second = {**body, "messages": [body["messages"][0], {"role": "user", "content": [{"type": "text", "text": "Bye"}]}]}
        data = "\n".join(json.dumps(line_of_openai(each, custom_id=name)) for name, each in (("a", body), ("b", second)))

        reader = read_batch(LINES, [data.encode()], {"name": "n", "config": {"timeout": 60}})

        assert [(row.id, row.prompt) for row in reader] == [("a", "Hi"), ("b", "Bye")]
        assert reader.options.config == {
            "model": "gpt-4o-mini",
            "system_prompt": "Be terse.",
            "max_tokens": 50,
            "temperature": 0.5,
            "response_format": "json",
            "timeout": 60,
            "openai": {"top_p": 0.9, "reasoning": {"effort": "low"}},
        }

    def test_requests_of_the_responses_api_become_a_batch(self) -> None:
        schema = {"type": "json_schema", "name": "x", "schema": {"type": "object"}}
        body = {"model": "m", "input": "Hi", "instructions": "Be terse.", "max_output_tokens": 50, "text": {"format": schema}}

        reader = read_batch(JSON, [json.dumps([line_of_openai(body, "/v1/responses")]).encode()], {})

        assert [row.prompt for row in reader] == ["Hi"]
        assert reader.options.config == {"model": "m", "system_prompt": "Be terse.", "max_tokens": 50, "response_format": schema}

    @pytest.mark.parametrize(
        ("body", "place"),
        [
            ({"messages": [USER], "tools": []}, "line 1.body.tools"),
            ({"messages": [USER], "n": 2}, "line 1.body.n"),
            ({"messages": [USER], "stream": True}, "line 1.body.stream"),
            ({"messages": [USER, {"role": "assistant", "content": "Yes?"}, USER]}, "line 1.body.messages"),
            ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "line 1.body.messages"),
            ({"messages": [{**USER, "name": "Ann"}]}, "line 1.body.messages"),
            ({"model": "m"}, "line 1.body.messages"),
            ({"messages": "x", "temperature": "hot"}, "config.temperature"),
        ],
    )
    def test_what_has_no_counterpart_is_named(self, body: dict[str, Any], place: str) -> None:
        def submit() -> None:
            reader = read_batch(LINES, [json.dumps(line_of_openai(body)).encode()], {})
            base_submission(reader.options)
            list(reader)

        with pytest.raises(InvalidRequest) as caught:
            submit()

        assert [detail.path for detail in caught.value.details] == [place]

    @pytest.mark.parametrize("url", ["/v1/embeddings", "/v1/images/generations"])
    def test_other_endpoints_are_refused(self, url: str) -> None:
        assert "/v1/responses" in refused(LINES, json.dumps(line_of_openai({"input": "x"}, url)))["line 1.url"]

    def test_row_with_another_config_is_refused(self) -> None:
        [(place, message)] = refused(LINES, (TABLES / "openai-batch-chat.jsonl").read_bytes()).items()

        assert place == "line 2.body"
        assert message.startswith('`system_prompt` is not given, but is "You are terse." in the first row')
        other = [line_of_openai({"model": model, "messages": [USER]}, custom_id=model) for model in ("a", "b")]
        assert list(refused(JSON, json.dumps(other))) == ["items.1.body.model"]

    def test_row_with_a_body_needs_no_prompt_and_may_have_none(self) -> None:
        body = line_of_openai({"model": "m", "messages": [USER]})

        assert list(refused(JSON, json.dumps([{**body, "prompt": "x"}]))) == ["items.0.body"]
        assert list(refused(JSON, json.dumps([body, "plain"]))) == ["items.1"]
        assert list(refused(JSON, json.dumps([body, {"prompt": "x"}]))) == ["items.1"]

    def test_option_that_contradicts_the_bodies_is_refused(self) -> None:
        data = json.dumps(line_of_openai({"model": "m", "messages": [USER]}))

        assert 'is "other", but "m" in the `body` of the rows' in refused(LINES, data, model="other")["config.model"]
        assert prompts(LINES, data, model="m") == ["Hi"]


def form(files: dict[str, bytes], boundary: str = "b-1", types: dict[str, str] | None = None) -> bytes:
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        f"Content-Type: {(types or {}).get(name, 'application/octet-stream')}\r\n\r\n".encode()
        + data
        + b"\r\n"
        for name, data in files.items()
    ]
    return b"".join(parts) + f"--{boundary}--\r\n".encode()


FORM = "multipart/form-data; boundary=b-1"


class TestForms:
    def test_rows_of_all_files_are_one_batch(self) -> None:
        files = {
            "jan.csv": b"id,prompt\n1,January\n",
            "feb.csv": b"\xef\xbb\xbfsep=;\r\nPrompt;City;ID\r\nFebruary;K\xc3\xb6ln;2\r\n",
            "mar.tsv": b"prompt\tid\nMarch\t3\n",
            "apr.jsonl": b'{"custom_id":"4","prompt":"April"}\n',
            "may.txt": b"May\nJune\n",
            "jul.json": b'[{"id":"7","prompt":"July"}]',
        }

        found = read(FORM, form(files))

        assert [(row.number, row.id, row.prompt) for row in found] == [
            *((0, "1", "January"), (1, "2", "February"), (2, "3", "March"), (3, "4", "April")),
            *((4, None, "May"), (5, None, "June"), (6, "7", "July")),
        ]
        assert found[1].metadata == {"City": "Köln"}

    def test_problems_are_named_with_their_file(self) -> None:
        files = {"a.csv": b"id,prompt\n1,x\n2,y,z\n", "b.csv": b"id,prompt\n1,x\n3, \n", "c.json": b'[{"pr":1}]', "d.csv": b"a,b\n"}

        wrong = refused(FORM, form(files))

        assert list(wrong) == ["a.csv: line 3", "b.csv: line 2.id", "b.csv: line 3.prompt", "c.json: items.0.pr", "d.csv: line 1"]
        assert wrong["b.csv: line 2.id"] == '"1" is already the id of a.csv: line 2'

    @pytest.mark.parametrize(
        ("name", "kind", "is_read"),
        [
            ("a.csv", "application/octet-stream", True),
            ("a.CSV", "text/plain", True),
            ("a.csv", "application/vnd.ms-excel", True),
            ("a", "text/csv", True),
            ("a.bin", "application/octet-stream", False),
            ("a.csv.gz", "application/gzip", False),
        ],
    )
    def test_file_has_the_type_that_the_client_says_or_its_name(self, name: str, kind: str, is_read: bool) -> None:
        data = form({name: b"prompt\nx\n"}, types={name: kind})

        if is_read:
            assert prompts(FORM, data) == ["x"]
        else:
            assert "name it .csv" in refused(FORM, data)[name]

    @pytest.mark.parametrize(
        ("content_type", "data"),
        [
            ("multipart/form-data", b""),
            (FORM, b""),
            (FORM, b"--other\r\n"),
            (FORM, b"--b-1\r\n"),
            (FORM, b"--b-1\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b-1--"),
            (FORM, b'--b-1\r\nContent-Disposition: form-data; name="f"; filename="a.csv"\r\n\r\nprompt\nx'),
            (FORM, b"--b-1\r\n" + b"x" * 10_000),
            (FORM, form({"a.csv": b"prompt\nx\n"}).replace(b"\r\n\r\n", b"\r\nContent-Transfer-Encoding: base64\r\n\r\n")),
        ],
    )
    def test_broken_form_is_refused(self, content_type: str, data: bytes) -> None:
        assert refused(content_type, data)

    def test_files_together_have_at_most_the_lines_of_one(self) -> None:
        half = b"\n" * (MAX_LINES // 30)

        wrong = refused(FORM, form({f"{number}.txt": b"x" + half for number in range(31)}))

        assert list(wrong) == ["30.txt"]
        assert "all files together" in wrong["30.txt"]

    @given(
        st.lists(st.tuples(st.text("abc.é", min_size=1, max_size=6), st.binary(max_size=40)), max_size=4),
        st.lists(st.integers(1, 30), min_size=1, max_size=4),
    )
    @settings(deadline=None)  # other processes are no fault
    def test_parts_are_read_back_for_any_chunk_sizes(self, parts: list[tuple[str, bytes]], sizes: list[int]) -> None:
        boundary = "x" * 40
        data = b"".join(
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode() + content + b"\r\n"
            for name, content in parts
        )
        pieces = cut(data + f"--{boundary}--".encode(), sizes)

        found = [(part.filename, b"".join(part.pieces)) for part in form_parts(f"multipart/form-data; boundary={boundary}", pieces)]

        assert found == parts

    @given(st.binary(max_size=200), st.lists(st.integers(1, 30), min_size=1, max_size=4))
    @settings(deadline=None)  # other processes are no fault
    def test_arbitrary_bytes_are_a_form_or_refused(self, data: bytes, sizes: list[int]) -> None:
        def outcome(pieces: Any) -> Any:
            try:
                return [(part.name, b"".join(part.pieces)) for part in form_parts(FORM, pieces)]
            except UnreadableInput as wrong:
                return wrong.detail

        built = data.replace(b"\x00", b"\r\n--b-1").replace(b"\x01", b'\r\nContent-Disposition: form-data; name="f"\r\n\r\n')
        assert outcome([built]) == outcome(cut(built, sizes))


def cut(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    start = 0
    for size in itertools.cycle(sizes):
        if start >= len(data):
            return
        yield data[start : start + size]
        start += size


@pytest.mark.parametrize("content_type", [kind for kind, read_as in CONTENT_TYPES.items() if read_as == CSV])
def test_every_name_of_csv_is_read(content_type: str) -> None:
    assert prompts(f"{content_type}; charset=utf-8", "prompt\nhello\n") == ["hello"]


def test_dos_end_mark_is_left_out_of_every_format() -> None:
    assert prompts(TEXT, "hello\r\n\x1a") == ["hello"]
    assert prompts(LINES, '"hello"\r\n\x1a\x1a') == ["hello"]
    assert prompts(JSON, '["hello"]\x1a') == ["hello"]
    assert prompts(CSV, (TABLES / "ctrl-z.csv").read_bytes()) == ["Say hello", "Say bye"]
