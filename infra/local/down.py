"""`make down`: end what `up` started, by pid and start time, and remove what it left."""

from __future__ import annotations

import shutil

from infra.chalice_config import CHALICE_FOLDER
from infra.local import stack_file
from infra.local.emulators import SCRATCH
from infra.local.processes import end


def down() -> int:
    """End the laptop cloud; answers how many processes there were. Without one there is nothing to do."""
    ended = stop()
    for log in stack_file.FOLDER.glob("*.log"):
        log.unlink()
    if stack_file.FOLDER.exists() and not any(stack_file.FOLDER.iterdir()):
        stack_file.FOLDER.rmdir()
    return ended


def stop() -> int:
    """The same, but the logs stay."""
    ended = end(stack_file.processes(stack_file.read() or {}))
    for folder in SCRATCH:
        shutil.rmtree(folder, ignore_errors=True)
    (CHALICE_FOLDER / "deployed" / "local.json").unlink(missing_ok=True)  # it tells of an emulator that is gone
    stack_file.remove()
    return ended
