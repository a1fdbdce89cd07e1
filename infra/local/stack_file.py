"""`.local/stack.json`: the processes, addresses and keys of the laptop cloud."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from infra.chalice_config import CHALICE_FOLDER, ROOT
from infra.local.processes import Started

FOLDER = ROOT / ".local"
FILE = FOLDER / "stack.json"
LOCK = CHALICE_FOLDER / "deployments" / "up.lock"  # not in FOLDER, which `down` removes


@contextmanager
def exclusive() -> Iterator[None]:
    """Let only one command at a time start or stop the laptop cloud of this checkout."""
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def read() -> dict[str, Any] | None:
    """The content of the file; None if it is missing or not valid."""
    try:
        content = json.loads(FILE.read_text())
    except (FileNotFoundError, ValueError, RecursionError):  # JSONDecodeError and UnicodeDecodeError are among them
        return None
    return content if isinstance(content, dict) else None


def write(content: dict[str, Any]) -> None:
    """Write the file atomically, readable by its owner only because it holds keys."""
    FOLDER.mkdir(exist_ok=True)
    unfinished = FILE.with_suffix(".tmp")
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(content, file, indent=2)
        file.write("\n")
    unfinished.replace(FILE)


def remove() -> None:
    FILE.unlink(missing_ok=True)


def processes(content: dict[str, Any]) -> list[Started]:
    """The processes that the file names. What is no process in it is left out: nothing is ended for a guess."""
    found, pids = list[Started](), content.get("pids")
    for process in pids if isinstance(pids, list) else []:
        match process:
            case {"name": str(name), "pid": int(pid), "started_at": int() | float() as started_at} if pid > 0:
                found.append(Started(name, pid, started_at))
    return found


def describe(started: list[Started]) -> list[dict[str, Any]]:
    return [asdict(process) for process in started]


def log_file(name: str) -> Path:
    return FOLDER / f"{name}.log"
