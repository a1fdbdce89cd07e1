"""`make demo` against a fake server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.api import Api
from cli.demo import REPLY, script_reply
from cli.target import Target
from tests.kit.paths import ROOT
from tests.unit.cli.server import JOB, KEY, Answer, FakeServer

REPORT = {
    "findings": [
        {"severity": "critical", "title": "Anybody can drain it", "location": "Vault.withdraw, lines 1-9"},
        {"severity": "low", "title": "No event", "location": "Vault.setFee"},
    ],
    "overall_risk": "critical",
    "summary": "Do not deploy it.",
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FakeServer]:
    """A fake server, with a `stack.json` in `tmp_path` that names it as API and as OpenAI mock."""
    with FakeServer(text=json.dumps(REPORT, indent=2), parsed=REPORT) as server:
        stack = {"api_url": server.api_url, "ws_url": server.ws_url, "openai_url": server.api_url, "tokens": {"user": KEY}}
        (tmp_path / ".local").mkdir()
        (tmp_path / ".local" / "stack.json").write_text(json.dumps(stack))
        yield server


def run(folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the demo like `make demo`, with its output in a pipe."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("OPENAI_API_KEY", "COLUMNS")}
    environment = {**inherited, "PYTHONPATH": str(ROOT), **env}
    command = [sys.executable, "-m", "cli.demo"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_demo_prints_text_findings_figures_and_next_steps(server: FakeServer, tmp_path: Path) -> None:
    done = run(tmp_path)

    assert (done.returncode, server.text in done.stdout) == (0, True)
    shown = ["Anybody can drain it", "overall risk  critical", "20 in, 42 out", "$0.0012", "0.6 s", "48 tokens per second", server.api_url]
    assert [piece for piece in [*shown, server.ws_url, f"headrace result {JOB}", "make down"] if piece not in done.stdout] == []
    assert "\x1b" not in done.stdout
    assert KEY not in done.stdout + done.stderr


def test_demo_submits_the_example_contract_with_high_priority(server: FakeServer, tmp_path: Path) -> None:
    run(tmp_path)

    body = server.sent("POST /jobs")[0][3]
    assert (body["job_type"], body["config"]) == ("security_analysis", {"priority": "high"})
    assert "contract" in body["prompt"]


def test_mock_is_scripted_with_the_example_reply(server: FakeServer, tmp_path: Path) -> None:
    run(tmp_path)

    first_token, reply = server.sent("POST /_llmock/scenario")[0][3]["behaviors"]
    assert first_token["type"] == "slow_first_token"
    assert (reply["type"], reply["text"]) == ("reply", REPLY.read_text())


def test_demo_with_an_openai_key_scripts_nothing(server: FakeServer, tmp_path: Path) -> None:
    done = run(tmp_path, OPENAI_API_KEY="sk-own")

    assert done.returncode == 0
    assert server.sent("POST /_llmock/scenario") == []


def test_pending_reply_is_not_queued_twice(server: FakeServer) -> None:
    server.plan("GET /_llmock/scenario", Answer(body={"pending": [{"type": "reply", "text": "same"}]}))
    openai = Api(Target(server.api_url, None))

    script_reply(openai, "same")

    openai.close()
    assert server.sent("POST /_llmock/scenario") == []


def test_demo_in_80_columns_wraps_all_but_copyable_lines(server: FakeServer, tmp_path: Path) -> None:
    done = run(tmp_path, COLUMNS="80")

    wide = [line for line in done.stdout.splitlines() if len(line) > 80]
    assert [line for line in wide if not line.startswith(("  ", "API ", "WebSocket ", "health "))] == []


def test_demo_without_a_laptop_cloud_exits_2_with_a_hint(tmp_path: Path) -> None:
    done = run(tmp_path)

    assert done.returncode == 2
    assert "make up" in done.stderr
