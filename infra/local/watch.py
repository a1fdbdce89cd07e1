"""`make watch`: update the laptop cloud whenever a file changes that it depends on."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from infra.chalice_config import ROOT
from infra.local.fingerprint import sources

CHECK_INTERVAL = 0.5  # between two checks of the files
QUIET_CHECKS = 2  # checks without another change before a deployment begins: editors and `git` write many files at once
MAX_SHOWN = 5  # file names

Stamps = dict[Path, tuple[int, int]]


def stamps(root: Path) -> Stamps:
    """Modification time and size of each source file. Files that vanish meanwhile are left out."""
    found: Stamps = {}
    for path in sources(root):
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        found[path] = status.st_mtime_ns, status.st_size
    return found


class Changes:
    """Detects changed source files."""

    def __init__(self, root: Path = ROOT, sleep: Callable[[float], None] = time.sleep) -> None:
        self._root, self._sleep = root, sleep
        self._seen = stamps(root)

    def wait(self) -> list[Path]:
        """Wait for changes that have settled and return the changed, added and removed files."""
        latest, quiet = self._seen, 0
        while quiet < QUIET_CHECKS or latest == self._seen:
            self._sleep(CHECK_INTERVAL)
            now = stamps(self._root)
            quiet = quiet + 1 if now == latest else 0
            latest = now
        before, self._seen = self._seen, latest
        return sorted(path.relative_to(self._root) for path in before.keys() | latest.keys() if before.get(path) != latest.get(path))


def watch(root: Path = ROOT, sleep: Callable[[float], None] = time.sleep) -> None:
    """Deploy now and after each change, until Ctrl-C.

    After a failed deployment, wait for the next change.
    """
    changes = Changes(root, sleep)
    try:
        _up(root)
        while True:
            print("Watching app.py, chalicelib, infra and requirements.txt. Ctrl-C stops.", flush=True)
            print(f"Changed: {format_paths(changes.wait())}", flush=True)
            _up(root)
    except KeyboardInterrupt:
        print("\nNo longer watching. The laptop cloud keeps running; `make down` stops it.", flush=True)


def format_paths(paths: list[Path]) -> str:
    more = f" and {len(paths) - MAX_SHOWN} more" if len(paths) > MAX_SHOWN else ""
    return ", ".join(map(str, paths[:MAX_SHOWN])) + more


def _up(root: Path) -> None:
    """Run `make up` in a new process: this one has old versions of tables and policies loaded."""
    subprocess.run([sys.executable, "-m", "infra", "up"], cwd=root, check=False)
