"""Background processes that outlive the command that started them.

The system reuses pids, so a process is identified by pid and start time: only processes that were
started here are ever ended. Each leads its own session, so its descendants (the functions of the
emulator) can be found by it even after the leader has died.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

CLOCK_TOLERANCE = 2.0  # seconds; start times come from a clock that may be adjusted
GRACE = 8.0  # seconds between SIGTERM and SIGKILL


@dataclass(frozen=True)
class Started:
    """A process that was started here: its pid and start time (Unix seconds)."""

    name: str
    pid: int
    started_at: float

    def alive(self) -> bool:
        process = _process(self.pid)
        return process is not None and self._is_same(process)

    def session_processes(self) -> list[psutil.Process]:
        """The process and its descendants that still run, the leader first."""
        members = [process for process in psutil.process_iter() if self._in_session(process)]
        return sorted(members, key=lambda process: process.pid != self.pid)

    def _is_same(self, process: psutil.Process) -> bool:
        try:
            running = process.status() != psutil.STATUS_ZOMBIE
            return bool(running and abs(process.create_time() - self.started_at) < CLOCK_TOLERANCE)
        except psutil.NoSuchProcess:
            return False

    def _in_session(self, process: psutil.Process) -> bool:
        if process.pid == self.pid:
            return self._is_same(process)
        try:
            return os.getsid(process.pid) == self.pid and process.create_time() >= self.started_at - CLOCK_TOLERANCE
        except (ProcessLookupError, PermissionError, psutil.NoSuchProcess):
            return False


def start(name: str, command: list[str], environment: dict[str, str], folder: Path, log: Path) -> Started:
    """Start a process in its own session, with its output in `log`."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    process.returncode = 0  # it outlives this command; otherwise Popen warns that it is still running
    return Started(name, process.pid, psutil.Process(process.pid).create_time())


def end(started: list[Started]) -> int:
    """End these processes and their descendants with SIGTERM, then SIGKILL.

    Returns how many were ended.
    """
    ended: set[int] = set()
    for signal in (psutil.Process.terminate, psutil.Process.kill):
        running = [process for one in started for process in one.session_processes()]
        for process in running:
            with suppress(psutil.NoSuchProcess):
                signal(process)
        psutil.wait_procs(running, timeout=GRACE)
        ended |= {process.pid for process in running}
    return len(ended)


def _process(pid: int) -> psutil.Process | None:
    try:
        return psutil.Process(pid)
    except psutil.NoSuchProcess:
        return None
