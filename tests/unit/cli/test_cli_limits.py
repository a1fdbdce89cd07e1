"""`headrace limits` against a fake server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.cli.server import Answer, FakeServer, run

ACME: dict[str, Any] = {
    "tenant": "acme",
    "weight": 1.0,
    "fair_by": "tenant",
    "concurrency": 40,
    "running": 7,
    "user_concurrency": None,
    "user_running": None,
    "queued": {"total": 900, "urgent": None, "high": None, "normal": None, "low": 500},
    "shards": 1,
}


def test_limits_are_shown_with_their_use(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.plan("GET /limits", Answer(body={"success": True, "limits": ACME, "tenants": [ACME, ACME | {"tenant": "other"}]}))

    assert run("limits") == 0

    shown = capsys.readouterr().out
    assert [word for word in ("7 of 40", "total 900, low 500", "other") if word not in shown] == []
    assert shown.count("acme") == 1


def test_limits_json_is_the_answer(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.plan("GET /limits", Answer(body={"success": True, "limits": ACME, "tenants": None}))

    assert run("limits", "--json") == 0
    assert json.loads(capsys.readouterr().out)["limits"] == ACME


def test_set_sends_only_what_is_given(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.plan("PUT /limits/tenants/a%2Fb", Answer(body=ACME))

    assert (
        run("limits", "set", "a/b", "--concurrency", "40", "--user-concurrency", "none", "--queued", "low=500", "--queued", "total=none")
        == 0
    )

    (sent,) = server.sent("PUT /limits/tenants/a%2Fb")
    assert sent[3] == {"concurrency": 40, "user_concurrency": None, "queued": {"low": 500, "total": None}}
    assert "7 of 40" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [[], ["--concurrency", "many"], ["--queued", "low"], ["--queued", "low=x"]])
def test_set_refuses_what_makes_no_sense_before_it_sends(server: FakeServer, wrong: list[str]) -> None:
    assert run("limits", "set", "acme", *wrong) == 2
    assert server.requests == []
