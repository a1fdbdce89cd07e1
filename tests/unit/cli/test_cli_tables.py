"""`headrace batch` with the files that people have: several tables, packed and foreign ones, exports for spreadsheets."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import pytest

from cli import batch_files, file_formats
from tests.kit.paths import ROOT
from tests.unit.cli.server import Answer, FakeServer, run

TABLES = ROOT / "tests" / "kit" / "tables"
BATCH = "batch_01JABCDEFGHJKMNPQRSTVWXYZ0"
ACCEPTED = Answer(202, {"success": True, "batch_id": BATCH, "status": "queued", "counts": {"total": 1}})


def sent(server: FakeServer) -> tuple[str, Any]:
    """The content type and the body of the only submission."""
    [(_, _, headers, body)] = server.sent("POST /batches")
    return headers["Content-Type"], body


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in {
        "jan.csv": "prompt\nJanuary\n",
        "feb.csv": "prompt\nFebruary\n",
        "notes.md": "A note.",
        "a.txt": "x\ny\n",
    }.items():
        (tmp_path / name).write_text(content)
    return tmp_path


class TestSeveralTables:
    @pytest.mark.parametrize("way", ["names", "glob"])
    def test_rows_of_all_tables_are_sent_as_one_form_and_that_is_said(
        self, server: FakeServer, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, way: str
    ) -> None:
        monkeypatch.chdir(folder)
        server.plan("POST /batches", ACCEPTED)

        assert run("batch", "submit", *(("feb.csv", "jan.csv") if way == "names" else (".", "--glob", "*.csv")), "--name", "both") == 0

        content_type, body = sent(server)
        kind, _, boundary = content_type.partition("; boundary=")
        assert kind == "multipart/form-data"
        parts = body.split(f"--{boundary}".encode())
        assert parts[0] == b""
        assert parts[-1] == b"--\r\n"
        assert [part.partition(b"\r\n\r\n")[2] for part in parts[1:-1]] == [b"prompt\nFebruary\n\r\n", b"prompt\nJanuary\n\r\n"]
        assert b'filename="feb.csv"\r\nContent-Type: text/csv' in parts[1]
        assert server.queries[-1] == {"name": "both"}
        assert "The rows of 2 files are sent as one batch." in capsys.readouterr().err

    def test_form_is_one_that_the_api_reads(self, server: FakeServer, folder: Path) -> None:
        from chalicelib.domain.batches.parsing.reader import read_batch

        (folder / 'k"ö.tsv').write_bytes("id\tprompt\n1\tMärz\n".encode())
        server.plan("POST /batches", ACCEPTED)
        run("batch", "submit", str(folder / "jan.csv"), str(folder / 'k"ö.tsv'))
        content_type, body = sent(server)

        assert [row.prompt for row in read_batch(content_type, [body], {})] == ["January", "März"]
        assert len(content_type) <= 100  # of an upload

    def test_large_form_is_uploaded(self, server: FakeServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(batch_files, "MAX_BODY_BYTES", 20)
        link = {"upload_id": "upload_1", "url": f"{server.api_url}/storage", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}
        server.plan("POST /uploads", Answer(201, link))
        server.plan("PUT /storage", Answer(200))
        server.plan("POST /batches", ACCEPTED)

        assert run("batch", "submit", str(folder / "jan.csv"), str(folder / "feb.csv")) == 0
        assert server.sent("POST /uploads")[0][3]["content_type"].startswith("multipart/form-data; boundary=")
        assert server.sent("PUT /storage")[0][3].startswith(b"--")

    @pytest.mark.parametrize("names", [("jan.csv", "notes.md"), (".",)])
    def test_tables_beside_other_files_are_asked_about(
        self, server: FakeServer, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
    ) -> None:
        monkeypatch.chdir(folder)

        assert run("batch", "submit", *names) == 2
        assert "--as rows" in capsys.readouterr().err
        assert not server.requests

    def test_tables_are_prompts_if_that_is_said(
        self, server: FakeServer, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(folder)
        server.plan("POST /batches", ACCEPTED)

        assert run("batch", "submit", "jan.csv", "notes.md", "--as", "prompts") == 0
        assert [item["content"] for item in sent(server)[1]["items"]] == ["prompt\nJanuary\n", "A note."]
        assert "2 files are sent, each as one prompt." in capsys.readouterr().err

    def test_lines_of_text_files_are_rows_if_that_is_said(
        self, server: FakeServer, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(folder)
        server.plan("POST /batches", ACCEPTED)

        assert run("batch", "submit", "a.txt", "jan.csv", "--as", "rows") == 0
        assert b'filename="a.txt"\r\nContent-Type: text/plain\r\n\r\nx\ny\n' in sent(server)[1]
        assert run("batch", "submit", "notes.md", "jan.csv", "--as", "rows") == 2
        assert "notes.md has no rows that can be read." in capsys.readouterr().err


class TestFormats:
    def test_packed_table_is_unpacked(self, server: FakeServer) -> None:
        server.plan("POST /batches", ACCEPTED)

        assert run("batch", "submit", str(TABLES / "prompts.csv.gz")) == 0
        assert sent(server) == ("text/csv", gzip.decompress((TABLES / "prompts.csv.gz").read_bytes()))

    def test_packed_file_that_becomes_too_large_is_refused_before_it_is_in_memory(
        self, server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(file_formats, "MAX_UNPACKED_BYTES", 3_000_000)
        (tmp_path / "bomb.csv.gz").write_bytes(gzip.compress(b"\0" * 100_000_000))

        assert run("batch", "submit", str(tmp_path / "bomb.csv.gz")) == 2
        assert "more than 3 MB when it is unpacked" in capsys.readouterr().err
        assert not server.requests

    @pytest.mark.parametrize("data", [b"no gzip", gzip.compress(b"prompt\nhello\n" * 99)[:-9], b"\x1f\x8b\x08", b""])
    def test_broken_packed_file_is_refused_in_a_sentence(
        self, server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], data: bytes
    ) -> None:
        (tmp_path / "a.csv.gz").write_bytes(data)
        server.plan("POST /batches", ACCEPTED)

        assert run("batch", "submit", str(tmp_path / "a.csv.gz")) == (0 if not data else 2)
        assert "Traceback" not in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("name", "head", "words"),
        [
            ("table.xlsx", (TABLES / "table.xlsx").read_bytes(), ("an Excel workbook", "CSV UTF-8")),
            ("table.ods", b"PK\x03\x04mimetype", ("a spreadsheet of LibreOffice", "CSV UTF-8")),
            ("table.csv", b"PK\x03\x04", ("zip archive", "Unpack it")),
            ("table.csv", b"\xd0\xcf\x11\xe0\xa1\xb1", (".xls", "CSV UTF-8")),
            ("notes.txt", (TABLES / "utf16-tabs.txt").read_bytes(), ("UTF-16", "Save it as UTF-8")),
            ("table.csv", gzip.compress(b"prompt"), ("packed by gzip", "Unpack it")),
            ("paper.pdf", b"%PDF-1.7", ("a PDF document", "read from text")),
            ("table.parquet", b"PAR1\x15", ("a Parquet file", "Export the table")),
            ("table.csv", (TABLES / "table.xlsx").read_bytes(), ("an Excel workbook", "CSV UTF-8")),
            ("table.xls", b"<html><table><tr><td>prompt</td></tr></table></html>", ("no Excel workbook", "open it there")),
            ("table.xlsx", b"id,prompt\n1,hello\n", ("no Excel workbook", "name it so: .csv")),
            ("letter.rtf", b"{\\rtf1\\ansi hello}", ("a document in RTF", "Save it as text")),
            ("notes.7z", b"7z\xbc\xaf\x27\x1c", ("a 7z archive", "Unpack it")),
            ("contracts.tar", b"a.sol" + bytes(252) + b"ustar", ("a NUL byte at position 6", "no text at all")),
            ("contracts.tar.gz", gzip.compress(b"a.sol" + bytes(252) + b"ustar"), ("a NUL byte at position 6", "--glob")),
            ("notes.md", "hello".encode("utf-16-le"), ("a NUL byte at position 2", "may be UTF-16")),
        ],
    )
    def test_file_that_is_no_text_is_named_without_a_request(
        self, server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, head: bytes, words: tuple[str, ...]
    ) -> None:
        (tmp_path / name).write_bytes(head)

        assert run("batch", "submit", str(tmp_path / name)) == 2
        seen = capsys.readouterr().err
        assert all(word in seen for word in words), seen
        assert not server.requests

    def test_byte_order_mark_is_no_part_of_a_prompt_or_template(self, server: FakeServer, tmp_path: Path) -> None:
        (tmp_path / "a.md").write_bytes(b"\xef\xbb\xbfA note.")
        (tmp_path / "template").write_bytes(b"\xef\xbb\xbfSum up: {{input}}")
        server.plan("POST /batches", ACCEPTED)

        assert run("batch", "submit", str(tmp_path / "a.md"), "--template", f"@{tmp_path / 'template'}") == 0
        _, body = sent(server)
        assert (body["items"][0]["content"], body["prompt_template"]) == ("A note.", "Sum up: {{input}}")

    def test_name_of_a_file_that_is_not_utf8_is_refused(
        self, server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.md")).write_text("x")

        assert run("batch", "submit", str(tmp_path)) == 2
        assert "caf\\xe9.md is not text in UTF-8" in capsys.readouterr().err
        assert not server.requests

    def test_field_that_occurs_twice_is_not_lost_when_a_large_file_becomes_lines(
        self, server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(batch_files, "MAX_BODY_BYTES", 5)
        (tmp_path / "rows.json").write_bytes((TABLES / "duplicate-keys.json").read_bytes())

        assert run("batch", "submit", str(tmp_path / "rows.json")) == 2
        assert '"prompt" twice' in capsys.readouterr().err
        assert not server.requests


def test_dry_run_prints_the_column_that_is_asked(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    first = {"row": 0, "id": "1", "prompt": "Why?", "model": "m"}
    server.plan("POST /batches", Answer(200, {"dry_run": True, "count": 1, "prompt_column": "Question", "items": [first]}))

    assert run("batch", "submit", str(TABLES / "capital-header.csv"), "--dry-run") == 0
    assert "the column Question" in capsys.readouterr().out


class TestExport:
    @pytest.mark.parametrize(
        ("arguments", "query"),
        [
            (("-o", "a.csv"), {"format": "csv", "bom": "true"}),
            (("-o", "a.csv", "--no-bom"), {"format": "csv"}),
            (("-o", "a.csv", "--delimiter", "semicolon"), {"format": "csv", "bom": "true", "delimiter": "semicolon"}),
            ((), {"format": "csv"}),
            (("--bom",), {"format": "csv", "bom": "true"}),
            (("-o", "a.json"), {"format": "json"}),
        ],
    )
    def test_file_of_csv_gets_a_byte_order_mark_and_a_pipe_does_not(
        self, server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], query: dict[str, str]
    ) -> None:
        monkeypatch.chdir(tmp_path)
        server.plan(f"GET /batches/{BATCH}/export", Answer(200, "\ufeffid\r\n"))

        assert run("batch", "export", BATCH, *arguments) == 0
        assert server.queries[-1] == query

    @pytest.mark.parametrize("option", [("--bom",), ("--delimiter", "tab")])
    def test_style_of_csv_contradicts_json(self, server: FakeServer, option: tuple[str, ...]) -> None:
        assert run("batch", "export", BATCH, "--format", "json", *option) == 2
        assert not server.requests


def test_every_signature_is_the_same_on_both_sides() -> None:
    """The command line names what it would otherwise send, so it may know fewer formats, but no other ones."""
    from chalicelib.domain.batches.parsing.signatures import refusal_of

    assert all(refusal_of(mark + b"1.7") for mark, _, _ in file_formats._SIGNATURES)
