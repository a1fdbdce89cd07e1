"""On a terminal the text scrolls above a status line, which is gone at the end; Ctrl-C leaves the job running."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.kit.paths import ROOT
from tests.unit.cli.server import JOB, KEY, FakeServer


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(text='{"title": "one two three",\n "x": "\x1b[2J"}', pace=0.05) as server:
        yield server


def on_a_terminal(server: FakeServer, *arguments: str, interrupt_at: str | None = None) -> tuple[int, str]:
    """Exit code and everything that was drawn, in a window of 80 columns."""
    env = {**os.environ, "HEADRACE_API_URL": server.api_url, "HEADRACE_KEY": KEY, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    master, slave = pty.openpty()
    ours = signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores it, and so would the child
    try:
        child = subprocess.Popen([sys.executable, "-m", "cli", *arguments], cwd=ROOT, env=env, stdin=slave, stdout=slave, stderr=slave)
    finally:
        signal.signal(signal.SIGINT, ours)
    os.close(slave)
    drawn = b""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and (child.poll() is None or select.select([master], [], [], 0)[0]):
        if select.select([master], [], [], 0.1)[0]:
            try:
                drawn += os.read(master, 65536)
            except OSError:
                break  # the other end was closed
        if interrupt_at is not None and interrupt_at.encode() in drawn:
            child.send_signal(signal.SIGINT)
            interrupt_at = None
    code = child.wait(5)
    os.close(master)
    return code, drawn.decode()


def test_text_scrolls_and_the_status_line_tells_how_far_it_is(server: FakeServer) -> None:
    code, drawn = on_a_terminal(server, "watch", JOB)

    assert code == 0
    assert '{"title": "one two three",' in drawn
    assert "processing | generation" in drawn
    assert "completed | gpt-4o-mini | 42 tokens" in drawn


def test_what_the_model_wrote_does_not_clear_the_screen(server: FakeServer) -> None:
    _, drawn = on_a_terminal(server, "watch", JOB)

    assert "\ufffd[2J" in drawn
    assert "\x1b[2J" not in drawn


def test_ctrl_c_leaves_the_job_running(server: FakeServer) -> None:
    server.pace = 0.5

    code, drawn = on_a_terminal(server, "watch", JOB, interrupt_at="processing")

    assert code == 130
    assert f"headrace watch {JOB}" in drawn
    assert "Traceback" not in drawn
