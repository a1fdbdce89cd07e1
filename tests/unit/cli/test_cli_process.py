"""The command line as a process: encodings of terminals and pipes, streams that are closed, signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.kit.paths import ROOT
from tests.unit.cli.server import JOB, Answer, FakeServer

ODD = "Grüße € \U0001f600 \ud800"


def shell(script: str, stdin: bytes | None = None, **variables: str) -> tuple[int, bytes, str]:
    """Run a line of bash in which `headrace` is the command line; returns code, stdout and stderr."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    function = f'headrace() {{ "{sys.executable}" -m cli "$@"; }}\n'
    done = subprocess.run(["bash", "-c", function + script], cwd=ROOT, env=env, input=stdin, capture_output=True, check=False, timeout=60)
    err = done.stderr.decode("utf-8", "replace")
    assert "Traceback" not in err
    assert "Exception ignored" not in err
    return done.returncode, done.stdout, err


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp1252", "utf-16", "latin-1"])
def test_answer_can_be_printed_in_every_encoding(server: FakeServer, encoding: str) -> None:
    answer = {"job_id": JOB, "status": "completed", "output": ODD, "parsed": None}
    server.plan(f"GET /jobs/{JOB}/result", *[Answer(body=answer)] * 2)

    code, out, _ = shell(f"headrace result {JOB}; headrace result {JOB} --json | cat", PYTHONIOENCODING=encoding)

    shown = out.decode(encoding)
    assert code == 0
    assert ("Grüße" in shown) == (encoding != "ascii")
    assert "\\ud83d\\ude00" in shown or encoding in ("utf-8", "utf-16")


def test_prompt_is_utf8_in_every_locale(server: FakeServer) -> None:
    code, _, _ = shell("printf 'caf\\303\\251' | headrace submit; headrace submit $'caf\\303\\251'", LANG="C", LC_ALL="C")
    assert code == 0

    ascii_only = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    code, _, err = shell("printf 'caf\\303\\251' | headrace submit && headrace submit $'caf\\303\\251'", **ascii_only)
    assert code == 2  # this Python reads no argument as UTF-8, and guessing would change the prompt
    assert "not text in UTF-8" in err

    assert [request[3]["prompt"] for request in server.sent("POST /jobs")] == ["café"] * 3


def test_bytes_that_are_not_utf8_end_in_a_sentence_and_exit_code_2(server: FakeServer, tmp_path: Path) -> None:
    script = (
        "printf 'caf\\351' | headrace submit; echo $?; printf 'caf\\351' | PYTHONIOENCODING=utf-8 headrace submit; echo $?;"
        " headrace submit $'caf\\351'; echo $?; touch $'caf\\351.txt'; headrace batch submit .; echo $?"
    )

    _, out, err = shell(f"cd {tmp_path}; {script}")

    assert out.split() == [b"2"] * 4
    assert err.count("not text in UTF-8: byte 0xe9 at position 4") == 4
    assert server.requests == []


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("headrace whoami >&-", 0), ("headrace whoami >&- 2>&-", 0), ("headrace submit <&-", 2),
        ("headrace status no/id 2>&-", 2), ("headrace whoami >/dev/full", 2), ("headrace whoami --json >/dev/full", 2),
        ("headrace nonsense 2>/dev/full", 2), ("headrace status no/id --json 2>/dev/full", 2), ("headrace status none 2>/dev/full", 2),
        ("headrace submit </dev/null", 2), ("headrace submit --file /dev/zero", 2), ("headrace result " + JOB + " >&- <&- 2>&-", 0),
    ],
)  # fmt: skip
def test_streams_may_be_closed_or_full(server: FakeServer, script: str, code: int) -> None:
    assert shell(script)[0] == code


@pytest.mark.parametrize("script", ["headrace --help | head -1", "headrace list 2>&1 | true", "headrace nonsense 2>&1 | true"])
def test_reader_that_leaves_is_no_error(server: FakeServer, script: str) -> None:
    assert shell(f"set -o pipefail; {script}; exit $((${{PIPESTATUS[0]}} == 1))")[0] in (0, 1)


@pytest.mark.parametrize(
    "variables",
    [{"COLUMNS": "0"}, {"COLUMNS": "\u00b2"}, {"COLUMNS": "999999999"}, {"TERM": "dumb"}, {"HOME": ""}, {"TYPER_USE_RICH": "perhaps"}],
    ids=str,
)
def test_environment_may_be_odd(server: FakeServer, variables: dict[str, str]) -> None:
    code, _, err = shell("headrace list", **variables)

    assert code == 0 or "TYPER_USE_RICH" in variables
    assert code in (0, 2)
    assert (code == 0) == ("cannot work" not in err)


@pytest.mark.parametrize("after", [0.0, 0.05, 0.1, 0.2, 0.35, 0.6, 1.2])
def test_interrupt_at_any_moment_leaves_no_traceback(server: FakeServer, after: float) -> None:
    """From the first import of the command to a request that hangs."""
    server.pace = 5.0
    program = "import sys; sys.stderr.write('up '); sys.stderr.flush(); from cli.main import main; main()"
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background run ignores it, and the child would inherit that
    try:
        child = subprocess.Popen(
            [sys.executable, "-c", program, "submit", "Hi", "--wait"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    finally:
        signal.signal(signal.SIGINT, previous)
    assert child.stderr is not None
    assert child.stderr.read(3) == b"up "
    deadline = time.monotonic() + 20
    child_wait(after)
    while child.poll() is None and time.monotonic() < deadline:
        child.send_signal(signal.SIGINT)
        child_wait(0.02)
    _, err = child.communicate(timeout=20)

    if after:
        assert child.returncode == 130
        assert b"Traceback" not in err


def child_wait(seconds: float) -> None:
    """The child needs real time; `time.sleep` is replaced for the code under test."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        os.sched_yield()
