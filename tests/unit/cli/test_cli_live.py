"""`headrace watch` on a pseudo-terminal."""

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
    """Run a command in a terminal of 80 columns and return its exit code and all of its output."""
    env = {**os.environ, "HEADRACE_API_URL": server.api_url, "HEADRACE_KEY": KEY, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    master, slave = pty.openpty()
    # A test run in the background ignores SIGINT, and the child would inherit that.
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        child = subprocess.Popen([sys.executable, "-m", "cli", *arguments], cwd=ROOT, env=env, stdin=slave, stdout=slave, stderr=slave)
    finally:
        signal.signal(signal.SIGINT, previous)
    os.close(slave)
    drawn = b""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and (child.poll() is None or select.select([master], [], [], 0)[0]):
        if select.select([master], [], [], 0.1)[0]:
            try:
                drawn += os.read(master, 65536)
            except OSError:
                break  # the child has closed its end
        if interrupt_at is not None and interrupt_at.encode() in drawn:
            child.send_signal(signal.SIGINT)
            interrupt_at = None
    code = child.wait(5)
    os.close(master)
    return code, drawn.decode()


def test_watch_scrolls_text_above_a_status_line(server: FakeServer) -> None:
    code, drawn = on_a_terminal(server, "watch", JOB)

    assert code == 0
    assert '{"title": "one two three",' in drawn
    assert "processing | generation" in drawn
    assert "completed | gpt-4o-mini | 42 tokens" in drawn


def test_escape_sequences_of_the_model_are_replaced(server: FakeServer) -> None:
    _, drawn = on_a_terminal(server, "watch", JOB)

    assert "\ufffd[2J" in drawn
    assert "\x1b[2J" not in drawn


def test_interrupted_watch_exits_130_and_prints_the_next_command(server: FakeServer) -> None:
    server.pace = 0.5

    code, drawn = on_a_terminal(server, "watch", JOB, interrupt_at="processing")

    assert code == 130
    assert f"headrace watch {JOB}" in drawn
    assert "Traceback" not in drawn
