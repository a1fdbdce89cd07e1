"""All tests, in two runs beside each other: the faults and the model, which compute for minutes, and all others, which often wait.

python -m tests [arguments for pytest]
"""

from __future__ import annotations

import subprocess
import sys
import tempfile

COMPUTING = ("tests/faults", "tests/model")
CACHE = "cache_dir=.pytest_cache/computing"  # so that neither run forgets what failed in the other


def main(arguments: list[str]) -> int:
    """The exit code of the run that failed, 0 if none did. The report of the faults comes behind that of the others."""
    with tempfile.TemporaryFile("w+") as report:
        computing = subprocess.Popen(_pytest(*COMPUTING, "-o", CACHE, *arguments), stdout=report, stderr=subprocess.STDOUT)
        try:
            others = subprocess.run(_pytest("tests", *(f"--ignore={path}" for path in COMPUTING), *arguments), check=False).returncode
            sys.stdout.write("\n... and the faults and the model:\n\n")
            sys.stdout.flush()
            computed = computing.wait()
        except KeyboardInterrupt:  # which a terminal sends to all three: they end what they have started
            others = computed = computing.wait()
        report.seek(0)
        sys.stdout.write(report.read())
        sys.stdout.flush()
    return others or computed


def _pytest(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pytest", *arguments]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
