"""`headrace pause`, `resume` and `queues` against a fake server."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.unit.cli.server import JOB, Answer, FakeServer, error, run

BATCH = "batch_01J00000000000000000000000"
PAUSE = {
    "success": True,
    "pause_id": "pause_4039a3c336b79693ae313e74",
    "name": "type:export",
    "scope": {"tenant": "acme", "type": "export", "lane": None, "batch": None},
    "tenant": "acme",
    "by_operator": False,
    "by": "olga",
    "reason": "the disk is full",
    "paused_at": "2026-11-22T09:30:00.000Z",
    "until": None,
}


@pytest.mark.parametrize(
    ("arguments", "scope"),
    [
        (["all"], {}),
        (["all", "--tenant", "acme"], {"tenant": "acme"}),
        (["tenant:ac:me"], {"tenant": "ac:me"}),
        (["type:export"], {"type": "export"}),
        (["type:export", "--tenant", "acme"], {"tenant": "acme", "type": "export"}),
        (["lane:low"], {"lane": "low"}),
        (["queue:export:low"], {"type": "export", "lane": "low"}),
    ],
)
def test_pause_sends_the_scope_that_is_named(
    server: FakeServer, capsys: pytest.CaptureFixture[str], arguments: list[str], scope: dict[str, str]
) -> None:
    server.plan("POST /pauses", Answer(201, PAUSE))

    assert run("pause", *arguments, "--reason", "the disk is full") == 0

    assert server.sent("POST /pauses")[0][3] == {"scope": scope, "reason": "the disk is full"}
    shown = capsys.readouterr().out
    assert [word for word in ("type:export", "olga", "the disk is full", PAUSE["pause_id"]) if str(word) not in shown] == []


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["everything", "--reason", "x"], "no scope"),
        (["lane:fast", "--reason", "x"], "no scope"),
        (["queue:export", "--reason", "x"], "no scope"),
        (["type:", "--reason", "x"], "no scope"),
        (["tenant:a", "--tenant", "b", "--reason", "x"], "no scope"),
        (["type:export"], "--reason"),
        (["type:export", "--reason", "x", "--for", "soon"], "no duration"),
        (["type:export", "--reason", "x", "--for", "9999d"], "no duration"),
        (["type:export", "--reason", "x", "--for", "2h", "--until", "2026-11-22T09:30:00Z"], "give one"),
        ([str(PAUSE["pause_id"]), "--reason", "x"], "id of a pause"),
        ([JOB, "--replace"], "--replace"),
    ],
)
def test_what_cannot_be_paused_is_refused_before_a_request(
    server: FakeServer, capsys: pytest.CaptureFixture[str], arguments: list[str], part: str
) -> None:
    assert run("pause", *arguments) == 2
    assert part in capsys.readouterr().err
    assert server.requests == []


def test_the_end_of_a_pause_is_a_time(server: FakeServer) -> None:
    server.plan("POST /pauses", Answer(201, PAUSE), Answer(201, PAUSE))

    assert run("pause", "all", "--reason", "x", "--for", "90m", "--replace") == 0
    assert run("pause", "all", "--reason", "x", "--until", "2026-11-22T09:30:00Z") == 0

    first, second = (request[3] for request in server.sent("POST /pauses"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", first["until"])
    assert (first["replace"], second["until"]) == (True, "2026-11-22T09:30:00Z")


def test_a_job_and_a_batch_are_paused_and_resumed_by_id(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    paused = {"success": True, "job_id": JOB, "status": "held", "paused": {"by": "ann", "reason": "wait", "until": None}}
    server.plan(f"POST /jobs/{JOB}/pause", Answer(body=paused))
    server.plan(f"POST /jobs/{JOB}/resume", Answer(body={**paused, "status": "queued", "paused": None}))
    server.plan(f"POST /batches/{BATCH}/pause", Answer(201, {**PAUSE, "name": f"batch:{BATCH}"}))
    server.plan(f"POST /batches/{BATCH}/resume", Answer(body={"success": True, "batch_id": BATCH, "resumed": False, "ended": []}))

    assert run("pause", JOB, "--reason", "wait") == 0
    assert "ann" in capsys.readouterr().out
    assert run("resume", JOB) == run("pause", f"batch:{BATCH}") == run("resume", BATCH) == 0

    assert server.sent(f"POST /jobs/{JOB}/pause")[0][3] == {"reason": "wait"}
    assert "not paused" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("scope", "path", "body"),
    [
        ("all", "/queues/*/resume", {}),
        ("tenant:acme", "/queues/*/resume", {"tenant": "acme"}),
        ("type:export", "/queues/export/resume", {}),
        ("lane:low", "/queues/*:low/resume", {}),
        ("queue:export:low", "/queues/export:low/resume", {}),
    ],
)
def test_resume_names_the_queue(
    server: FakeServer, capsys: pytest.CaptureFixture[str], scope: str, path: str, body: dict[str, str]
) -> None:
    server.plan(f"POST {path}", Answer(body={"success": True, "name": "x", "resumed": True, "ended": [PAUSE]}))

    assert run("resume", scope) == 0

    assert server.sent(f"POST {path}")[0][3] == body
    assert "olga" in capsys.readouterr().out


def test_a_pause_is_ended_by_its_id(server: FakeServer) -> None:
    path = f"/pauses/{PAUSE['pause_id']}"
    server.plan(f"DELETE {path}", Answer(body=PAUSE))

    assert run("resume", str(PAUSE["pause_id"]), "--tenant", "acme", "--json") == 0

    assert server.queries[-1] == {"tenant": "acme"}


def test_a_conflict_says_who_has_paused(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.plan("POST /pauses", error(409, "already_paused", "type:export has been paused by olga since yesterday."))

    assert run("pause", "type:export", "--reason", "x") == 2
    assert "olga" in capsys.readouterr().err


def queue(name: str, **more: Any) -> dict[str, Any]:
    row = {"name": name, "queue": "low", "paused": False, "pause": None, "held_by_pause": None, "held_more": None, "messages": 7}
    return {**row, **more}


def test_queues_shows_what_is_paused_by_whom_and_why(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    hidden = {**PAUSE, "by": None, "reason": None, "by_operator": True, "tenant": None, "name": "lane:low"}
    rows = [queue("export:low", paused=True, pause=PAUSE, held_by_pause=100, held_more=True), queue("general:low")]
    for _ in range(3):
        server.plan("GET /queues", Answer(body={"data": rows, "next_cursor": None}))
        server.plan("GET /pauses", Answer(body={"data": [PAUSE, hidden], "next_cursor": None}))

    assert run("queues") == 0
    shown = capsys.readouterr().out
    assert [word for word in ("olga", "the disk is full", "the operator", "everybody", "100 or more") if word not in shown] == []
    assert "general:low" not in shown
    assert run("queues", "--all") == 0
    assert "7 in low" in capsys.readouterr().out
    assert run("queues", "--json") == 0
    assert json.loads(capsys.readouterr().out)["pauses"][0] == PAUSE


def test_queues_says_that_nothing_is_paused(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.plan("GET /queues", Answer(body={"data": [queue("general:low")], "next_cursor": None}))
    server.plan("GET /pauses", Answer(body={"data": [], "next_cursor": None}))

    assert run("queues") == 0
    assert "Nothing is paused" in capsys.readouterr().err
