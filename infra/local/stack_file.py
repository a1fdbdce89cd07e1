"""`.local/stack.json`: what runs, where it answers, and the keys to it; for people, scripts and `down` alike."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from infra.chalice_config import ROOT
from infra.local.processes import Started

FOLDER = ROOT / ".local"
FILE = FOLDER / "stack.json"


def read() -> dict[str, Any] | None:
    """The file's content; None if nothing was started or the file is broken beyond use."""
    try:
        content = json.loads(FILE.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return content if isinstance(content, dict) else None


def write(content: dict[str, Any]) -> None:
    """Written whole or not at all, and for the owner only: it holds keys."""
    FOLDER.mkdir(exist_ok=True)
    unfinished = FILE.with_suffix(".tmp")
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(content, file, indent=2)
        file.write("\n")
    unfinished.replace(FILE)


def remove() -> None:
    FILE.unlink(missing_ok=True)


def processes(content: dict[str, Any]) -> list[Started]:
    return [Started(**process) for process in content.get("pids", [])]


def describe(started: list[Started]) -> list[dict[str, Any]]:
    return [asdict(process) for process in started]


def log_file(name: str) -> Path:
    return FOLDER / f"{name}.log"
