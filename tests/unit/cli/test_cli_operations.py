"""`headrace health` and `headrace circuits` against a fake server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.cli.server import Answer, FakeServer, error, run

OPEN = {
    "model": "ft:gpt-4o-mini:acme/x",
    "state": "open",
    "reason": "provider_quota_exhausted",
    "forced": False,
    "failures": 1,
    "trips": 2,
    "until": "2026-11-22T09:30:00.000Z",
}


def system_health(status: str) -> dict[str, Any]:
    parts = {"openai": {"status": "degraded"}, "change_stream": {"status": "healthy"}}
    return {"status": status, "parts": parts, "issues": ["The circuit is open."], "recommendations": ["Add credit."]}


@pytest.mark.parametrize(("status", "code"), [("healthy", 0), ("degraded", 0), ("unhealthy", 1)])
def test_health_prints_each_component_and_exits_1_if_unhealthy(
    server: FakeServer, capsys: pytest.CaptureFixture[str], status: str, code: int
) -> None:
    """Each component with its issues and recommendations.

    Only `unhealthy` needs an operator, so only it exits with 1.
    """
    server.system = system_health(status)

    assert run("health") == code

    shown = capsys.readouterr().out
    assert [word for word in ("ok", status, "openai", "change stream", "The circuit is open.", "Add credit.") if word not in shown] == []


def test_health_without_a_key_checks_only_the_api(
    server: FakeServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HEADRACE_KEY")

    assert run("health", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"success": True, "status": "ok"}
    assert server.sent("GET /health/system") == []


def test_health_json_includes_the_system(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.system = system_health("unhealthy")

    assert run("health", "--json") == 1
    assert json.loads(capsys.readouterr().out)["system"] == server.system


def test_circuits_prints_a_table(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.circuits = [OPEN, {"model": "kept", "state": "open", "reason": "moving", "forced": True, "until": None}]

    assert run("circuits") == 0

    shown = capsys.readouterr().out
    assert [word for word in (OPEN["model"], "open", "provider_quota_exhausted", OPEN["until"]) if str(word) not in shown] == []
    assert "closed by hand" in next(line for line in shown.splitlines() if line.startswith("kept"))


def test_circuits_without_entries_prints_a_note(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("circuits") == 0
    assert "closed" in capsys.readouterr().err
    assert run("circuits", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"data": [], "next_cursor": None}


@pytest.mark.parametrize(
    ("verb", "options", "body"), [("open", ["--reason", "moving"], {"reason": "moving"}), ("open", [], {}), ("close", [], {})]
)
def test_circuit_is_opened_and_closed_by_command(
    server: FakeServer, capsys: pytest.CaptureFixture[str], verb: str, options: list[str], body: Any
) -> None:
    """The model name is percent-encoded in the path."""
    path = f"/circuits/ft%3Agpt-4o-mini%3Aacme%2Fx/{verb}"
    server.plan(f"POST {path}", Answer(body={"success": True, **OPEN}))

    assert run("circuits", verb, str(OPEN["model"]), *options) == 0

    assert server.sent(f"POST {path}")[0][3] == body
    assert str(OPEN["model"]) in capsys.readouterr().out


def test_forbidden_circuit_change_exits_4(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.plan("POST /circuits/m/open", error(403, "forbidden", "This needs the role admin; this key is a user."))

    assert run("circuits", "open", "m", "--json") == 4
    assert json.loads(capsys.readouterr().err)["error"]["code"] == "forbidden"


def test_fallback_models_are_sent(server: FakeServer) -> None:
    assert run("submit", "Hi", "--model", "a", "--fallback", "b", "--fallback", "c") == 0

    assert server.sent("POST /jobs")[0][3]["config"] == {"model": "a", "fallback_models": ["b", "c"]}
