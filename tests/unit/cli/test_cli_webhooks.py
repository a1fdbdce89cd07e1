"""`headrace deliveries` against a fake server."""

from __future__ import annotations

import json

import pytest

from tests.unit.cli.server import JOB, Answer, FakeServer, run

DELIVERY = {
    "delivery_id": "dlv_1",
    "channel": "webhook",
    "address": "https://hooks.example.com/\x1b[2Jx",
    "event": "job.completed",
    "status": "pending",
    "attempts": [
        {"at": "2026-11-22T09:30:00.000Z", "duration_seconds": 0.2, "status_code": 500, "error": "the receiver answered 500"},
    ],
    "next_attempt_at": "2026-11-22T09:30:05.000Z",
}


def test_deliveries_prints_a_table(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """With the last error. Escape sequences in an address are replaced."""
    server.plan(f"GET /jobs/{JOB}/deliveries", Answer(body={"job_id": JOB, "data": [DELIVERY]}))

    assert run("deliveries", JOB) == 0

    shown = capsys.readouterr().out
    assert [word for word in ("dlv_1", "pending", "the receiver answered 500", "09:30:05") if word not in shown] == []
    assert "\x1b[2J" not in shown


def test_deliveries_without_entries_prints_a_note(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.plan(f"GET /jobs/{JOB}/deliveries", Answer(body={"job_id": JOB, "data": []}))

    assert run("deliveries", JOB) == 0
    assert "No deliveries so far." in capsys.readouterr().err


def test_retry_option_sends_the_delivery_again(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.plan(f"POST /jobs/{JOB}/deliveries/dlv_1/retry", Answer(202, DELIVERY))

    assert run("deliveries", JOB, "--retry", "dlv_1", "--json") == 0
    assert json.loads(capsys.readouterr().out)["delivery_id"] == "dlv_1"


def test_deliveries_of_a_batch_use_the_batch_routes(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.plan("GET /batches/batch_1/deliveries", Answer(body={"batch_id": "batch_1", "data": [{**DELIVERY, "event": "batch.completed"}]}))
    server.plan("POST /batches/batch_1/deliveries/dlv_1/retry", Answer(202, DELIVERY))

    assert run("deliveries", "batch_1") == run("deliveries", "batch_1", "--retry", "dlv_1") == 0
    assert "batch.completed" in capsys.readouterr().out
