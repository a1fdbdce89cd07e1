"""Background processes that outlive the command that started them, and are ended by nobody but us.

A pid alone proves nothing, since the system reuses it: a process is ours only if it also began when we said it did. Each one leads a
session of its own, so what it spawned (the emulator's functions) is found by that session, even after its leader died.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

CLOCK_TOLERANCE = 2.0  # seconds; systems derive start times from a clock that may be adjusted
GRACE = 8.0  # seconds between asking a process to end and ending it


@dataclass(frozen=True)
class Started:
    """A process that we started: its pid and when it began, in Unix time."""

    name: str
    pid: int
    began: float

    def alive(self) -> bool:
        process = _process(self.pid)
        return process is not None and self._is_ours(process)

    def family(self) -> list[psutil.Process]:
        """What is left of the process and its descendants, its leader first."""
        members = [process for process in psutil.process_iter() if self._in_session(process)]
        return sorted(members, key=lambda process: process.pid != self.pid)

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            running = process.status() != psutil.STATUS_ZOMBIE
            return bool(running and abs(process.create_time() - self.began) < CLOCK_TOLERANCE)
        except psutil.NoSuchProcess:
            return False

    def _in_session(self, process: psutil.Process) -> bool:
        if process.pid == self.pid:
            return self._is_ours(process)
        try:
            return os.getsid(process.pid) == self.pid and process.create_time() >= self.began - CLOCK_TOLERANCE
        except (ProcessLookupError, PermissionError, psutil.NoSuchProcess):
            return False


def start(name: str, command: list[str], environment: dict[str, str], folder: Path, log: Path) -> Started:
    """Start a process in a session of its own, writing to `log`."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    process.returncode = 0  # disowned: it outlives this command, which therefore does not wait for it
    return Started(name, process.pid, psutil.Process(process.pid).create_time())


def end(started: list[Started]) -> int:
    """End these processes and all that they spawned; answers how many there were. First they are asked, then made to."""
    ended: set[int] = set()
    for signal in (psutil.Process.terminate, psutil.Process.kill):
        family = [process for one in started for process in one.family()]
        for process in family:
            with suppress(psutil.NoSuchProcess):
                signal(process)
        psutil.wait_procs(family, timeout=GRACE)
        ended |= {process.pid for process in family}
    return len(ended)


def _process(pid: int) -> psutil.Process | None:
    try:
        return psutil.Process(pid)
    except psutil.NoSuchProcess:
        return None
