"""The generated Chalice configuration and IAM policies."""

from __future__ import annotations

import json
import re
from fnmatch import fnmatch
from types import SimpleNamespace
from typing import Any, cast

import boto3
import pytest
from botocore.stub import Stubber

from chalicelib import job_types
from chalicelib.domain.queues import lanes
from infra import chalice_config
from infra.cloud import Cloud
from infra.concurrency import account_concurrency, concurrency_problem
from infra.deployment.record import RECORD
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
@pytest.mark.parametrize("queue", lanes.JOB_QUEUES.values(), ids=list(lanes.JOB_QUEUES))
def test_worker_of_every_queue_has_the_declared_timeout_memory_and_role(stage: str, queue: lanes.JobQueue) -> None:
    worker = stage_block(stage)["lambda_functions"][queue.function]

    assert (worker["lambda_timeout"], worker["lambda_memory_size"]) == (lanes.WORKER_TIMEOUT, queue.memory)
    assert worker["iam_policy_file"] == f"policies/{stage}-{'work' if queue is lanes.WORK else 'worker'}.json"


def test_task_worker_has_one_job_and_the_memory_for_the_largest_file() -> None:
    """490 MB were measured for 49 MB of JSON lines; a lane's environment has 512."""
    assert (lanes.WORK.batch_size, lanes.WORK.memory) == (1, 1_024)


def test_task_worker_runs_as_many_jobs_as_the_limits_of_all_types_allow() -> None:
    """Some environments are left for the wake-ups that only hold their job."""
    limits = [kind.limits for kind in job_types.all_types() if kind.is_task]

    at_once = sum((limit.concurrency or 0) if limit is not None else 0 for limit in limits)

    assert all(limit is not None and limit.concurrency for limit in limits)
    assert at_once < lanes.WORK.max_concurrency


def test_workers_together_use_at_most_450_environments() -> None:
    """More would leave too few of a default account's 1,000 for the API and the stream consumers."""
    assert sum(queue.max_concurrency for queue in lanes.JOB_QUEUES.values()) == 450


def test_local_stage_sets_no_architecture() -> None:
    """Its layer is built for the machine that runs it."""
    assert {stage: stage_block(stage).get("lambda_architecture") for stage in STAGES} == {
        "local": None,
        "dev": "arm64",
        "prod": "arm64",
    }


@pytest.mark.parametrize(("stage", "kind", "statement"), statements())
def test_policy_statement_names_its_actions_and_its_stage(stage: str, kind: str, statement: dict[str, Any]) -> None:
    assert all("*" not in action and action.split(":")[0] in SERVICES for action in statement["Action"])
    # An API's id is known only after its deployment, a sender is a setting, and the list of streams has no resource
    if statement["Sid"] not in ("WebSocketConnections", "Mail", "ListStreams"):
        assert all(f"headrace-{stage}" in resource or f"headrace/{stage}/" in resource for resource in statement["Resource"])


def test_reserved_concurrency_is_set_in_prod_only() -> None:
    """Workers have none, because a throttled message uses up its receives."""

    def reserved(stage: str) -> dict[str, int]:
        functions = stage_block(stage)["lambda_functions"]
        return {name: each["reserved_concurrency"] for name, each in functions.items() if "reserved_concurrency" in each}

    scheduled = ("sweep", "sweep_lines", "sweep_deliveries", "sweep_job_ends", "sweep_batches", "sweep_bulk_operations")
    readers = {"on_job_change": 40, "count_jobs": 20}
    assert reserved("prod") == {"api_handler": 300, "websocket_connect": 40, **readers, **dict.fromkeys(scheduled, 2)}
    assert reserved("dev") == reserved("local") == {}
    assert sum(reserved("prod").values()) + sum(queue.max_concurrency for queue in lanes.JOB_QUEUES.values()) + 100 <= 1_000


def test_too_low_account_concurrency_is_reported_for_prod() -> None:
    """A new account has ten; AWS keeps a hundred unreserved."""
    assert concurrency_problem("prod", 512) is None
    assert concurrency_problem("prod", 511) is not None
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
def test_only_workers_the_sweeper_and_the_scheduler_may_read_the_openai_key(stage: str) -> None:
    """The sweeper cancels the response of a durable job that it ends; the scheduler looks whether there is a key."""
    assert readers_of(stage, f"headrace/{stage}/openai") == {"worker", "sweep", "run_scheduler"}


@pytest.mark.parametrize("stage", STAGES)
def test_workers_of_lanes_may_delete_no_jobs_and_no_content_and_create_no_batches(stage: str) -> None:
    """Only tasks do, and these have a worker and a role of their own."""

    def allowed(kind: str, ending: str) -> set[str]:
        found = [one for one in policy(kind, stage)["Statement"] if any(ending in resource for resource in one["Resource"])]
        return {action for statement in found for action in statement["Action"]}

    for kind, deletes in (("worker", False), ("work", True)):
        assert ("dynamodb:DeleteItem" in allowed(kind, "-jobs")) is deletes
        assert ("dynamodb:PutItem" in allowed(kind, "-counters")) is deletes
        assert ({"s3:DeleteObject", "s3:AbortMultipartUpload"} <= allowed(kind, "s3:::")) is deletes
        assert "s3:ListBucket" in allowed(kind, "s3:::")  # without it a missing object looks like a failure


