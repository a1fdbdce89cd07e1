"""`headrace explain`, and why a job is held in `status` and `watch`, against a fake server."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cli.reducer import StateChanged
from cli.screen import PlainScreen, status_parts
from tests.unit.cli.server import JOB, Answer, FakeServer, error, run

STORY: dict[str, Any] = {
    "success": True,
    "job_id": JOB,
    "status": "held",
    "version": 4,
    "events": [
        {"at": "2026-11-22T09:30:00.125Z", "what": "submitted", "sentence": "ann submitted it as a job of the type general."},
        {
            "at": "2026-11-22T09:30:01.000Z",
            "what": "wait",
            "sentence": "It waited 12 s for the rate limit of gpt-4o (500 requests a minute).",
        },
        {"at": None, "what": "now", "sentence": "It is held: it waits for the rate limit of gpt-4o\x1b[2J."},
    ],
}
HELD: dict[str, Any] = {
    "job_id": JOB,
    "status": "held",
    "reason": "rate_limited",
    "cause": "rate:gpt-4o",
    "limit": {"kind": "requests", "value": 1_500, "model": "gpt-4o"},
    "estimated_start_at": "2026-11-22T09:31:00.000Z",
    "attempt": 0,
}


def test_explain_prints_the_sentences_with_their_times(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.plan(f"GET /jobs/{JOB}/explain", Answer(body=STORY))

    assert run("explain", JOB) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("2026-11-22 09:30:00")
    assert "ann submitted it" in lines[0]
    assert "(500 requests a minute)" in lines[1]
    assert "\x1b[2J" not in "".join(lines)


def test_explain_json_is_the_answer(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.plan(f"GET /jobs/{JOB}/explain", Answer(body=STORY))

    assert run("explain", JOB, "--json") == 0
    assert json.loads(capsys.readouterr().out) == STORY


def test_explain_of_an_unknown_job_exits_with_its_error(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.plan(f"GET /jobs/{JOB}/explain", error(404, "job_not_found", "No such job here."))

    assert run("explain", JOB) == 2
    assert "No such job here." in capsys.readouterr().err


def test_status_says_what_a_held_job_waits_for(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.plan(f"GET /jobs/{JOB}/status", Answer(body=HELD))

    assert run("status", JOB) == 0

    shown = capsys.readouterr().out
    assert [word for word in ("rate:gpt-4o", "1,500 requests a minute", "2026-11-22T09:31:00.000Z") if word not in shown] == []


def test_watch_says_why_a_job_is_held(capsys: pytest.CaptureFixture[str]) -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=40)).isoformat()
    frame = HELD | {"event": "held", "estimated_start_at": soon}
    PlainScreen()(StateChanged("held", frame))

    note = capsys.readouterr().err
    assert note.startswith("held, rate_limited, 1,500 requests a minute, starts in ")
    assert "1,500 requests a minute" in status_parts(frame, None, 1.0, "")
    assert "1,500 requests a minute" not in status_parts(frame | {"status": "processing"}, None, 1.0, "")


@pytest.mark.parametrize("limit", [None, 5, {}, {"kind": "requests", "value": "x"}, {"value": None}])
def test_a_limit_that_makes_no_sense_is_not_shown(limit: Any) -> None:
    parts = status_parts({"status": "held", "reason": "rate_limited", "limit": limit, "estimated_start_at": 5}, None, 1.0, "")

    assert parts == ["held", "rate_limited", "1.0 s"]
