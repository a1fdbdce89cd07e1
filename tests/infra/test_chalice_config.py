"""The generated Chalice configuration and IAM policies."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from fnmatch import fnmatch
from types import SimpleNamespace
from typing import Any, cast

import boto3
import pytest
from botocore.stub import Stubber

from chalicelib.domain.queues import lanes
from infra import chalice_config
from infra.chalice_config import ROOT
from infra.cloud import Cloud
from infra.concurrency import account_concurrency, concurrency_problem
from infra.naming import STAGES
from infra.policies import KINDS, policy

SERVICES = {"dynamodb", "execute-api", "logs", "s3", "secretsmanager", "ses", "sqs"}


def stage_block(stage: str) -> dict[str, Any]:
    block: dict[str, Any] = chalice_config.config()["stages"][stage]
    return block


def statements() -> list[tuple[str, str, dict[str, Any]]]:
    return [(stage, kind, statement) for stage in STAGES for kind in KINDS for statement in policy(kind, stage)["Statement"]]


def test_generated_files_are_up_to_date() -> None:
    """`python -m infra chalice-files` updates them."""
    outdated = [path.name for path, text in chalice_config.files().items() if not path.exists() or path.read_text() != text]

    assert outdated == []


def test_policy_folder_contains_only_generated_files() -> None:
    assert set((chalice_config.CHALICE_FOLDER / "policies").iterdir()) < set(chalice_config.files())


def test_config_has_no_top_level_lambda_functions() -> None:
    """Chalice 1.34 ignores `environment_variables` there."""
    assert "lambda_functions" not in chalice_config.config()


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_sets_headrace_stage(stage: str) -> None:
    assert stage_block(stage)["environment_variables"]["HEADRACE_STAGE"] == stage


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("lane", list(lanes.LANES))
def test_worker_of_every_lane_has_the_declared_timeout_and_memory(stage: str, lane: str) -> None:
    worker = stage_block(stage)["lambda_functions"][f"worker_{lane}"]

    assert (worker["lambda_timeout"], worker["lambda_memory_size"]) == (lanes.WORKER_TIMEOUT, lanes.WORKER_MEMORY)


def test_local_stage_sets_no_architecture() -> None:
    """Its layer is built for the machine that runs it."""
    assert {stage: stage_block(stage).get("lambda_architecture") for stage in STAGES} == {
        "local": None,
        "dev": "arm64",
        "prod": "arm64",
    }


def test_configured_functions_match_the_app() -> None:
    """A function under a name that Chalice does not know gets 128 MB and no permissions."""
    script = (
        "import json; from app import app; from chalice.app import Chalice\n"
        "names = [handler.name for handler in app.pure_lambda_functions + app.event_sources]\n"
        "names += [handler.name for handler in app.websocket_handlers.values()]\n"
        "print(json.dumps(names))"
    )
    environment = os.environ | {"HEADRACE_STAGE": "dev", "PYTHONPATH": str(ROOT), "AWS_DEFAULT_REGION": "us-east-1"}

    output = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)

    assert {*json.loads(output.stdout), "api_handler"} == {function.name for function in chalice_config.FUNCTIONS}


@pytest.mark.parametrize(("stage", "kind", "statement"), statements())
def test_policy_statement_names_its_actions_and_its_stage(stage: str, kind: str, statement: dict[str, Any]) -> None:
    assert all("*" not in action and action.split(":")[0] in SERVICES for action in statement["Action"])
    if statement["Sid"] not in ("WebSocketConnections", "Mail"):  # an API's id is known only after its deployment; a sender is a setting
        assert all(f"headrace-{stage}" in resource or f"headrace/{stage}/" in resource for resource in statement["Resource"])


def test_reserved_concurrency_is_set_in_prod_only() -> None:
    """Workers have none, because a throttled message uses up its receives."""

    def reserved(stage: str) -> dict[str, int]:
        functions = stage_block(stage)["lambda_functions"]
        return {name: each["reserved_concurrency"] for name, each in functions.items() if "reserved_concurrency" in each}

    assert reserved("prod") == {"api_handler": 300, "on_job_change": 40, "count_jobs": 20, "sweep": 2}
    assert reserved("dev") == reserved("local") == {}
    assert sum(reserved("prod").values()) + sum(lane.max_concurrency for lane in lanes.LANES.values()) + 100 <= 1_000


def test_too_low_account_concurrency_is_reported_for_prod() -> None:
    """A new account has ten; AWS keeps a hundred unreserved."""
    assert concurrency_problem("prod", 462) is None
    assert "This account has 10." in (concurrency_problem("prod", 10) or "")
    assert concurrency_problem("dev", 10) is None


def test_account_concurrency_is_read_from_lambda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    client = boto3.client("lambda", aws_access_key_id="x", aws_secret_access_key="x")
    cloud = SimpleNamespace(client=lambda service: {"lambda": client}[service])
    with Stubber(client) as stub:
        stub.add_response("get_account_settings", {"AccountLimit": {"ConcurrentExecutions": 10, "UnreservedConcurrentExecutions": 10}})

        assert account_concurrency(cast(Cloud, cloud)) == 10


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_statement_ids_of_a_policy_are_unique_and_alphanumeric(stage: str, kind: str) -> None:
    """IAM refuses any other policy; the laptop cloud's emulator accepts it."""
    ids = [statement["Sid"] for statement in policy(kind, stage)["Statement"]]

    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch("[A-Za-z0-9]+", sid) for sid in ids)


@pytest.mark.parametrize("stage", STAGES)
def test_only_workers_and_the_sweeper_may_read_the_openai_key(stage: str) -> None:
    """The sweeper cancels the response of a durable job that it ends."""
    assert readers_of(stage, f"headrace/{stage}/openai") == {"worker", "sweep"}


@pytest.mark.parametrize("stage", STAGES)
def test_only_api_and_deliver_may_read_signing_secrets(stage: str) -> None:
    """The deliver function in turn may read no job records and no job data."""
    readable = json.dumps(policy("deliver", stage))

    assert readers_of(stage, f"headrace/{stage}/tenants/acme/webhooks") == {"api", "deliver"}
    assert "-job_data" not in readable
    assert "-jobs" not in readable
    assert "s3:" not in readable


def readers_of(stage: str, secret: str) -> set[str]:
    """The kinds of functions that may read a secret."""
    return {
        kind
        for kind in KINDS
        for statement in policy(kind, stage)["Statement"]
        if "secretsmanager:GetSecretValue" in statement["Action"]
        and any(fnmatch(f"arn:aws:secretsmanager:eu:1:secret:{secret}-a1b2c3", resource) for resource in statement["Resource"])
    }


@pytest.mark.parametrize("stage", STAGES)
def test_no_function_may_scan_tables_or_write_accounts(stage: str) -> None:
    for kind in KINDS:
        assert "dynamodb:Scan" not in json.dumps(policy(kind, stage))
        accounts = [statement for statement in policy(kind, stage)["Statement"] if statement["Sid"] == "Accounts"]
        assert all(not action.endswith(("PutItem", "UpdateItem", "DeleteItem")) for one in accounts for action in one["Action"])
