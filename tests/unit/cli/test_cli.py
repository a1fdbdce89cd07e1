"""The commands for single jobs against a fake server: requests, output and exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest

from chalicelib.domain.validation.schema import problems
from chalicelib.entrypoints.http.requests import schemas
from tests.kit.paths import ROOT
from tests.unit.cli.server import JOB, KEY, Answer, FakeServer, error, run


def test_submit_sends_only_fields_that_the_api_knows(server: FakeServer) -> None:
    """All options at once, validated with the schema of the API."""
    given = "--model m --fallback n --max-tokens 99 --temperature 0.5 --system-prompt s --timeout 900 --durable --expires-in 60 --delay 5"
    given += " --cache-ttl 60"
    given += " --webhook-url https://hooks.example.com/ --notify slack:alerts --notify email:ops@acme.com"
    code = run(
        "submit", "Hi", *given.split(), "--type", "general", "--priority", "low", "--tag", "a", "--metadata", "n=1", "--dedupe-key", "d"
    )

    body = server.sent("POST /jobs")[0][3]
    assert code == 0
    assert problems(schemas.SUBMIT, body) == ()
    assert (body["webhook_url"], body["notify"]) == ("https://hooks.example.com/", ["slack:alerts", "email:ops@acme.com"])
    assert (body["expires_in"], body["delay"], body["config"]["durable"], body["config"]["timeout"]) == (60, 5, True, 900)
    assert body["config"]["cache"] == {"ttl": 60}


def test_cache_option_requests_the_default_ttl(server: FakeServer) -> None:
    assert run("submit", "Hi", "--cache") == 0

    assert server.sent("POST /jobs")[0][3]["config"]["cache"] is True


def test_submit_sends_a_replacement_character_as_an_escape(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The API refuses U+FFFD itself, which the gateway puts in the place of bytes that are not UTF-8."""
    bodies: list[bytes] = []
    original = httpx2.Client.request

    def keep(client: httpx2.Client, *arguments: Any, **more: Any) -> httpx2.Response:
        bodies.append(more.get("content") or b"")
        return original(client, *arguments, **more)

    monkeypatch.setattr(httpx2.Client, "request", keep)

    assert run("submit", "What is \ufffd?") == 0

    assert b"What is \\ufffd?" in bodies[0]
    assert server.sent("POST /jobs")[0][3]["prompt"] == "What is \ufffd?"


