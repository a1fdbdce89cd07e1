"""`python -m bench`: every measurement, or those that are named; a table to read, and `.local/bench.json` for programs.

Each measurement has a process of its own, so that none runs in the memory, the imports or the patches of another.
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

NAMES = ("throughput", "cost", "rows", "imports", "batch")
ROOT = Path(__file__).parent.parent
REPORT = ROOT / ".local" / "bench.json"


def main() -> int:
    """Run, show, write. 1 if an aim was missed."""
    options = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    options.add_argument("names", nargs="*", choices=[[], *NAMES], metavar="|".join(NAMES), help="all, if none is named")
    options.add_argument("--json", action="store_true", help="print one finding as JSON, and write no report")
    given = options.parse_args()
    names = given.names or NAMES
    if given.json:
        print(json.dumps([_module(name).measure() for name in names]))
        return 0
    began, found = time.monotonic(), []
    for name in names:
        found.append(_apart(name))
        print(f"{name}: {found[-1]['measures']}\n{_module(name).show(found[-1])}\n", flush=True)
    _write(found)
    print(f"{time.monotonic() - began:.0f} s; {REPORT.relative_to(ROOT)} has all of it")
    return 0 if all(one["met"] for one in found) else 1


def _apart(name: str) -> dict[str, Any]:
    """One measurement in a fresh process."""
    said = subprocess.run([sys.executable, "-m", "bench", name, "--json"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    (found,) = json.loads(said.stdout.strip().splitlines()[-1])
    return dict(found)


def _module(name: str) -> Any:
    return importlib.import_module(f"bench.{name}")


def _write(found: list[dict[str, Any]]) -> None:
    """Findings by name; those of earlier runs that were not measured now stay."""
    before = json.loads(REPORT.read_text()) if REPORT.exists() else {}
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps({**before, **{one["name"]: one for one in found}}, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
