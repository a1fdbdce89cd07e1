"""The rules of a client as a table of cases that the Python and the JavaScript client both run.

A case is `{name, frames, asks, text, status, done}`: after all `frames` the client has sent exactly
these `asks` (attempt, offset) and holds `text` with `status`. The event `timer` is not a frame: it
means that the timer of the caller ran out.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cli.reducer import Resubscribe, TextAssembler
from tests.kit.paths import ROOT

FILE = Path(__file__).with_name("reducer_cases.json")
CASES = json.loads(FILE.read_text())
JAVASCRIPT = ROOT / "clients" / "js" / "run_cases.mjs"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_python_client_passes_the_case(case: dict[str, Any]) -> None:
    assembly = TextAssembler()

    asks = []
    for frame in case["frames"]:
        outcomes = assembly.resubscribe() if frame["event"] == "timer" else assembly.receive(frame)
        asks += [[o.attempt, o.offset] for o in outcomes if isinstance(o, Resubscribe)]

    seen = {"asks": asks, "text": assembly.text, "status": assembly.status, "done": assembly.done}
    assert seen == {key: case[key] for key in seen}


@pytest.fixture(scope="module")
def javascript() -> dict[str, Any]:
    """The results of the JavaScript client for all cases, from one run of node."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed, so the JavaScript client cannot be run")
    run = subprocess.run([node, str(JAVASCRIPT), str(FILE)], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    return {result["name"]: result for result in json.loads(run.stdout)}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_javascript_client_passes_the_case(case: dict[str, Any], javascript: dict[str, Any]) -> None:
    seen = javascript[case["name"]]

    assert seen == {key: case[key] for key in seen}


def test_case_names_are_unique() -> None:
    assert len({case["name"] for case in CASES}) == len(CASES)