def test_submit_sends_only_the_given_options(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(
        "submit", "Hi", "--type", "general", "--priority", "high", "-o", "depth=3", "--metadata", "who=me", "--tag", "a", "--tag", "b"
    )

    _, _, headers, body = server.sent("POST /jobs")[0]
    assert code == 0
    assert body == {
        "prompt": "Hi",
        "job_type": "general",
        "options": {"depth": 3},
        "metadata": {"who": "me"},
        "tags": ["a", "b"],
        "config": {"priority": "high"},
    }
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert len(headers["Idempotency-Key"]) == 32
    assert JOB in capsys.readouterr().out


def test_submit_json_prints_the_api_answer(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("submit", "Hi", "--json") == 0
    assert json.loads(capsys.readouterr().out)["job_id"] == JOB


def test_submit_reads_the_prompt_from_a_file(server: FakeServer, tmp_path: Path) -> None:
    file = tmp_path / "prompt.txt"
    file.write_text("from a file \U0001f600", encoding="utf-8")

    assert run("submit", "--file", str(file)) == 0
    assert server.sent("POST /jobs")[0][3] == {"prompt": "from a file \U0001f600"}


def test_submit_and_estimate_send_the_input_file(server: FakeServer, tmp_path: Path) -> None:
    """`submit` and `estimate` take the same arguments."""
    file = tmp_path / "debate.json"
    file.write_text('{"turns": [{"speaker": "Ada", "text": "Sì"}]}', encoding="utf-8")
    given = ["--type", "transcript_analysis", "--input", str(file), "-o", 'analyses=["topics"]', "-o", "detailed=true"]

    codes = run("submit", *given), run("estimate", *given)

    bodies = [server.sent(f"POST {path}")[0][3] for path in ("/jobs", "/jobs/estimate")]
    assert codes == (0, 0)
    assert bodies[0] == bodies[1]
    assert bodies[0]["input"] == {"turns": [{"speaker": "Ada", "text": "Sì"}]}
    assert bodies[0]["options"] == {"analyses": ["topics"], "detailed": True}
    assert "prompt" not in bodies[0]


@pytest.mark.parametrize(
    ("content", "more", "message"), [("{", [], "is not JSON"), ("{}", ["a prompt"], "not both"), (None, [], "cannot be read")]
)
def test_invalid_input_file_is_rejected_before_submission(
    server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, more: list[str], message: str
) -> None:
    file = tmp_path / "input.json"
    if content is not None:
        file.write_text(content)

    assert run("submit", *more, "--input", str(file)) != 0
    assert message in capsys.readouterr().err
    assert server.sent("POST /jobs") == []


def test_result_of_the_fallback_is_marked(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    result = {"job_id": JOB, "status": "completed", "output": "{}", "parsed": {}, "model": "local", "fallback": True}
    server.plan(f"GET /jobs/{JOB}/result", Answer(body={"success": True, **result}))

    assert run("result", JOB) == 0
    assert "answered without OpenAI" in capsys.readouterr().err


def test_result_of_an_incomplete_job_says_what_helps(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    details = {"reason": "max_tokens", "message": "All tokens went into reasoning: raise `config.max_tokens`."}
    result = {"job_id": JOB, "status": "incomplete", "output": "", "model": "gpt-5-mini", "incomplete_details": details}
    server.plan(f"GET /jobs/{JOB}/result", Answer(body={"success": True, **result}))

    assert run("result", JOB) == 3
    assert "All tokens went into reasoning" in capsys.readouterr().err


def test_submit_wait_prints_only_the_result_to_stdout(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    code = run("submit", "Hi", "--wait")

    seen = capsys.readouterr()
    assert (code, seen.out) == (0, server.text + "\n")
    assert "42 tokens" in seen.err


def test_submit_watch_streams_over_one_websocket_subscription(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    code = run("submit", "Hi", "--watch")

    assert (code, capsys.readouterr().out) == (0, server.text + "\n")
    assert server.subscriptions == [{"action": "subscribe", "job_id": JOB}]


def test_lost_frame_is_requested_again(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.lose_frames = {1}

    assert run("watch", JOB) == 0
    assert capsys.readouterr().out == server.text + "\n"
    assert server.subscriptions[1] == {"action": "subscribe", "job_id": JOB, "attempt": 1, "offset": 3}


def test_dropped_websocket_is_reopened_at_the_position(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.drop_socket_after = 2

    assert run("watch", JOB) == 0
    assert capsys.readouterr().out == server.text + "\n"
    assert [s.get("offset") for s in server.subscriptions] == [None, 6]


def test_rejected_authorization_header_is_replaced_by_a_ticket(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.socket_refuses_header = True

    assert run("watch", JOB) == 0
    assert server.sent("POST /stream-tickets")[0][3] == {"jobs": [JOB]}
    assert len(server.subscriptions) == 1
    assert capsys.readouterr().out == server.text + "\n"


def test_watch_falls_back_to_sse_without_a_websocket(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEADRACE_WS_URL", "ws://127.0.0.1:9")

    assert run("watch", JOB) == 0
    seen = capsys.readouterr()
    assert seen.out == server.text + "\n"
    assert "server-sent events" in seen.err
    ids = [request[2].get("Last-Event-ID") for request in server.sent(f"GET /jobs/{JOB}/stream")]
    assert ids == [None, "1:4", "1:8", "1:12", f"1:{len(server.text)}"]


def test_watch_falls_back_to_polling_without_sse(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEADRACE_WS_URL", "ws://127.0.0.1:9")
    server.plan(f"GET /jobs/{JOB}/stream", *[Answer(204)] * 4)

    assert run("watch", JOB) == 0
    seen = capsys.readouterr()
    assert seen.out == server.text + "\n"
    assert "polling" in seen.err


def test_watch_json_prints_one_event_per_line(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("watch", JOB, "--json") == 0

    outcomes = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert "".join(o["text"] for o in outcomes if o["kind"] == "appended") == server.text
    assert outcomes[0] == {"kind": "listening", "way": "websocket"}
    assert outcomes[-1]["kind"] == "finished"


@pytest.mark.parametrize(("status", "code"), [("completed", 0), ("failed", 1), ("cancelled", 3), ("expired", 3), ("incomplete", 3)])
def test_exit_code_follows_the_final_status(server: FakeServer, status: str, code: int) -> None:
    server.status = status

    assert run("watch", JOB) == code
    assert run("result", JOB) == code
    assert run("status", JOB) == code
    assert run("submit", "Hi", "--wait") == code


def test_api_error_prints_message_details_and_request_id(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = {"path": "config.temperature", "message": "at most 2"}
    server.plan("POST /jobs", error(400, "invalid_request", "One field is wrong.", wrong))

    code = run("submit", "Hi", "--temperature", "9")

    seen = capsys.readouterr()
    assert code == 2
    assert seen.out == ""
    assert seen.err.splitlines() == ["One field is wrong.", "  config.temperature: at most 2", "  request req_9"]


def test_api_error_is_json_with_the_json_option(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("status", "job_nope", "--json") == 2
    assert json.loads(capsys.readouterr().err)["error"]["code"] == "job_not_found"


def test_invalid_key_exits_4_with_a_login_hint(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--key", "hr_wrong", "list") == 4
    assert "headrace login" in capsys.readouterr().err


def test_unreachable_api_exits_4_with_a_start_hint(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--api-url", "http://127.0.0.1:9/api", "health") == 4
    assert "make up" in capsys.readouterr().err


def test_busy_api_is_retried_with_the_same_idempotency_key(server: FakeServer) -> None:
    """The API answers a repeated POST with its first answer, so the retry creates no second job."""
    server.plan("POST /jobs", error(429, "rate_limited", "Later.", **{"Retry-After": "1"}), error(503, "unavailable", "Later."))

    assert run("submit", "Hi") == 0
    keys = [request[2]["Idempotency-Key"] for request in server.sent("POST /jobs")]
    assert len(keys) == 3
    assert len(set(keys)) == 1


def test_long_retry_after_is_reported_without_waiting(server: FakeServer) -> None:
    server.plan("GET /jobs", error(429, "rate_limited", "Tomorrow.", **{"Retry-After": "3600"}))

    assert run("list") == 4
    assert len(server.sent("GET /jobs")) == 1


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["list"], [JOB, "completed", "general", "high", "$0.0012", "ago"]),
        (["status", JOB], [JOB, "completed", "100%"]),
        (["progress", JOB], ["high finding", "A finding.", "40%", "generation", "1.5 s", "48 tokens per second"]),
        (["text", JOB], ["Hello \U0001f600 world"]),
        (["estimate", "Hi"], ["estimated cost", "0.001200"]),
        (["types"], ["general", "gpt-4o-mini", "Anything."]),
        (["health"], ["ok"]),
        (["whoami"], ["acme", "ann", "limits queued", "100"]),
        (["cancel", JOB], ["processing"]),
        (["retry", JOB], ["processing"]),
    ],
)
def test_command_prints_its_fields(server: FakeServer, capsys: pytest.CaptureFixture[str], arguments: list[str], shown: list[str]) -> None:
    assert run(*arguments) == 0

    out = capsys.readouterr().out
    assert [piece for piece in shown if piece not in out] == []


@pytest.mark.parametrize("command", [["list"], ["status", JOB], ["progress", JOB], ["text", JOB], ["result", JOB], ["types"], ["health"]])
def test_json_option_prints_one_json_object(server: FakeServer, capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    assert run(*command, "--json") == 0
    assert isinstance(json.loads(capsys.readouterr().out), dict)


def test_result_of_a_running_job_exits_3(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.pace = 1000.0

    assert run("result", JOB) == 3
    assert "Not finished" in capsys.readouterr().err


def test_login_is_stored_readable_by_its_owner_only_and_used(server: FakeServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HEADRACE_API_URL")
    monkeypatch.delenv("HEADRACE_KEY")
    monkeypatch.chdir(tmp_path)

    assert run("login", "--api-url", server.api_url + "/", "--key", KEY) == 0
    file = tmp_path / "headrace" / "login.json"
    assert file.stat().st_mode & 0o777 == 0o600
    assert run("whoami") == 0


def test_failed_login_is_not_stored(server: FakeServer, tmp_path: Path) -> None:
    assert run("login", "--api-url", server.api_url, "--key", "hr_wrong") == 4
    assert not (tmp_path / "headrace").exists()


def test_interrupted_watch_leaves_the_job_running_and_prints_the_next_command(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cli.watch.watch", interrupted)

    assert run("watch", JOB) == 130
    assert f"headrace watch {JOB}" in capsys.readouterr().err
    assert server.sent(f"POST /jobs/{JOB}/cancel") == []


@pytest.mark.parametrize("verb", ["text", "watch", "result"])
def test_closed_pipe_is_not_an_error(server: FakeServer, verb: str) -> None:
    server.text = "x" * 9_000
    command = f"set -o pipefail; {sys.executable} -m cli {verb} {JOB} | head -c 10"

    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, "x" * 10)
    assert "Traceback" not in done.stderr


def test_importing_the_cli_loads_no_heavy_package() -> None:
    """Heavy packages are imported only by the commands that need them."""
    program = "import sys, cli.main; print([name for name in ('httpx2', 'websockets', 'rich', 'chalicelib') if name in sys.modules])"

    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_status_shows_remaining_time_with_its_range(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    state = {"job_id": JOB, "status": "processing", "estimated_seconds_remaining": 12.4, "estimated_seconds_remaining_range": [4.0, 95.0]}
    server.plan(f"GET /jobs/{JOB}/status", Answer(body=state))

    assert run("status", JOB) == 0

    assert "12 s, between 4.0 s and 1 m 35 s" in capsys.readouterr().out


def test_cached_result_names_the_job_of_the_answer(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    cache = {"hit": True, "job_id": "job_other", "cached_at": "2026-11-22T09:30:00.125Z"}
    server.plan(f"GET /jobs/{JOB}/result", Answer(body={"job_id": JOB, "status": "completed", "output": "Hi", "cache": cache}))

    run("result", JOB)

    assert "cached answer of job_other" in capsys.readouterr().err