@pytest.mark.parametrize("stage", STAGES)
def test_only_api_and_deliver_may_read_signing_secrets(stage: str) -> None:
    """The deliver function in turn may read no job records and no job data."""
    readable = json.dumps(policy("deliver", stage))

    assert readers_of(stage, f"headrace/{stage}/tenants/acme/webhooks") == {"api", "deliver"}
    assert "-job_data" not in readable
    assert "-jobs" not in readable
    assert "s3:" not in readable


@pytest.mark.parametrize("stage", STAGES)
def test_each_schedule_has_only_the_rights_of_its_own_work(stage: str) -> None:
    """None deletes jobs; batches, bulk operations and deliveries are only woken."""
    rights = {kind: json.dumps(policy(kind, stage)) for kind in ("sweep", "sweep_deliveries", "sweep_batches", "sweep_bulk_operations")}

    assert {kind for kind, text in rights.items() if "s3:DeleteObject" in text} == set()
    assert {kind for kind, text in rights.items() if "s3:GetObject" in text} == {"sweep"}
    assert {kind for kind, text in rights.items() if "-jobs" in text} == {"sweep"}
    assert {kind for kind, text in rights.items() if "execute-api" in text} == {"sweep"}
    assert all("sqs:SendMessage" in text and "sqs:ReceiveMessage" not in text for text in rights.values())


@pytest.mark.parametrize("stage", STAGES)
def test_every_schedule_ends_before_it_is_due_again(stage: str) -> None:
    """Each runs every minute; two runs of one overlap only if it is invoked late or twice."""
    functions = stage_block(stage)["lambda_functions"]

    assert {functions[name]["lambda_timeout"] for name in functions if name.startswith("sweep")} == {chalice_config.SCHEDULE_TIMEOUT}
    assert chalice_config.SCHEDULE_TIMEOUT < 60


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
def test_no_function_may_touch_the_record_of_the_deployment(stage: str) -> None:
    """It names all APIs and functions; who changes it decides what the next deployment replaces."""
    record = f"arn:aws:s3:::headrace-{stage}-content-123456789012/{RECORD}"
    actions = {
        action
        for kind in KINDS
        for statement in policy(kind, stage)["Statement"]
        for action in statement["Action"]
        if any(fnmatch(record, resource) for resource in statement["Resource"])
    }

    # The one is an action on buckets; the other takes no resource, so its statement names all.
    assert actions <= {"s3:ListBucket", "dynamodb:ListStreams"}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("key", ["p/ab/acme/job_1/spec", "u/ab/acme/0/upload_1", "batches/ab/acme/batch_1/part-0001"])
def test_workers_may_read_and_write_every_folder_of_content_and_only_that_of_tasks_may_delete(stage: str, key: str) -> None:
    found = f"arn:aws:s3:::headrace-{stage}-content-123456789012/{key}"
    allowed = {
        kind: {
            action
            for one in policy(kind, stage)["Statement"]
            for action in one["Action"]
            if any(fnmatch(found, resource) for resource in one["Resource"])
        }
        for kind in ("worker", "work")
    }

    assert {"s3:GetObject", "s3:PutObject"} <= allowed["worker"]
    assert "s3:DeleteObject" not in allowed["worker"]
    assert allowed["worker"] | {"s3:DeleteObject"} <= allowed["work"]


@pytest.mark.parametrize("stage", STAGES)
def test_functions_report_failed_messages_only_where_their_environment_says_so(stage: str) -> None:
    """An event source that was not told takes the answer for success, and the messages are lost."""
    functions = stage_block(stage)["lambda_functions"]
    reporting = {
        name for name, one in functions.items() if one.get("environment_variables", {}).get("HEADRACE_REPORT_BATCH_FAILURES") == "true"
    }

    assert reporting == {function.name for function in chalice_config.FUNCTIONS if function.reports}


@pytest.mark.parametrize("stage", STAGES)
def test_no_function_may_scan_tables_or_write_accounts(stage: str) -> None:
    for kind in KINDS:
        assert "dynamodb:Scan" not in json.dumps(policy(kind, stage))
        allowed = [
            one["Action"] for one in policy(kind, stage)["Statement"] if any("-accounts" in resource for resource in one["Resource"])
        ]
        actions = {action for one in allowed for action in one}
        assert actions <= {"dynamodb:BatchGetItem", "dynamodb:GetItem"}, "who may query it can list the keys of a tenant"
