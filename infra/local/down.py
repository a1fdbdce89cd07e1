"""`make down`: stop the processes that `up` started and remove their files."""

from __future__ import annotations

import shutil

from infra.chalice_config import CHALICE_FOLDER
from infra.local import stack_file
from infra.local.emulators import SCRATCH
from infra.local.processes import end


def down() -> int:
    """Stop the laptop cloud and delete its logs. Returns how many processes were ended."""
    ended = stop()
    for log in stack_file.FOLDER.glob("*.log"):
        log.unlink()
    if stack_file.FOLDER.exists() and not any(stack_file.FOLDER.iterdir()):
        stack_file.FOLDER.rmdir()
    return ended


def stop() -> int:
    """Stop the laptop cloud and keep its logs. Returns how many processes were ended."""
    ended = end(stack_file.processes(stack_file.read() or {}))
    for folder in SCRATCH:
        shutil.rmtree(folder, ignore_errors=True)
    (CHALICE_FOLDER / "deployed" / "local.json").unlink(missing_ok=True)  # it describes resources of the stopped emulator
    stack_file.remove()
    return ended
