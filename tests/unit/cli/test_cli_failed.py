"""`headrace failed`, `headrace bulk` and `headrace update` against a fake server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.cli.server import JOB, Answer, FakeServer, error, run

BULK: dict[str, Any] = {
    "success": True,
    "bulk_id": "bulk_1",
    "action": "retry",
    "status": "completed",
    "matched": 2,
    "done": 2,
    "skipped": 0,
    "failed": 0,
    "not_found": 0,
    "problems": [],
}


def page(**changes: Any) -> Answer:
    failure = {"code": "stream_cut", "message": "OpenAI's stream was cut \x1b[31m.", "suggestion": "Retry it."}
    row = {"job_id": JOB, "job_type": "general", "finished_at": "2026-01-01T00:00:00.000Z", "error": failure}
    return Answer(body={"data": [row], "next_cursor": None, "dead_letters": {"high": 3, "low": 0}, **changes})


def test_failed_prints_jobs_errors_and_dead_letters(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.plan("GET /failed-jobs", page(next_cursor="abc"))

    assert run("failed", "--type", "general", "--error", "stream_cut") == 0

    seen = capsys.readouterr()
    assert JOB in seen.out
    assert "stream_cut" in seen.out
    assert "Retry it." in seen.out
    assert "\x1b" not in seen.out
    assert "Dead letters: high 3." in seen.err
    assert "headrace failed --cursor abc" in seen.err


def test_failed_without_jobs_prints_a_note(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.plan("GET /failed-jobs", page(data=[], dead_letters=None))

    assert run("failed") == 0
    assert capsys.readouterr().err.strip() == "No failed jobs found."


def test_failed_json_prints_the_api_answer(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.plan("GET /failed-jobs", page())

    assert run("failed", "--json") == 0
    assert json.loads(capsys.readouterr().out)["data"][0]["job_id"] == JOB


@pytest.mark.parametrize(
    ("arguments", "body"),
    [
        ((JOB, "job_2"), {"ids": [JOB, "job_2"]}),
        (("--all",), {"all": True}),
        (
            ("--all", "--type", "general", "--error", "timeout", "--dry-run"),
            {"all": True, "type": "general", "error_code": "timeout", "dry_run": True},
        ),
    ],
)
def test_retry_sends_the_selected_jobs(server: FakeServer, arguments: tuple[str, ...], body: Any) -> None:
    server.plan("POST /failed-jobs/retry", Answer(200, BULK))

    assert run("failed", "retry", *arguments) == 0

    [(_, _, headers, sent)] = server.sent("POST /failed-jobs/retry")
    assert sent == body
    assert headers["Idempotency-Key"]


def test_running_bulk_operation_prints_the_command_for_its_progress(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.plan("POST /failed-jobs/retry", Answer(202, {**BULK, "status": "running"}))
    server.plan("GET /bulk/bulk_1", Answer(200, BULK))

    assert run("failed", "retry", "--all") == 0
    assert "headrace bulk bulk_1" in capsys.readouterr().err
    assert run("bulk", "bulk_1") == 0
    assert "completed" in capsys.readouterr().out


def test_retry_of_a_skipped_job_exits_1(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    problem = {"job_id": JOB, "code": "job_not_retryable"}
    server.plan("POST /failed-jobs/retry", Answer(200, {**BULK, "done": 0, "skipped": 1, "problems": [problem]}))

    assert run("failed", "retry", JOB) == 1
    assert f"{JOB}: job_not_retryable" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [("retry",), ("retry", JOB, "--all"), ("retry", JOB, "--error", "x"), ("purge",), ("purge", "--error", "x")],
    ids=" ".join,
)
def test_ambiguous_selection_is_rejected_without_a_request(server: FakeServer, arguments: tuple[str, ...]) -> None:
    assert run("failed", *arguments) == 2
    assert server.requests == []


def test_purge_needs_force_or_dry_run(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.plan(
        "DELETE /failed-jobs", Answer(200, {**BULK, "action": "delete"}), Answer(200, {"dry_run": True, "matched": 7, "more": True})
    )

    assert run("failed", "purge", "--force", "--error", "x") == 0
    assert run("failed", "purge", "--dry-run") == 0

    assert "7 or more" in capsys.readouterr().out
    assert len(server.sent("DELETE /failed-jobs")) == 2


def test_delete_prints_whether_it_is_complete(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.plan(
        f"DELETE /failed-jobs/{JOB}",
        Answer(200, {"job_id": JOB, "deleted": True}),
        Answer(202, {"job_id": JOB, "deleted": False, "bulk_id": "bulk_1"}),
        error(409, "job_not_deletable", "This job is queued."),
    )

    assert [run("failed", "delete", JOB) for _ in range(3)] == [0, 0, 2]
    seen = capsys.readouterr()
    assert "in progress" in seen.out
    assert "bulk_1" in seen.out
    assert "This job is queued." in seen.err


def test_redrive_prints_the_counts_of_each_lane(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    lanes = {"high": {"redriven": 4, "dropped": 5, "kept": 6}}
    server.plan("POST /failed-jobs/redrive", Answer(200, {"lanes": lanes, "more": True}))

    assert run("failed", "redrive", "--lane", "high") == 0

    seen = capsys.readouterr()
    assert server.sent("POST /failed-jobs/redrive")[0][3] == {"lane": "high"}
    assert seen.out.split()[-4:] == ["high", "4", "5", "6"]
    assert "run it again" in seen.err


@pytest.mark.parametrize("command", ["update", "move"])
def test_update_sends_only_the_given_changes(server: FakeServer, capsys: pytest.CaptureFixture[str], command: str) -> None:
    """`move` is a hidden alias."""
    server.plan(f"PATCH /jobs/{JOB}", Answer(200, {"job_id": JOB, "status": "queued", "priority": "urgent"}))

    assert run(command, JOB, "--delay", "0", "--priority", "urgent") == 0

    assert server.sent(f"PATCH /jobs/{JOB}")[0][3] == {"delay": 0.0, "priority": "urgent"}
    assert "urgent" in capsys.readouterr().out


def test_update_without_a_change_is_rejected_without_a_request(server: FakeServer) -> None:
    assert run("update", JOB) == 2
    assert server.requests == []
