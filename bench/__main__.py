"""Run all or the named measurements, print a table of each and write `.local/bench.json`.

Each measurement runs in its own process, so that imports, caches and patches of one do not affect
another.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

NAMES = ("throughput", "cost", "rows", "imports", "batch", "readers", "contention", "gates", "waiting")
ROOT = Path(__file__).parent.parent
REPORT = ROOT / ".local" / "bench.json"


def main() -> int:
    """Run the measurements. Returns: the exit code; 1 if a target was missed."""
    options = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    options.add_argument("names", nargs="*", choices=[[], *NAMES], metavar="|".join(NAMES), help="default: all")
    options.add_argument("--json", action="store_true", help="print the findings as JSON and write no report")
    arguments = options.parse_args()
    names = arguments.names or NAMES
    if arguments.json:
        print(json.dumps([_module(name).measure() for name in names]))
        return 0
    started_at, findings = time.monotonic(), []
    for name in names:
        findings.append(_measure_in_process(name))
        print(f"{name}: {findings[-1]['measures']}\n{_module(name).show(findings[-1])}\n", flush=True)
    _write(findings)
    print(f"{time.monotonic() - started_at:.0f} s; all findings are in {REPORT.relative_to(ROOT)}")
    return 0 if all(finding["met"] for finding in findings) else 1


def _measure_in_process(name: str) -> dict[str, Any]:
    """Run one measurement in a new process."""
    process = subprocess.run([sys.executable, "-m", "bench", name, "--json"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    (finding,) = json.loads(process.stdout.strip().splitlines()[-1])
    return dict(finding)


def _module(name: str) -> Any:
    return importlib.import_module(f"bench.{name}")


def _write(findings: list[dict[str, Any]]) -> None:
    """Write the findings by name; findings of earlier runs stay unless they are replaced."""
    earlier = json.loads(REPORT.read_text()) if REPORT.exists() else {}
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps({**earlier, **{finding["name"]: finding for finding in findings}}, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
