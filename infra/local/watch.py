"""`make watch`: bring the laptop cloud up to date whenever something that it is made of changes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from infra.chalice_config import ROOT
from infra.local.fingerprint import sources

EVERY_SECONDS = 0.5  # between two looks at the files
QUIET_LOOKS = 2  # without another change, before a deployment begins: editors and `git` write many files at once
SHOWN = 5  # names of files

Stamps = dict[Path, tuple[int, int]]


def stamps(root: Path) -> Stamps:
    """When each source was changed, and its size. A file that vanishes meanwhile is not there."""
    found: Stamps = {}
    for path in sources(root):
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        found[path] = status.st_mtime_ns, status.st_size
    return found


class Changes:
    """What has changed since the last answer."""

    def __init__(self, root: Path = ROOT, sleep: Callable[[float], None] = time.sleep) -> None:
        self._root, self._sleep = root, sleep
        self._seen = stamps(root)

    def wait(self) -> list[Path]:
        """The files that were changed, added or removed, once there were some and nothing has changed for a moment."""
        latest, quiet = self._seen, 0
        while quiet < QUIET_LOOKS or latest == self._seen:
            self._sleep(EVERY_SECONDS)
            now = stamps(self._root)
            quiet = quiet + 1 if now == latest else 0
            latest = now
        before, self._seen = self._seen, latest
        return sorted(path.relative_to(self._root) for path in before.keys() | latest.keys() if before.get(path) != latest.get(path))


def watch(root: Path = ROOT, sleep: Callable[[float], None] = time.sleep) -> None:
    """Deploy at once, and after each change, until Ctrl-C. A deployment that fails says why, and the next change tries again."""
    changes = Changes(root, sleep)
    try:
        _up(root)
        while True:
            print("Watching app.py, chalicelib, infra and requirements.txt. Ctrl-C ends it.", flush=True)
            print(f"Changed: {told(changes.wait())}", flush=True)
            _up(root)
    except KeyboardInterrupt:
        print("\nNo longer watching. The laptop cloud goes on; `make down` ends it.", flush=True)


def told(paths: list[Path]) -> str:
    more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
    return ", ".join(map(str, paths[:SHOWN])) + more


def _up(root: Path) -> None:
    """What `make up` does, in a process of its own: this one has loaded the tables and policies as they were when it began."""
    subprocess.run([sys.executable, "-m", "infra", "up"], cwd=root, check=False)
