"""Generate `.chalice/config.json` and its policy files, whose format repeats everything per stage.

Chalice ignores `environment_variables` under a top-level `lambda_functions`, so all settings are in
the stage blocks. The `local` stage sets no architecture: its layer is built for the machine that
runs it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chalicelib.domain.queues import lanes
from infra.naming import API_STAGE, STAGES
from infra.policies import KINDS, policy

ROOT = Path(__file__).resolve().parent.parent
CHALICE_FOLDER = ROOT / ".chalice"


@dataclass(frozen=True)
class Function:
    """One Lambda function."""

    name: str  # in app.py
    kind: str  # which policy of infra/policies.py it has
    timeout: int  # seconds
    memory: int  # MB
    reserved: int | None = None  # concurrency reserved for it, and its maximum, in the stages of RESERVES


WORKERS = tuple(Function(f"worker_{lane}", "worker", lanes.WORKER_TIMEOUT, lanes.WORKER_MEMORY) for lane in lanes.LANES)
FUNCTIONS: tuple[Function, ...] = (
    Function("api_handler", "api", 30, 512, reserved=300),
    Function("websocket_connect", "websocket", 30, 256),
    Function("websocket_message", "websocket", 30, 256),
    Function("websocket_disconnect", "websocket", 30, 256),
    *WORKERS,
    Function("on_job_change", "on_job_change", 90, 1024, reserved=40),  # five invocations at a time for each of eight shards
    Function("count_jobs", "count_jobs", 60, 512, reserved=20),
    Function("run_tasks", "run_tasks", lanes.TASK_TIMEOUT, 512),
    Function("deliver", "deliver", lanes.TASK_TIMEOUT, 256),
    Function("sweep", "sweep", 55, 512, reserved=2),
)
RESERVES = ("prod",)  # reserved concurrency is taken from the account, and a new account often has ten executions in all

SETTINGS: dict[str, dict[str, str]] = {
    "local": {"HEADRACE_LOG_LEVEL": "INFO", "HEADRACE_ALLOWED_ORIGINS": "*"},
    "dev": {"HEADRACE_LOG_LEVEL": "INFO", "HEADRACE_ALLOWED_ORIGINS": ""},
    "prod": {"HEADRACE_LOG_LEVEL": "INFO", "HEADRACE_ALLOWED_ORIGINS": ""},
}
ARCHITECTURE = "arm64"  # 20 % cheaper than x86_64; some packages have arm64 wheels for Lambda only from Python 3.12 on
LOG_DAYS = {"local": 1, "dev": 14, "prod": 30}


def config() -> dict[str, Any]:
    """The content of `config.json`."""
    return {
        "version": "2.0",
        "app_name": "headrace",
        "automatic_layer": True,
        "autogen_policy": False,
        "api_gateway_stage": API_STAGE,
        "api_gateway_endpoint_type": "REGIONAL",
        "xray": False,
        "stages": {stage: _stage(stage) for stage in STAGES},
    }


def files() -> dict[Path, str]:
    """Every generated file with its content."""
    contents: dict[str, dict[str, Any]] = {"config.json": config()}
    for stage in STAGES:
        for kind in KINDS:
            contents[_policy_file(stage, kind)] = policy(kind, stage)
    return {CHALICE_FOLDER / name: json.dumps(content, indent=2) + "\n" for name, content in contents.items()}


def write() -> list[Path]:
    """Write the files that differ from their content and return their paths."""
    changed = []
    for path, text in files().items():
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            changed.append(path)
    return changed


def _stage(stage: str) -> dict[str, Any]:
    settings: dict[str, Any] = {} if stage == "local" else {"lambda_architecture": ARCHITECTURE}
    return settings | {
        "log_retention_in_days": LOG_DAYS[stage],
        "environment_variables": {"HEADRACE_STAGE": stage, **SETTINGS[stage]},
        "lambda_functions": {function.name: _function(function, stage) for function in FUNCTIONS},
    }


def _function(function: Function, stage: str) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "lambda_timeout": function.timeout,
        "lambda_memory_size": function.memory,
        "iam_policy_file": _policy_file(stage, function.kind),
    }
    if function.reserved is not None and stage in RESERVES:
        settings["reserved_concurrency"] = function.reserved
    return settings


def _policy_file(stage: str, kind: str) -> str:
    return f"policies/{stage}-{kind}.json"
