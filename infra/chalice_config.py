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

from chalicelib.domain.jobs.job import Status
from chalicelib.domain.queues import lanes
from infra.naming import API_STAGE, STAGES
from infra.policies import KINDS, policy

ROOT = Path(__file__).resolve().parent.parent
CHALICE_FOLDER = ROOT / ".chalice"


@dataclass(frozen=True)
class StreamReader:
    """How Lambda hands the change stream to a function."""

    filters: tuple[dict[str, Any], ...]  # patterns of the records that it gets; one of them has to match
    parallel: int = 1  # invocations at once for a shard; the changes of one job stay in order


@dataclass(frozen=True)
class Function:
    """One Lambda function."""

    name: str  # in app.py
    kind: str  # which policy of infra/policies.py it has
    timeout: int  # seconds
    memory: int  # MB
    reserved: int | None = None  # concurrency reserved for it, and its maximum, in the stages of RESERVES
    reports: bool = False  # it reads a queue, and its answer names the messages that it did not process
    stream: StreamReader | None = None  # it reads the change stream, like this
    loops: str | None = None  # why it sends messages that come back to it: Lambda must not take that for an endless loop
    every_minute: bool = False  # a schedule invokes it each minute

    def aws_name(self, stage: str) -> str:
        """The name that Chalice gives to the function."""
        return f"headrace-{stage}" if self.name == "api_handler" else f"headrace-{stage}-{self.name}"


def scheduled(name: str, memory: int) -> Function:
    """A function that a schedule invokes each minute; two runs overlap only if one is invoked late."""
    return Function(name, name, SCHEDULE_TIMEOUT, memory, reserved=2, every_minute=True)


SCHEDULE_TIMEOUT = 55  # seconds
# What the readers of the change stream must see. Each checks the records again, because a mapping
# that is changed takes a while to filter.
INSERTED, CHANGED = ["INSERT"], ["MODIFY"]
NO_REMOVALS = ({"eventName": INSERTED + CHANGED},)
# Nobody can have subscribed to a job that is just being created, and it has no dependents.
CHANGES_AND_ENDS = (
    {"eventName": CHANGED},
    {"eventName": INSERTED, "dynamodb": {"NewImage": {"status": {"S": sorted(status for status in Status if status.is_terminal)}}}},
)

WORKERS = tuple(
    Function(
        queue.function,
        "work" if queue is lanes.WORK else "worker",
        lanes.WORKER_TIMEOUT,
        queue.memory,
        reports=True,
        loops="a job that must wait, or that is run alone, is sent to the same queue again",
    )
    for queue in lanes.JOB_QUEUES.values()
)
FUNCTIONS: tuple[Function, ...] = (
    Function("api_handler", "api", 30, 512, reserved=300),
    Function("websocket_connect", "websocket", 30, 512, reserved=40),  # AWS lets in 500 a second, each for less than 0.08 s
    Function("websocket_message", "websocket", 30, 256),
    Function("websocket_disconnect", "websocket", 30, 256),
    *WORKERS,
    Function("on_job_change", "on_job_change", 90, 1024, reserved=40, stream=StreamReader(CHANGES_AND_ENDS, parallel=5)),  # eight shards
    Function("count_jobs", "count_jobs", 60, 512, reserved=20, stream=StreamReader(NO_REMOVALS, parallel=2)),
    Function(
        "run_tasks",
        "run_tasks",
        lanes.TASK_TIMEOUT,
        512,
        reports=True,
        loops="batches and bulk operations are advanced, and many dependents are released, one message after the other",
    ),
    Function(
        "run_scheduler",
        "run_scheduler",
        lanes.TASK_TIMEOUT,
        1024,  # it queries lines and sends wake-ups, hundreds a second
        reports=True,
        loops="a loop sends the message that wakes the next one, and jobs that it releases may be held again",
    ),
    Function(
        "deliver",
        "deliver",
        lanes.TASK_TIMEOUT,
        256,
        reports=True,
        loops="a delivery that failed, or is not yet due, is sent to its queue again",
    ),
    scheduled("sweep", 512),
    scheduled("sweep_lines", 1024),
    scheduled("sweep_deliveries", 1792),  # a whole vCPU: 3 ms for each delivery
    scheduled("sweep_job_ends", 1024),
    scheduled("sweep_batches", 512),
    scheduled("sweep_bulk_operations", 512),
)
BY_NAME = {function.name: function for function in FUNCTIONS}
RESERVES = ("prod",)  # reserved concurrency is taken from the account, and a new account often has ten executions in all

SETTINGS: dict[str, dict[str, str]] = {
    "local": {"HEADRACE_LOG_LEVEL": "INFO", "HEADRACE_ALLOWED_ORIGINS": "*"},
    "dev": {"HEADRACE_LOG_LEVEL": "INFO", "HEADRACE_ALLOWED_ORIGINS": ""},
    "prod": {"HEADRACE_LOG_LEVEL": "INFO", "HEADRACE_ALLOWED_ORIGINS": ""},
}
ARCHITECTURE = "arm64"  # 20 % cheaper than x86_64; some packages have arm64 wheels for Lambda only from Python 3.12 on
LOG_DAYS = {"local": 1, "dev": 14, "prod": 30}
ALARM_EMAIL = {"local": "", "dev": "", "prod": ""}  # whom the alarms of a stage are mailed to; SNS asks the address for its consent


@dataclass(frozen=True)
class Throttle:
    """What API Gateway lets in: requests a second, and how many at once."""

    rate: int
    burst: int


# An account and region has 10,000 requests a second in a bucket of 5,000, which all stages, REST,
# WebSocket and every frame to a socket share. In `prod` 6,000 a second are left to the frames,
# whoever floods the two APIs. The bursts stay below what the reserved functions can take.
REST_THROTTLE = {"local": Throttle(1_000, 1_000), "dev": Throttle(200, 200), "prod": Throttle(2_500, 1_500)}
WEBSOCKET_THROTTLE = {"local": Throttle(1_000, 1_000), "dev": Throttle(200, 200), "prod": Throttle(1_500, 1_000)}


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
    if function.reports:
        settings["environment_variables"] = {"HEADRACE_REPORT_BATCH_FAILURES": "true"}
    return settings


def _policy_file(stage: str, kind: str) -> str:
    return f"policies/{stage}-{kind}.json"
