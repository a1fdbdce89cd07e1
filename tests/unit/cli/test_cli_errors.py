"""What the command line says about answers that are not the API's, and how it ends when it is interrupted while it speaks."""

from __future__ import annotations

import json
from typing import Any

import pytest
from websockets.sync.server import ServerConnection

from tests.unit.cli.server import JOB, KEY, Answer, FakeServer, run


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, "<html>Log in to the Wi-Fi</html>", {"Content-Type": "text/html"}),
        Answer(404, "<html>nginx</html>", {"Content-Type": "text/html"}),
        Answer(403, {"message": "Forbidden"}, {"Content-Type": "application/json"}),
        Answer(502, "Bad gateway"),
        Answer(200, "[" * 100_000),
        Answer(200, "[1, 2]"),
        Answer(200, '{"tenant": NaN}'),
        Answer(200, '{"tenant": "ac'),
        Answer(200, "9" * 5_000),
        Answer(200, "{}", {"Content-Encoding": "gzip"}),
        Answer(302, "", {"Location": "/api/me"}),
        Answer(302, "", {"Location": "ftp://elsewhere"}),
    ],
    ids=lambda answer: f"{answer.status} {str(answer.body)[:20]}",
)
def test_answer_that_is_not_the_apis_is_one_sentence_and_exit_code_4(
    server: FakeServer, capsys: pytest.CaptureFixture[str], answer: Answer
) -> None:
    server.plan("GET /me", *[answer] * 100)

    assert run("whoami") == 4
    shown = capsys.readouterr().err
    assert server.api_url.rsplit("/", 1)[0] in shown
    assert "Is this the address of the API" in shown
    assert run("whoami", "--json") == 4
    assert json.loads(capsys.readouterr().err)["error"]["code"] == "unreachable"


@pytest.mark.parametrize("body", [{}, {"job_id": JOB}, {"job_id": JOB, "status": {}}, {"job_id": [], "status": 5, "stages": 7}])
@pytest.mark.parametrize("command", ["status", "progress", "result", "cancel", "graph"])
def test_answer_of_another_shape_is_never_a_failed_job(
    server: FakeServer, capsys: pytest.CaptureFixture[str], command: str, body: dict[str, Any]
) -> None:
    path = {"status": "/status", "progress": "/progress", "result": "/result", "cancel": "/cancel", "graph": "/graph"}[command]
    server.plan(f"{'POST' if command == 'cancel' else 'GET'} /jobs/{JOB}{path}", Answer(body=body))

    assert run(command, JOB) in (0, 3, 4)
    assert "Traceback" not in capsys.readouterr().err


def test_text_is_not_taken_for_markup(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """A bracket or a smiley in a prompt or name is shown as it is."""
    items = [{"row": 1, "id": "[/x]", "prompt": "[bold]a[/bold] :smile: \x1b[2J [/]"}]
    server.plan("POST /batches", Answer(body={"dry_run": True, "count": 1, "items": items}))
    server.plan(f"GET /jobs/{JOB}/status", Answer(body={"job_id": JOB, "status": "queued", "reason": "[/red] :x:"}))

    assert run("batch", "submit", __file__, "--dry-run") == 0
    assert "[bold]a[/bold] :smile: \ufffd[2J [/]" in capsys.readouterr().out
    assert run("status", JOB) == 0
    assert "[/red] :x:" in capsys.readouterr().out


@pytest.mark.parametrize(
    "frames",
    [
        ["[]", "null", "nonsense"],
        [json.dumps({"event": "tokens", "job_id": JOB, "attempt": 1, "offset": "0", "text": "x"})],
        [json.dumps({"event": "tokens", "job_id": JOB, "attempt": 1, "offset": 0})],
        [json.dumps({"event": "progress", "job_id": JOB, "attempt": 1, "version": "9", "status": 5})],
        ["[" * 50_000],
    ],
    ids=range(5),
)
def test_garbage_on_a_websocket_does_not_end_the_watch(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], frames: list[str]
) -> None:
    class Garbage(FakeServer):
        def socket(self, connection: ServerConnection) -> None:
            connection.recv()
            for frame in frames:
                connection.send(frame)

    with Garbage() as garbage:
        monkeypatch.setenv("HEADRACE_API_URL", garbage.api_url)

        assert run("submit", "Hi", "--watch") == 0
        assert capsys.readouterr().out == garbage.text + "\n"


@pytest.mark.parametrize("place", ["cli.output.print_error", "cli.error_handling._flush"])
def test_interrupt_while_an_error_is_printed_ends_with_130(monkeypatch: pytest.MonkeyPatch, server: FakeServer, place: str) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(place, interrupt)

    assert run("status", "no/id") == 130


def test_key_is_in_no_output_of_any_command(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["whoami"], ["health"], ["list"], ["submit", "Hi"], ["result", JOB], ["watch", JOB], ["--help"], ["nonsense"]):
        run(*arguments)
        run(*arguments, "--json")

    assert KEY not in "".join(capsys.readouterr())
