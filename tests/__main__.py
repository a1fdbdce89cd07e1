"""Run the tests in suites, two at a time: some compute for minutes, others mostly wait.

    python -m tests [--without SUITE]... [arguments for pytest]

The suites are taken in order by two lanes, so the long ones start first. Each suite prints its
report when it ends.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO

LANES = 2
EVERY_CALL = "tests/faults/test_every_call.py"
OTHER_FAULTS = sorted({f"tests/faults/{path.name}" for path in (Path(__file__).parent / "faults").glob("test_*.py")} - {EVERY_CALL})
SUITES: dict[str, tuple[str, ...]] = {
    "cloud": ("tests/e2e", "tests/browser"),  # on the laptop cloud: mostly waits
    "every-call": (EVERY_CALL,),
    "faults": (*OTHER_FAULTS, "tests/model"),
    "contract": ("tests/contract",),
    "fast": ("tests/test_architecture.py", "tests/unit", "tests/entrypoints", "tests/infra"),  # also run by `make check`
}
INTERRUPTED = 130


class Run:
    """The suites that have not started, and the names of those that failed."""

    def __init__(self, suites: Sequence[str], arguments: Sequence[str]) -> None:
        self._left = list(suites)
        self._arguments = arguments
        self._lock = threading.Lock()
        self.failed: list[str] = []

    def work(self) -> None:
        """Run suites until none is left; two lanes do this at once."""
        while True:
            with self._lock:
                if not self._left:
                    return
                suite = self._left.pop(0)
                print(f"... {suite}: {' '.join(SUITES[suite])}", flush=True)
            with tempfile.TemporaryFile() as report:
                code = self._run(suite, report)
                with self._lock:
                    if code:
                        self.failed.append(suite)
                    report.seek(0)
                    sys.stdout.write(f"\n=== {suite}\n\n{report.read().decode(errors='replace')}")
                    sys.stdout.flush()

    def stop(self) -> None:
        """Take no more suites.

        A terminal sends Ctrl-C to the running ones as well, and they end what they have started.
        """
        with self._lock:
            self._left.clear()

    def _run(self, suite: str, report: IO[bytes]) -> int:
        cache = f"cache_dir=.pytest_cache/{suite}"  # otherwise one suite would overwrite the failures of another
        command = [sys.executable, "-m", "pytest", *SUITES[suite], "-o", cache, *self._arguments]
        return subprocess.run(command, stdout=report, stderr=subprocess.STDOUT, check=False).returncode


def main(arguments: list[str]) -> int:
    """Run the suites. Return the exit code: 0 if every suite passed."""
    suites = list(SUITES)
    while arguments[:1] == ["--without"]:
        suites.remove(arguments[1])
        arguments = arguments[2:]
    run = Run(suites, arguments)
    lanes = [threading.Thread(target=run.work) for _ in range(LANES)]
    for lane in lanes:
        lane.start()
    try:
        for lane in lanes:
            lane.join()
    except KeyboardInterrupt:
        run.stop()
        for lane in lanes:
            lane.join()
        return INTERRUPTED
    if run.failed:
        print(f"\nfailed: {', '.join(run.failed)}")
    return int(bool(run.failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
