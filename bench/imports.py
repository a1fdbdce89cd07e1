"""Compare the functions' import time with that of their frameworks: `python -m bench imports`.

Each import runs in a new process, all from compiled bytecode; the variants take turns. For the API,
`import app` is measured; the modules that its first request imports (stores, queues) are in a row
of their own. For the worker, the adapters of its first job and the SDK's client are included. The
price list has its own row, because its library loads the prices of all providers.
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

VARIANTS = {
    "chalice, Logger, pynamodb": FRAMEWORKS,
    "API: import app": API,
    "API: import app and its first request": f"{API}; {STORES}",
    "chalice, Logger, pynamodb, openai": f"{FRAMEWORKS}; {SDK}",
    "worker: import app and its first job": f"{API}; {STORES}; {WORKER}; {SDK}",
    "worker, with the price list": f"{API}; {STORES}; {WORKER}; {SDK}; {PRICES}",
}
AIM = {"API relative to its frameworks": 1.25, "worker relative to its frameworks": 1.1}
RATIOS = {
    "API relative to its frameworks": ("API: import app", "chalice, Logger, pynamodb"),
    "worker relative to its frameworks": ("worker: import app and its first job", "chalice, Logger, pynamodb, openai"),
}


def measure() -> Finding:
    """Measure all variants in turn, each in a new process, and compare the medians."""
    samples: dict[str, list[float]] = {name: [] for name in VARIANTS}
    with tempfile.TemporaryDirectory() as bytecode:
        for number in range(ROUNDS + 1):
            for name, code in VARIANTS.items():
                seconds = _import_seconds(code, bytecode)
                if number:  # the first round compiles the bytecode
                    samples[name].append(seconds)
    medians = {name: median(times) for name, times in samples.items()}
    return finding(
        "imports",
        f"import in a new process, processor time, medians of {ROUNDS}",
        AIM,
        {aim: medians[ours] / medians[frameworks] for aim, (ours, frameworks) in RATIOS.items()},
        milliseconds={name: round(1000 * seconds) for name, seconds in medians.items()},
        best={name: round(1000 * min(times)) for name, times in samples.items()},
    )


def show(found: Finding) -> str:
    """Format the finding as a table."""
    rows: list[tuple[str, ...]] = [(name, f"{ms}", f"{found['best'][name]}") for name, ms in found["milliseconds"].items()]
    return "\n".join([table(rows, ("", "ms", "best")), verdicts(found)])


def _import_seconds(code: str, bytecode: str) -> float:
    """Return the processor time of the import; wall time would include other processes."""
    timed = f"import time; started_at = time.process_time()\n{code}\nprint(time.process_time() - started_at)"
    environment = {**os.environ, "AWS_DEFAULT_REGION": "us-east-1", "PYTHONPYCACHEPREFIX": bytecode}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    process = subprocess.run([sys.executable, "-c", timed], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return float(process.stdout)
