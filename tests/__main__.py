"""All tests, in two runs beside each other: those that compute, and those that mostly wait for the laptop cloud or a browser.

python -m tests [arguments for pytest]
"""

from __future__ import annotations

import subprocess
import sys
import tempfile

WAITING = ("tests/e2e", "tests/browser")
CACHE = "cache_dir=.pytest_cache/waiting"  # so that neither run forgets what failed in the other


def main(arguments: list[str]) -> int:
    """The exit code of the run that failed, 0 if none did. The report of those that wait comes behind that of the others."""
    with tempfile.TemporaryFile("w+") as report:
        waiting = subprocess.Popen(_pytest(*WAITING, "-o", CACHE, *arguments), stdout=report, stderr=subprocess.STDOUT)
        try:
            computed = subprocess.run(_pytest("tests", *(f"--ignore={path}" for path in WAITING), *arguments), check=False).returncode
            sys.stdout.write("\n... and those that need the laptop cloud or a browser:\n\n")
            sys.stdout.flush()
            waited = waiting.wait()
        except KeyboardInterrupt:  # which a terminal sends to all three: they end what they have started
            computed = waited = waiting.wait()
        report.seek(0)
        sys.stdout.write(report.read())
        sys.stdout.flush()
    return computed or waited


def _pytest(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pytest", *arguments]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
