"""Ending processes: those that were started here and their descendants, and no others."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from infra.local.processes import Started, end, start

PARENT = """
import subprocess, sys, time
print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]).pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Started]:
    """A process with one child."""
    process = start("parent", [sys.executable, "-c", PARENT], dict(os.environ), tmp_path, tmp_path / "log")
    yield process
    end([process])


def child_of(tmp_path: Path) -> psutil.Process:
    """The child process, once its parent has printed its pid."""
    for _ in range(200):
        text = (tmp_path / "log").read_text()
        if text.endswith("\n"):
            return psutil.Process(int(text))
        time.sleep(0.05)
    raise AssertionError("the parent has printed no pid of a child")


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_ending_a_process_ends_its_children(started: Started, tmp_path: Path) -> None:
    child = child_of(tmp_path)

    ended = end([started])

    assert ended == 2
    assert not started.alive()
    assert gone(child)


def test_children_of_a_dead_process_are_ended(started: Started, tmp_path: Path) -> None:
    child = child_of(tmp_path)
    os.kill(started.pid, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(started.pid)], timeout=5)

    end([started])

    assert gone(child)


def test_process_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.local.processes.GRACE", 0.3)
    ignores_sigterm = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    process = start("ignores_sigterm", [sys.executable, "-c", ignores_sigterm], dict(os.environ), tmp_path, tmp_path / "log")
    while not (tmp_path / "log").read_text():
        time.sleep(0.02)

    end([process])

    assert not process.alive()


def test_process_with_a_reused_pid_is_not_ended(started: Started) -> None:
    """It has the same pid and another start time."""
    stranger = replace(started, started_at=started.started_at - 3600)

    assert not stranger.alive()
    assert end([stranger]) == 0
    assert started.alive()
