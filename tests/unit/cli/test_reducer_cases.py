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
from cli.watch import reconnect_delay
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


SPREAD = """
import { reconnectDelay } from "%s";
const delays = [];
for (let failures = 0; failures < 9; failures++) for (const random of [0, 0.5, 1]) delays.push(reconnectDelay(failures, random));
const own = new Set(Array.from({ length: 50 }, () => reconnectDelay(1)));
process.stdout.write(JSON.stringify({ delays, distinct: own.size }));
"""


def test_both_clients_spread_their_reconnects_alike() -> None:
    """Half of a delay is random: when all sockets of a stage close, their clients must not come back at once."""
    delays = [reconnect_delay(failures, part) for failures in range(9) for part in (0, 0.5, 1)]
    assert delays[:6] == [0.25, 0.375, 0.5, 0.5, 0.75, 1.0]
    assert (min(delays[-3:]), max(delays)) == (10.0, 20.0)
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed, so the JavaScript client cannot be run")

    script = SPREAD % JAVASCRIPT.with_name("reducer.mjs").as_uri()
    run = subprocess.run([node, "--input-type=module", "-e", script], capture_output=True, text=True, timeout=60, check=True)

    assert json.loads(run.stdout)["delays"] == delays
    assert json.loads(run.stdout)["distinct"] > 40


def test_case_names_are_unique() -> None:
    assert len({case["name"] for case in CASES}) == len(CASES)
