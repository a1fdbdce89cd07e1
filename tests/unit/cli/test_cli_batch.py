"""`headrace batch` against a fake server: requests, output and exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cli import batch_files, batch_screen
from cli.batch_screen import progress_bar, time_remaining
from tests.unit.cli.server import KEY, Answer, FakeServer, error, run

BATCH = "batch_01JABCDEFGHJKMNPQRSTVWXYZ0"
COUNTS = {"total": 4, "waiting": 1, "queued": 0, "processing": 1, "completed": 1, "failed": 1, "cancelled": 0}


def batch(status: str = "processing", **changes: Any) -> dict[str, Any]:
    return {
        "success": True,
        "batch_id": BATCH,
        "name": "audit",
        "status": status,
        "counts": COUNTS,
        "progress_percentage": 50.0,
        "cost": "0.001200",
        "currency": "USD",
        "estimated_completion_at": None,
        "failed_job_ids": ["job_1"],
        "created_at": "2026-01-01T00:00:00.000Z",
        **changes,
    }


@pytest.fixture
def contracts(tmp_path: Path) -> Path:
    folder = tmp_path / "contracts"
    (folder / "old").mkdir(parents=True)
    (folder / "vault.sol").write_text("contract Vault {}")
    (folder / "old" / "bank.sol").write_text("contract Bänk {}")
    (folder / "notes.md").write_text("not this")
    (folder / ".git").mkdir()
    (folder / ".git" / "hidden.sol").write_text("nor this")
    return folder


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    file = tmp_path / "prompts.csv"
    file.write_bytes('id,prompt\r\na,"Say ""hé""\r\n"\r\n'.encode())
    return file


class TestSubmit:
    def test_csv_file_is_sent_unchanged_with_options_in_the_query(self, server: FakeServer, prompts: Path) -> None:
        server.plan("POST /batches", Answer(202, batch("queued")))

        code = run(
            *("batch", "submit", str(prompts), "--name", "n", "--type", "general", "--model", "m", "--priority", "high"),
            *(
                "--batch-size",
                "5",
                "--delay",
                "2",
                "--parallel-limit",
                "3",
                "--failure-tolerance",
                "0.5",
                "--option",
                "n=3",
                "--config",
                "max_tokens=50",
            ),
            *("--template", "{{input}}!", "--delimiter", "comma"),
            *("--webhook-url", "https://a.example/", "--notify", "slack:alerts", "--notify", "email:ops@acme.com"),
        )

        [(_, _, headers, sent)] = server.sent("POST /batches")
        assert code == 0
        assert sent == prompts.read_bytes()
        assert headers["Content-Type"] == "text/csv"
        assert headers["Idempotency-Key"]
        assert server.queries[-1] == {
            "name": "n",
            "type": "general",
            "model": "m",
            "priority": "high",
            "options": '{"n": 3}',
            "config": '{"max_tokens": 50}',
            "prompt_template": "{{input}}!",
            "batch_size": "5",
            "delay": "2.0",
            "parallel_limit": "3",
            "failure_tolerance": "0.5",
            "webhook_url": "https://a.example/",
            "notify": '["slack:alerts", "email:ops@acme.com"]',
            "delimiter": "comma",
        }

    @pytest.mark.parametrize(
        ("name", "kind"), [("a.json", "application/json"), ("a.jsonl", "application/x-ndjson"), ("a.TXT", "text/plain")]
    )
    def test_file_of_rows_is_sent_with_its_content_type(self, server: FakeServer, tmp_path: Path, name: str, kind: str) -> None:
        (tmp_path / name).write_text('["a"]')
        server.plan("POST /batches", Answer(202, batch("queued")))

        assert run("batch", "submit", str(tmp_path / name)) == 0
        assert server.sent("POST /batches")[0][2]["Content-Type"] == kind

    def test_matching_files_of_a_folder_become_rows_with_path_ids(self, server: FakeServer, contracts: Path) -> None:
        server.plan("POST /batches", Answer(202, batch("queued")))

        assert run("batch", "submit", str(contracts), "--glob", "*.sol", "--type", "security_analysis") == 0

        [(_, _, _, sent)] = server.sent("POST /batches")
        assert sent == {
            "items": [{"id": "old/bank.sol", "content": "contract Bänk {}"}, {"id": "vault.sol", "content": "contract Vault {}"}],
            "type": "security_analysis",
        }

    def test_several_files_become_one_row_each(self, server: FakeServer, prompts: Path, contracts: Path) -> None:
        server.plan("POST /batches", Answer(202, batch("queued")))

        assert run("batch", "submit", str(prompts), str(contracts / "vault.sol"), "--as", "prompts") == 0
        assert [item["id"] for item in server.sent("POST /batches")[0][3]["items"]] == ["prompts.csv", "vault.sol"]

    def test_file_with_replacement_characters_is_uploaded_by_a_signed_link(self, server: FakeServer, tmp_path: Path) -> None:
        """API Gateway replaces invalid bytes by U+FFFD, so the API rejects it in a request body."""
        file = tmp_path / "questions.txt"
        file.write_text("What does \ufffd mean?")
        link = {"upload_id": "upload_1", "url": f"{server.api_url}/storage", "headers": {"Content-Type": "text/plain"}}
        server.plan("POST /uploads", Answer(201, link))
        server.plan("PUT /storage", Answer(200))
        server.plan("POST /batches", Answer(202, batch("queued")))

        assert run("batch", "submit", str(file)) == 0

        assert server.sent("PUT /storage")[0][3] == file.read_bytes()
        assert server.sent("POST /batches")[0][3] == {"upload_id": "upload_1"}

    @pytest.mark.parametrize("source", ["csv", "folder"])
    def test_large_input_is_uploaded_by_a_signed_link_without_the_key(
        self, server: FakeServer, prompts: Path, contracts: Path, monkeypatch: pytest.MonkeyPatch, source: str
    ) -> None:
        monkeypatch.setattr(batch_files, "MAX_BODY_BYTES", 20)
        link = {"upload_id": "upload_1", "url": f"{server.api_url}/storage?sig=1", "headers": {"Content-Type": "text/csv"}}
        server.plan("POST /uploads", Answer(201, link))
        server.plan("PUT /storage", Answer(503), Answer(200))
        server.plan("POST /batches", Answer(202, batch("queued")))

        assert run("batch", "submit", str(prompts if source == "csv" else contracts), "--name", "n", "--config", "max_tokens=50") == 0

        [(_, _, _, upload_request)] = server.sent("POST /uploads")
        put = server.sent("PUT /storage")
        assert upload_request["size"] == len(put[-1][3])
        assert upload_request["content_type"] == ("text/csv" if source == "csv" else "application/x-ndjson")
        assert len(put) == 2
        assert "Authorization" not in put[-1][2]
        assert put[-1][2]["Content-Type"] == "text/csv"
        assert server.sent("POST /batches")[0][3] == {"upload_id": "upload_1", "name": "n", "config": {"max_tokens": 50}}

    @pytest.mark.parametrize("rows", ['[{"content": "a"}, "b"]', '{"items": [{"content": "a"}, "b"], "name": "own", "batch_size": 2}'])
    def test_large_json_file_is_uploaded_as_json_lines_with_its_own_options(
        self, server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: str
    ) -> None:
        """Headrace reads large JSON only line by line. Options of the command line come first."""
        monkeypatch.setattr(batch_files, "MAX_BODY_BYTES", 5)
        file = tmp_path / "rows.json"
        file.write_text(rows)
        link = {"upload_id": "upload_1", "url": f"{server.api_url}/storage", "headers": {"Content-Type": "application/x-ndjson"}}
        server.plan("POST /uploads", Answer(201, link))
        server.plan("PUT /storage", Answer(200))
        server.plan("POST /batches", Answer(202, batch("queued")))

        assert run("batch", "submit", str(file), "--name", "n") == 0

        data = server.sent("PUT /storage")[0][3]
        assert [json.loads(line) for line in data.splitlines()] == [{"content": "a"}, "b"]
        assert server.sent("POST /uploads")[0][3] == {"content_type": "application/x-ndjson", "size": len(data)}
        assert server.sent("POST /batches")[0][3] == {"upload_id": "upload_1", "name": "n", **({"batch_size": 2} if "own" in rows else {})}

    def test_long_template_from_a_file_is_sent_in_a_body(self, server: FakeServer, prompts: Path, tmp_path: Path) -> None:
        (tmp_path / "template").write_text("x" * 5_000 + "{{input}}")
        server.plan(
            "POST /uploads",
            Answer(201, {"upload_id": "upload_1", "url": f"{server.api_url}/storage", "headers": {"Content-Type": "text/csv"}}),
        )
        server.plan("PUT /storage", Answer(200))
        server.plan("POST /batches", Answer(202, batch("queued")))

        assert run("batch", "submit", str(prompts), "--template", f"@{tmp_path / 'template'}") == 0
        assert server.sent("POST /batches")[0][3]["prompt_template"].endswith("x{{input}}")

    def test_rejected_upload_is_not_retried(
        self, server: FakeServer, prompts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(batch_files, "MAX_BODY_BYTES", 20)
        server.plan(
            "POST /uploads", Answer(201, {"upload_id": "u", "url": f"{server.api_url}/storage", "headers": {"Content-Type": "text/csv"}})
        )
        server.plan("PUT /storage", Answer(403))

        assert run("batch", "submit", str(prompts)) == 4
        assert len(server.sent("PUT /storage")) == 1
        assert "storage answered 403" in capsys.readouterr().err

    def test_dry_run_prints_count_cost_and_first_rows(self, server: FakeServer, prompts: Path, capsys: pytest.CaptureFixture[str]) -> None:
        first = {
            "row": 0,
            "id": "a",
            "prompt": "Say\n\x1b[31mhi " + "x" * 100,
            "model": "m",
            "estimated_cost": "0.000100",
            "priority": "low",
        }
        estimate = {"dry_run": True, "count": 7, "estimated_cost": "0.01", "max_cost": "0.02", "currency": "USD", "items": [first]}
        server.plan("POST /batches", Answer(200, {**estimate, "estimated_from": 5, "estimated_duration_seconds": 90}))

        assert run("batch", "submit", str(prompts), "--dry-run") == 0

        seen = capsys.readouterr()
        assert server.queries[-1]["dry_run"] == "true"
        assert "about $0.0100, at most $0.0200" in seen.out
        assert "Say" in seen.out
        assert "\x1b" not in seen.out
        assert "x" * 80 not in seen.out
        assert "Nothing was submitted." in seen.err

    def test_json_option_prints_the_api_answer(self, server: FakeServer, prompts: Path, capsys: pytest.CaptureFixture[str]) -> None:
        server.plan("POST /batches", Answer(202, batch("queued")))

        assert run("batch", "submit", str(prompts), "--json") == 0
        assert json.loads(capsys.readouterr().out)["batch_id"] == BATCH

    def test_rejected_rows_are_printed_with_their_location(
        self, server: FakeServer, prompts: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        server.plan("POST /batches", error(400, "invalid_request", "No.", {"path": "line 3", "message": "has 2 fields"}))

        assert run("batch", "submit", str(prompts)) == 2
        assert "line 3: has 2 fields" in capsys.readouterr().err

    @pytest.mark.parametrize("wrong", ["empty", "binary", "glob", "missing"])
    def test_unusable_files_are_rejected_without_a_request(self, server: FakeServer, tmp_path: Path, wrong: str) -> None:
        (tmp_path / "empty").mkdir()
        (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
        (tmp_path / "glob").write_text("x")
        arguments = ("--glob", "*.sol") if wrong == "glob" else ()

        assert run("batch", "submit", str(tmp_path / wrong), *arguments) == 2
        assert not server.requests

    def test_monitor_option_watches_the_batch_until_it_ends(self, server: FakeServer, prompts: Path) -> None:
        server.plan("POST /batches", Answer(202, batch("queued")))
        server.plan(f"GET /batches/{BATCH}", Answer(200, batch("completed")))

        assert run("batch", "submit", str(prompts), "--monitor") == 0
        assert server.sent(f"GET /batches/{BATCH}")


class TestWatch:
    @pytest.mark.parametrize(("status", "code"), [("completed", 0), ("completed_with_failures", 1), ("failed", 1), ("cancelled", 3)])
    def test_watch_exit_code_follows_the_final_status(
        self, server: FakeServer, capsys: pytest.CaptureFixture[str], status: str, code: int
    ) -> None:
        running = Answer(200, batch(), {"ETag": '"v1"'})
        server.plan(f"GET /batches/{BATCH}", running, Answer(304), Answer(200, batch(status)))

        assert run("batch", "watch", BATCH) == code

        requests = server.sent(f"GET /batches/{BATCH}")
        assert [headers.get("If-None-Match") for _, _, headers, _ in requests] == [None, '"v1"', '"v1"']
        assert server.queries[-1] == {"wait": "20"}
        seen = capsys.readouterr()
        assert "processing | 1 completed, 1 failed, 1 processing, 1 waiting | of 4 | $0.0012" in seen.err
        assert status in seen.out

    def test_watch_json_prints_one_line_per_change(self, server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
        server.plan(f"GET /batches/{BATCH}", Answer(200, batch(), {"ETag": '"v1"'}), Answer(200, batch("completed")))

        assert run("batch", "watch", BATCH, "--json") == 0
        assert [json.loads(line)["status"] for line in capsys.readouterr().out.splitlines()] == ["processing", "completed"]

    def test_interrupted_watch_leaves_the_batch_running(
        self, server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def interrupt(_: float) -> None:
            raise KeyboardInterrupt

        server.plan(f"GET /batches/{BATCH}", Answer(200, batch(), {"ETag": '"v1"'}))
        monkeypatch.setattr("time.sleep", interrupt)

        assert run("batch", "watch", BATCH) == 130
        assert f"headrace batch watch {BATCH}" in capsys.readouterr().err

    def test_watch_draws_a_bar_on_a_terminal(
        self, server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        server.plan(f"GET /batches/{BATCH}", Answer(200, batch(), {"ETag": '"v1"'}), Answer(200, batch("completed")))
        monkeypatch.setattr(batch_screen, "_screen", lambda _: batch_screen.LiveBatch())

        assert run("batch", "watch", BATCH) == 0
        assert "completed" in capsys.readouterr().out

    def test_bar_segments_match_the_row_counts(self) -> None:
        bar = progress_bar(batch(), 40)

        assert bar.plain == "#" * 30 + "-" * 10 + "  50%"
        assert [(span.start, span.end, span.style) for span in bar.spans][:2] == [(0, 10, "green"), (10, 20, "red")]

    def test_remaining_time_is_shown_only_for_a_running_batch_with_an_estimate(self) -> None:
        from datetime import UTC, datetime

        now = datetime(2026, 1, 1, tzinfo=UTC)

        assert time_remaining(batch(estimated_completion_at="2026-01-01T00:02:00.000Z"), now) == "about 2 m 0 s"
        assert time_remaining(batch("completed", estimated_completion_at="2026-01-01T00:02:00.000Z"), now) is None
        assert time_remaining(batch(), now) is None


class TestExport:
    def test_export_writes_csv_to_stdout_by_default(self, server: FakeServer, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
        server.plan(f"GET /batches/{BATCH}/export", Answer(200, "id,output\r\na,hé\r\n"))

        assert run("batch", "export", BATCH) == 0
        assert capsysbinary.readouterr().out == "id,output\r\na,hé\r\n".encode()
        assert server.queries[-1] == {"format": "csv"}

    @pytest.mark.parametrize(("arguments", "kind"), [(("--json",), "json"), (("--format", "json"), "json"), (("--format", "csv"), "csv")])
    def test_export_requests_the_chosen_format(self, server: FakeServer, arguments: tuple[str, ...], kind: str) -> None:
        server.plan(f"GET /batches/{BATCH}/export", Answer(200, "{}"))

        assert run("batch", "export", BATCH, *arguments) == 0
        assert server.queries[-1] == {"format": kind}

    def test_export_follows_a_signed_link_without_the_key(self, server: FakeServer, tmp_path: Path) -> None:
        server.plan(f"GET /batches/{BATCH}/export", Answer(307, {}, {"Location": f"{server.api_url}/storage?sig=1"}))
        server.plan("GET /storage", Answer(200, "id\r\na\r\n"))

        assert run("batch", "export", BATCH, "-o", str(tmp_path / "answers.csv")) == 0

        [(_, _, headers, _)] = server.sent("GET /storage")
        assert "Authorization" not in headers
        assert server.sent(f"GET /batches/{BATCH}/export")[0][2]["Authorization"] == f"Bearer {KEY}"
        assert (tmp_path / "answers.csv").read_bytes() == b"id\r\na\r\n"

    def test_export_format_follows_the_file_suffix(self, server: FakeServer, tmp_path: Path) -> None:
        server.plan(f"GET /batches/{BATCH}/export", Answer(200, "{}"))

        assert run("batch", "export", BATCH, "-o", str(tmp_path / "answers.json")) == 0
        assert server.queries[-1] == {"format": "json"}

    def test_failed_export_keeps_the_existing_file_and_leaves_no_partial_one(self, server: FakeServer, tmp_path: Path) -> None:
        file = tmp_path / "answers.csv"
        file.write_text("before")
        server.plan(f"GET /batches/{BATCH}/export", Answer(307, {}, {"Location": f"{server.api_url}/storage"}))
        server.plan("GET /storage", Answer(403))

        assert run("batch", "export", BATCH, "-o", str(file)) == 4
        assert [path.name for path in tmp_path.glob("answers*")] == ["answers.csv"]
        assert file.read_text() == "before"

    def test_contradicting_export_formats_are_rejected(self, server: FakeServer) -> None:
        assert run("batch", "export", BATCH, "--json", "--format", "csv") == 2


class TestOtherCommands:
    def test_status_prints_counts_cost_and_failed_jobs(self, server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
        server.plan(f"GET /batches/{BATCH}", Answer(200, batch()))

        assert run("batch", "status", BATCH) == 0

        seen = capsys.readouterr().out
        assert "1 completed, 1 failed, 1 processing, 1 waiting" in seen
        assert "$0.0012" in seen
        assert "job_1" in seen

    def test_detailed_status_fetches_all_pages_of_rows(self, server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
        def rows(number: int) -> list[dict[str, Any]]:
            return [{"row": number, "id": f"r{number}", "job_id": "job_1", "status": "failed", "error": {"message": "No."}, "cost": "0.1"}]

        server.plan(
            f"GET /batches/{BATCH}",
            Answer(200, batch(data=rows(0), next_cursor="1")),
            Answer(200, batch(data=rows(1), next_cursor=None)),
        )

        assert run("batch", "status", BATCH, "--detailed") == 0

        seen = capsys.readouterr().out
        assert "r0" in seen
        assert "r1" in seen
        assert server.queries[-1] == {"detailed": "true", "cursor": "1"}

    def test_list_prints_batches_and_the_next_cursor(self, server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
        server.plan("GET /batches", Answer(200, {"data": [batch()], "next_cursor": "abc"}))

        assert run("batch", "list", "--limit", "5") == 0

        seen = capsys.readouterr()
        assert BATCH in seen.out
        assert "headrace batch list --cursor abc" in seen.err

    def test_empty_list_prints_a_note(self, server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
        server.plan("GET /batches", Answer(200, {"data": [], "next_cursor": None}))

        assert run("batch", "list") == 0
        assert "No batches found." in capsys.readouterr().err

    @pytest.mark.parametrize(("arguments", "body"), [((), None), (("--cancelled",), {"cancelled": True})])
    def test_retry_failed_posts_with_an_idempotency_key(self, server: FakeServer, arguments: tuple[str, ...], body: Any) -> None:
        server.plan(f"POST /batches/{BATCH}/retry-failed", Answer(202, batch()))

        assert run("batch", "retry-failed", BATCH, *arguments) == 0

        [(_, _, headers, sent)] = server.sent(f"POST /batches/{BATCH}/retry-failed")
        assert (sent, bool(headers["Idempotency-Key"])) == (body, True)

    def test_cancel_deletes_the_batch_and_prints_its_status(self, server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
        server.plan(f"DELETE /batches/{BATCH}", Answer(202, batch("cancelled")))

        assert run("batch", "cancel", BATCH) == 0
        assert "cancelled" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("command", "route"),
        [
            ("status", f"GET /batches/{BATCH}"),
            ("retry-failed", f"POST /batches/{BATCH}/retry-failed"),
            ("cancel", f"DELETE /batches/{BATCH}"),
        ],
    )
    def test_command_prints_json_with_the_json_option(
        self, server: FakeServer, capsys: pytest.CaptureFixture[str], command: str, route: str
    ) -> None:
        server.plan(route, Answer(200, batch()))

        assert run("batch", command, BATCH, "--json") == 0
        assert json.loads(capsys.readouterr().out)["batch_id"] == BATCH

    def test_unknown_batch_exits_2_with_the_message(self, server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
        server.plan("GET /batches/batch_x", error(404, "batch_not_found", "No batch batch_x here."))

        assert run("batch", "status", "batch_x") == 2
        assert "No batch batch_x here." in capsys.readouterr().err
