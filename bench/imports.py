"""How long the functions take to import, to what their frameworks take alone: `python -m bench imports`.

Each import in a fresh process, in turn, all from bytecode that was compiled beforehand. The API's function is `import app`: what it needs
for its first request (stores, queues) it imports then, and a line of its own says what that adds. The worker is that and the adapters of a
first job, the SDK's client included. The price list is apart: its library builds every provider's prices.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from bench.findings import Finding, finding, table, verdicts

ROUNDS = 11
ROOT = Path(__file__).parent.parent

FRAMEWORKS = "import chalice, pynamodb.models; from aws_lambda_powertools import Logger; Logger(service='x')"
SDK = "from openai import AsyncOpenAI; AsyncOpenAI(api_key='key').responses"
STORES = "import chalicelib.adapters.stores, chalicelib.adapters.aws.sqs, chalicelib.adapters.openai.prices"
WORKER = (
    "import chalicelib.adapters.openai.provider, chalicelib.adapters.aws.openai_credentials,"
    " chalicelib.adapters.aws.websocket_api, chalicelib.services.worker.process_messages"
)
API = "import app; from chalicelib.observability import logger; logger()"
PRICES = "chalicelib.adapters.openai.prices.GenaiPrices().of('gpt-4o-mini')"

WAYS = {
    "chalice, Logger, pynamodb": FRAMEWORKS,
    "API: import app": API,
    "API and its first request": f"{API}; {STORES}",
    "chalice, Logger, pynamodb, openai": f"{FRAMEWORKS}; {SDK}",
    "worker: app and its first job": f"{API}; {STORES}; {WORKER}; {SDK}",
    "... and the price list": f"{API}; {STORES}; {WORKER}; {SDK}; {PRICES}",
}
AIM = {"API, to its frameworks": 1.25, "worker, to its frameworks": 1.1}
RATIOS = {
    "API, to its frameworks": ("API: import app", "chalice, Logger, pynamodb"),
    "worker, to its frameworks": ("worker: app and its first job", "chalice, Logger, pynamodb, openai"),
}


def measure() -> Finding:
    """Medians of interleaved fresh processes."""
    seen: dict[str, list[float]] = {name: [] for name in WAYS}
    with tempfile.TemporaryDirectory() as bytecode:
        for turn in range(ROUNDS + 1):
            for name, code in WAYS.items():
                seconds = _fresh(code, bytecode)
                if turn:  # the first compiles
                    seen[name].append(seconds)
    took = {name: median(times) for name, times in seen.items()}
    return finding(
        "imports",
        f"import in a fresh process, processor seconds, medians of {ROUNDS}",
        AIM,
        {aim: took[ours] / took[theirs] for aim, (ours, theirs) in RATIOS.items()},
        milliseconds={name: round(1000 * seconds) for name, seconds in took.items()},
        best={name: round(1000 * min(times)) for name, times in seen.items()},
    )


def show(found: Finding) -> str:
    rows: list[tuple[str, ...]] = [(name, f"{took}", f"{found['best'][name]}") for name, took in found["milliseconds"].items()]
    return "\n".join([table(rows, ("", "ms", "best")), verdicts(found)])


def _fresh(code: str, bytecode: str) -> float:
    """Processor time of the import: with others at work on the machine, the wall's clock measures them as well."""
    timed = f"import time; began = time.process_time()\n{code}\nprint(time.process_time() - began)"
    environment = {**os.environ, "AWS_DEFAULT_REGION": "us-east-1", "PYTHONPYCACHEPREFIX": bytecode}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    said = subprocess.run([sys.executable, "-c", timed], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return float(said.stdout)
