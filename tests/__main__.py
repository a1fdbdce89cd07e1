"""Run the tests in suites, three at a time: some compute for minutes, others mostly wait.

    python -m tests [--without SUITE]... [arguments for pytest]

The suites are taken in order by three lanes, so the long ones start first. Two of them have a laptop
cloud each, which uses about half of a processor. The second one runs in a copy of the checkout, since
a checkout has one cloud. Each suite prints its report when it ends.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

LANES = 3
ROOT = Path(__file__).resolve().parent.parent
LOAD = [
    f"tests/e2e/test_{name}.py"
    for name in ("soak", "fairness", "deploy_in_flight", "pauses", "two_tenants", "exactly_once", "generated_requests")
]
OTHER_E2E = sorted({f"tests/e2e/{path.name}" for path in (ROOT / "tests" / "e2e").glob("test_*.py")} - set(LOAD))
EVERY_CALL = "tests/faults/test_every_call.py"
OTHER_FAULTS = sorted({f"tests/faults/{path.name}" for path in (Path(__file__).parent / "faults").glob("test_*.py")} - {EVERY_CALL})
SUITES: dict[str, tuple[str, ...]] = {
    "cloud-load": tuple(LOAD),  # on a laptop cloud: many jobs at once
    "cloud": (*OTHER_E2E, "tests/browser"),  # on another one: one after the other
    "faults": (*OTHER_FAULTS, "tests/model"),
    "every-call": (EVERY_CALL,),
    "contract": ("tests/contract",),
    "fast": ("tests/test_architecture.py", "tests/unit", "tests/entrypoints", "tests/infra"),  # also run by `make check`
}
CLOUDS = ("cloud-load", "cloud")  # suites whose time is real: the others, which only compute, leave the processors to them
IN_COPY = ("cloud-load",)  # suites that run in a copy of the checkout
NOT_COPIED = (".git", ".venv", ".venv-cloud", ".local", "deployed", "__pycache__", ".*_cache", ".hypothesis", "*.egg-info")
LINKED = (".venv", ".venv-cloud")
INTERRUPTED = 130


class Run:
    """The suites that have not started, and the names of those that failed."""

    def __init__(self, suites: Sequence[str], arguments: Sequence[str]) -> None:
        self._left = list(suites)
        self._arguments = arguments
        self._lock = threading.Lock()
        self.failed: list[str] = []

    def work(self) -> None:
        """Run suites until none is left; three lanes do this at once."""
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
        cache = f"cache_dir={ROOT}/.pytest_cache/{suite}"  # otherwise one suite would overwrite the failures of another
        priority = [] if suite in CLOUDS else ["nice", "-n", "10"]
        command = [*priority, sys.executable, "-m", "pytest", *SUITES[suite], "-o", cache, *self._arguments]
        with _folder(suite) as folder:
            return subprocess.run(command, cwd=folder, stdout=report, stderr=subprocess.STDOUT, check=False).returncode


@contextmanager
def _folder(suite: str) -> Iterator[Path]:
    """The folder in which a suite runs: this checkout, or a copy of it that lasts as long."""
    if suite not in IN_COPY:
        yield ROOT
        return
    with tempfile.TemporaryDirectory(prefix="headrace-") as made:
        copy = Path(made) / "checkout"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*NOT_COPIED))
        for name in LINKED:
            (copy / name).symlink_to(ROOT / name)
        yield copy


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
