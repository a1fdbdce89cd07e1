"""`headrace limits` against a fake server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.cli.server import Answer, FakeServer, run

ACME: dict[str, Any] = {
    "tenant": "acme",
    "weight": 1.0,
    "concurrency": 40,
    "running": 7,
    "user_concurrency": None,
    "user_running": None,
    "queued": {"total": 900, "urgent": None, "high": None, "normal": None, "low": 500},
    "shards": 16,
}


def test_limits_are_shown_with_their_use(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.plan("GET /limits", Answer(body={"success": True, "limits": ACME, "tenants": [ACME, ACME | {"tenant": "other"}]}))

    assert run("limits") == 0

    shown = capsys.readouterr().out
    assert [word for word in ("7 of 40", "total 900, low 500", "other", "shards", "16") if word not in shown] == []
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


def test_set_sends_the_shards(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.plan("PUT /limits/tenants/acme", Answer(body=ACME))

    assert run("limits", "set", "acme", "--shards", "16") == 0

    (sent,) = server.sent("PUT /limits/tenants/acme")
    assert sent[3] == {"shards": 16}
    assert "16" in capsys.readouterr().out


def test_set_shows_why_the_shards_are_refused(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    detail = {"path": "shards", "message": "must be a power of two from 4, which the tenant has now, to 16; it is 2"}
    error = {"code": "invalid_request", "message": "The request has invalid fields.", "details": [detail]}
    server.plan("PUT /limits/tenants/acme", Answer(400, body={"success": False, "error": error}))

    assert run("limits", "set", "acme", "--shards", "2") != 0
    assert "from 4, which the tenant has now" in " ".join(capsys.readouterr().err.split())


def test_limits_of_an_older_server_are_shown_without_shards(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    older = {name: value for name, value in ACME.items() if name != "shards"}
    server.plan("GET /limits", Answer(body={"success": True, "limits": older, "tenants": None}))

    assert run("limits") == 0
    assert "7 of 40" in capsys.readouterr().out


def test_set_shares_a_tenant_by_user_and_shows_it(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.plan("PUT /limits/tenants/acme", Answer(body=ACME | {"fair_by": "user"}))

    assert run("limits", "set", "acme", "--fair-by", "user") == 0

    (sent,) = server.sent("PUT /limits/tenants/acme")
    assert sent[3] == {"fair_by": "user"}
    assert "fair by" in (shown := capsys.readouterr().out)
    assert "user" in shown.splitlines()[-1]


@pytest.mark.parametrize("wrong", [[], ["--shards", "two"], ["--concurrency", "many"], ["--queued", "low"], ["--queued", "low=x"]])
def test_set_refuses_what_makes_no_sense_before_it_sends(server: FakeServer, wrong: list[str]) -> None:
    assert run("limits", "set", "acme", *wrong) == 2
    assert server.requests == []


WAITING = {"urgent": 1, "high": 0, "normal": 0, "low": 2, "others": 7, "by_tenant": None, "more": False}
GPT: dict[str, Any] = {
    "model": "gpt-4o-mini",
    "requests": 500,
    "tokens": 200_000,
    "configured": {"requests": 500, "tokens": None},
    "source": "header",
    "used": {"requests": 123, "tokens": 45_000},
    "blocked_until": None,
    "waiting": WAITING,
}
EXPORT: dict[str, Any] = {"job_type": "export", "per_minute": None, "concurrency": 3, "running": 2, "starts": None, "waiting": WAITING}


def test_limits_of_models_and_types_are_shown_with_use_and_who_waits(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    everywhere = GPT | {"model": "o3", "waiting": WAITING | {"by_tenant": {"acme": 3, "other": 4}, "more": True}}
    body = {"success": True, "limits": ACME, "tenants": None, "models": [GPT, everywhere], "types": [EXPORT]}
    server.plan("GET /limits", Answer(body=body))

    assert run("limits") == 0

    shown = capsys.readouterr().out
    words = ("123 of 500", "45000 of 200000", "header", "urgent 1, low 2", "7", "acme 3, other 4 or more", "export", "2 of 3")
    assert [word for word in words if word not in shown] == []


def test_set_model_sends_only_what_is_given(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.plan("PUT /limits/models/ft%3Aa%2Fb", Answer(body=GPT))

    assert run("limits", "set-model", "ft:a/b", "--requests", "500", "--tokens", "none") == 0

    (sent,) = server.sent("PUT /limits/models/ft%3Aa%2Fb")
    assert sent[3] == {"requests": 500, "tokens": None}
    assert "123 of 500" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [[], ["--requests", "many"], ["--tokens", "-5"]])
def test_set_model_refuses_what_makes_no_sense_before_it_sends(server: FakeServer, wrong: list[str]) -> None:
    assert run("limits", "set-model", "gpt-4o", *wrong) == 2
    assert server.requests == []
