"""Tables through `app.py`: what people send with curl and forms, and what they open the answers with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from chalicelib import bootstrap
from tests.kit import batches
from tests.kit.http import Api, Reply
from tests.kit.paths import ROOT
from tests.kit.provider import Script
from tests.kit.work import work

TABLES = ROOT / "tests" / "kit" / "tables"
FORM = "multipart/form-data; boundary=b1"


@pytest.fixture(autouse=True)
def _region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "us-east-1")


@pytest.fixture
def api() -> Iterator[Api]:
    made = Api(*(Script(deltas=["Grüße, 5 €"]) for _ in range(20)))
    yield made
    bootstrap.override(None)


def through_gateway(data: bytes) -> str:
    """What API Gateway makes of a body."""
    return data.decode("utf-8", "replace")


def dry_run(api: Api, data: bytes, content_type: str, **query: str) -> Reply:
    options = "".join(f"&{name}={quote(value)}" for name, value in query.items())
    return api.call("POST", f"/batches?dry_run=true{options}", raw=through_gateway(data), content_type=content_type)


def table(name: str) -> bytes:
    return (TABLES / name).read_bytes()


def asked(reply: Reply) -> list[str]:
    assert reply.status == 200, reply.text
    return [item["prompt"] for item in reply.json["items"]]


def details(reply: Reply) -> dict[str, str]:
    assert reply.status == 400, reply.text
    return {detail["path"]: detail["message"] for detail in reply.json["error"]["details"]}


def part(name: str, content: str, filename: str | None = None) -> str:
    file = f'; filename="{filename}"' if filename else ""
    return f'--b1\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n{content}\r\n'


@pytest.mark.parametrize(
    "content_type",
    ["application/vnd.ms-excel", "text/x-csv", "application/csv", "text/comma-separated-values", "Text/CSV; charset=UTF-8; header=present"],
)
def test_csv_is_read_under_every_name_that_programs_send(api: Api, content_type: str) -> None:
    assert asked(dry_run(api, table("capital-header.csv"), content_type)) == ["Say good morning", "Say good night"]


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "application/pdf", "application/octet-stream", "text/xml"])
def test_other_content_type_is_refused_with_those_that_are_read(api: Api, content_type: str) -> None:
    reply = dry_run(api, b"prompt\nx\n", content_type)

    assert (reply.status, reply.json["error"]["code"]) == (415, "unsupported_media_type")
    message = reply.json["error"]["message"]
    assert all(name in message for name in (content_type, "text/csv", "text/plain", "application/x-ndjson", "multipart/form-data"))
    assert "--data-binary" in message


def test_form_of_files_and_options_is_a_batch(api: Api) -> None:
    body = part("name", "both") + part("prompt_template", "In {{language}}: {{input}}") + part("config", '{"max_tokens": 50}')
    body += (
        part("file", through_gateway(table("capital-header.csv")), "a.csv") + part("file", "Prompt;LANGUAGE\nHi;de\n", "b.csv") + "--b1--"
    )

    reply = api.call("POST", "/batches?priority=high", raw=body, content_type=FORM)
    batches.tasks(api)

    assert reply.status == 202, reply.text
    assert (reply.json["name"], reply.json["counts"]["total"], reply.json["priority"]) == ("both", 3, "high")
    work(api, "high")
    prompts = sorted(request.prompt for request in api.container.provider.requests)
    assert prompts == ["In French: Say good night", "In German: Say good morning", "In de: Hi"]


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (part("name", "x") + "--b1--", "file"),
        (part("file", "prompt\nx\n", "a.csv"), ""),
        (part("nme", "x") + part("file", "prompt\nx\n", "a.csv") + "--b1--", "nme"),
        (part("config", "{") + part("file", "prompt\nx\n", "a.csv") + "--b1--", "config"),
        (part("name", "x") + part("name", "y") + part("file", "prompt\nx\n", "a.csv") + "--b1--", "name"),
        (part("file", "prompt\nca\ufffd\n", "a.csv") + "--b1--", "a.csv: line 2"),
        (part("file", through_gateway(table("prompts.csv.gz")), "a.csv.gz") + "--b1--", "a.csv.gz: line 1"),
    ],
)
def test_wrong_form_is_refused_at_its_place(api: Api, body: str, place: str) -> None:
    assert list(details(dry_run(api, body.encode(), FORM))) == [place]


@pytest.mark.parametrize(
    ("name", "words"),
    [("utf16-tabs.txt", "UTF-16"), ("table.xlsx", ".xlsx"), ("prompts.csv.gz", "packed by gzip: unpack it")],
)
@pytest.mark.parametrize("content_type", ["text/csv", "text/plain", "application/x-ndjson"])
def test_file_that_is_no_text_in_utf8_is_named_although_the_gateway_changed_it(api: Api, name: str, words: str, content_type: str) -> None:
    assert words in details(dry_run(api, table(name), content_type))["line 1"]


def test_byte_that_is_not_utf8_is_shown_with_its_line(api: Api) -> None:
    assert "`caf\ufffd`" in details(dry_run(api, b"prompt\ncaf\xe9\n", "text/csv"))["line 2"]


def test_dry_run_says_which_column_is_asked(api: Api) -> None:
    first = dry_run(api, b"ID,Question,Answer\n1,Why?,x\n", "text/csv").json
    other = dry_run(api, b"ID,Question,Answer\n1,Why?,x\n", "text/csv", prompt_template="{{answer}}").json

    assert (first["prompt_column"], first["items"][0]["prompt"]) == ("Question", "Why?")
    assert (other["prompt_column"], other["items"][0]["prompt"]) == (None, "x")
    assert api.call("POST", "/batches", {"items": ["a"], "dry_run": True}).json["prompt_column"] is None


@pytest.mark.parametrize(
    ("name", "query"), [("sep-line.csv", {}), ("pipe.csv", {"delimiter": "|"}), ("pipe.csv", {}), ("pipe.csv", {"delimiter": "pipe"})]
)
def test_delimiter_is_the_one_that_the_file_or_the_caller_says(api: Api, name: str, query: dict[str, str]) -> None:
    assert asked(dry_run(api, table(name), "text/csv", **query)) == ["Say good morning", "Say good night"]


@pytest.mark.parametrize("delimiter", ["||", '"', "\n", "dot"])
def test_delimiter_that_cannot_be_one_is_refused_in_words(api: Api, delimiter: str) -> None:
    assert details(dry_run(api, b"prompt\nx\n", "text/csv", delimiter=delimiter))["delimiter"].startswith("must be one character")


@pytest.mark.parametrize("path", ["/jobs", "/jobs/estimate"])
def test_field_that_occurs_twice_in_a_request_is_refused_with_its_name(api: Api, path: str) -> None:
    reply = api.call("POST", path, raw='{"prompt":"a","metadata":{"x":1,"x":2}}')

    assert reply.status == 400
    assert "`x` twice" in reply.text
    assert "metadata.x" in reply.text


def test_field_that_occurs_twice_in_a_batch_is_refused_with_its_place(api: Api) -> None:
    assert list(details(dry_run(api, table("duplicate-keys.json"), "application/json"))) == ["items.0.prompt"]
    assert "`a` twice" in details(dry_run(api, b"x", "text/plain", config='{"a":1,"a":2}'))["config"]


class TestExport:
    def export(self, api: Api, batch_id: str, query: str) -> Reply:
        return api.call("GET", f"/batches/{batch_id}/export?{query}")

    def completed(self, api: Api, **options: Any) -> str:
        batch_id = batches.submit(api, [{"id": "1", "content": "Hallo", "metadata": {"Stadt": "Köln"}}], **options)
        batches.settle(api)
        return batch_id

    def test_csv_begins_with_a_byte_order_mark_if_asked_to(self, api: Api) -> None:
        batch_id = self.completed(api)

        plain, marked = self.export(api, batch_id, "format=csv"), self.export(api, batch_id, "format=csv&bom=true")

        assert marked.text == "\ufeff" + plain.text
        assert not plain.text.startswith("\ufeff")
        assert self.export(api, batch_id, "format=csv&bom=false").text == plain.text

    @pytest.mark.parametrize(("delimiter", "character"), [("semicolon", ";"), (";", ";"), ("tab", "\t"), ("|", "|")])
    def test_csv_has_the_delimiter_that_is_asked_for(self, api: Api, delimiter: str, character: str) -> None:
        batch_id = self.completed(api)

        text = self.export(api, batch_id, f"format=csv&delimiter={quote(delimiter)}").text

        assert text.startswith(f"row{character}id{character}job_id")
        assert "Grüße, 5 €" in text.splitlines()[1].split(character)

    @pytest.mark.parametrize(
        ("query", "place"),
        [
            ("format=csv&delimiter=two", "delimiter"),
            ("format=csv&delimiter=", "delimiter"),
            ("format=csv&bom=yes", "bom"),
            ("format=json&bom=true", "bom"),
            ("delimiter=tab", "delimiter"),
        ],
    )
    def test_wrong_style_is_refused(self, api: Api, query: str, place: str) -> None:
        assert list(details(self.export(api, self.completed(api), query))) == [place]

    def test_exports_of_two_styles_are_two_objects(self, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("chalicelib.entrypoints.http.routes.batches.MAX_INLINE_ROWS", 0)
        batch_id = self.completed(api)

        replies = [self.export(api, batch_id, query) for query in ("format=csv", "format=csv&bom=true", "format=csv&delimiter=;")]

        assert [reply.status for reply in replies] == [307] * 3
        assert len({reply.headers["location"] for reply in replies}) == 3

    def test_export_is_a_table_that_can_be_submitted_again(self, api: Api) -> None:
        text = self.export(api, self.completed(api), "format=csv&bom=true&delimiter=semicolon").text

        reply = dry_run(api, text.encode(), "application/vnd.ms-excel", prompt_template="{{OUTPUT}} {{metadata.stadt}}")

        assert asked(reply) == ["Grüße, 5 € Köln"]
