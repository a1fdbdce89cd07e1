"""Deploy, update and remove a stage."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from chalicelib.adapters.dynamodb.api_keys import DynamoApiKeys
from infra import chalice_config, layer
from infra.chalice_config import LOG_DAYS, RESERVES, ROOT, SETTINGS
from infra.cloud import Cloud
from infra.concurrency import account_concurrency, concurrency_problem
from infra.deployment import record
from infra.deployment.event_sources import NotSettled, set_event_sources
from infra.deployment.recursion import allow_loops
from infra.deployment.throttling import set_throttles
from infra.error_handling import without_tracebacks
from infra.gateway_responses import set_gateway_responses
from infra.naming import API_STAGE, alarm_stack_name, stack_name
from infra.openai_address import AddressRefused
from infra.openai_key import ensure_openai_secret
from infra.stack import delete_stack, deploy_stack, stack_outputs, stack_outputs_or_none

STREAM_VARIABLE = "HEADRACE_JOBS_STREAM_ARN"  # app.py reads it while Chalice loads it; the functions do not get it
MISSING_WHEELS = "Could not install dependencies"  # Chalice only warns about it and would deploy a broken package


class DeploymentFailed(RuntimeError):
    """The deployment failed; the message says why."""


@dataclass(frozen=True)
class Deployment:
    """The addresses of a deployed stage."""

    rest_api_id: str
    rest_url: str
    websocket_api_id: str
    websocket_url: str


def deploy(cloud: Cloud) -> Deployment:
    """Deploy tables and queues, then functions and APIs, then what Chalice cannot set.

    Raises:
        DeploymentFailed: the account is too small, another machine deploys the stage, or a step
            failed.
    """
    if cloud.stage in RESERVES and (narrow := concurrency_problem(cloud.stage, account_concurrency(cloud))):
        raise DeploymentFailed(narrow)
    chalice_config.write()
    layer.build(cloud.stage)
    bucket = (stack_outputs_or_none(cloud) or deploy_stack(cloud))["ContentBucketName"]  # it holds the lock
    with failing(), record.exclusive(cloud, bucket):
        outputs = deploy_stack(cloud)
        ensure_openai_secret(cloud)
        set_event_sources(cloud)  # those that exist: before the code that relies on it
        with record.shared_record(cloud, bucket):
            run_chalice(cloud, "deploy", {STREAM_VARIABLE: outputs["JobsStreamArn"]})
        deployment = deployed(cloud)
        _set_what_chalice_cannot(cloud, deployment)
        publish_endpoints(cloud, deployment)
    return deployment


def _set_what_chalice_cannot(cloud: Cloud, deployment: Deployment) -> None:
    """Every step changes only what differs: an update can end what a function is doing."""
    set_event_sources(cloud)
    allow_loops(cloud)
    set_api_log_retention(cloud)
    set_gateway_responses(cloud, deployment.rest_api_id, SETTINGS[cloud.stage]["HEADRACE_ALLOWED_ORIGINS"])
    set_throttles(cloud, deployment.rest_api_id, deployment.websocket_api_id)


@contextmanager
def failing() -> Iterator[None]:
    """Turn the errors of the steps into DeploymentFailed."""
    try:
        yield
    except (record.StageLocked, record.RecordMissing, NotSettled, AddressRefused) as error:
        raise DeploymentFailed(str(error)) from error


def set_api_log_retention(cloud: Cloud) -> None:
    """Set the log retention of the API function.

    Chalice sets it for `headrace-<stage>-api_handler`, but names the function itself
    `headrace-<stage>`.
    """
    logs, group = cloud.client("logs"), f"/aws/lambda/headrace-{cloud.stage}"
    with suppress(logs.exceptions.ResourceAlreadyExistsException):
        logs.create_log_group(logGroupName=group)
    logs.put_retention_policy(logGroupName=group, retentionInDays=LOG_DAYS[cloud.stage])


def destroy(cloud: Cloud) -> None:
    """Remove functions and APIs, then tables and queues.

    Retained resources and the OpenAI secret stay.
    """
    bucket = stack_outputs(cloud)["ContentBucketName"]
    with failing(), record.exclusive(cloud, bucket), record.shared_record(cloud, bucket):
        run_chalice(cloud, "delete", {})
    if cloud.stage != "prod":  # CloudFormation can delete only an empty bucket
        empty_bucket(cloud, bucket)
    for name in (alarm_stack_name(cloud.stage), stack_name(cloud.stage)):
        delete_stack(cloud, name)


def empty_bucket(cloud: Cloud, bucket: str) -> None:
    client = cloud.client("s3")
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        objects = [{"Key": item["Key"]} for item in page.get("Contents", [])]
        if objects:
            client.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})


def deployed(cloud: Cloud) -> Deployment:
    """The last deployment as Chalice recorded it.

    The emulator is addressed by path, because not every system resolves its host names.
    """
    content = json.loads(record.record_file(cloud.stage).read_text())
    resources = {resource["name"]: resource for resource in content["resources"]}
    rest, websocket = resources["rest_api"], resources["websocket_api"]
    rest_url, websocket_url = rest["rest_api_url"], websocket["websocket_api_url"]
    if cloud.endpoint:
        rest_url = f"{cloud.endpoint}/_aws/execute-api/{rest['rest_api_id']}/{API_STAGE}"
        websocket_url = f"{cloud.endpoint}/_aws/execute-api/{websocket['websocket_api_id']}/{API_STAGE}".replace("http", "ws", 1)
    return Deployment(rest["rest_api_id"], rest_url.rstrip("/"), websocket["websocket_api_id"], websocket_url.rstrip("/"))


def publish_endpoints(cloud: Cloud, deployment: Deployment) -> None:
    """Store the addresses of the API and its WebSockets, for the links in API answers."""
    cloud.bind_this_process()
    DynamoApiKeys(cloud.stage).put_endpoints(ws_url=deployment.websocket_url, api_url=deployment.rest_url)


def run_chalice(cloud: Cloud, command: str, variables: dict[str, str]) -> None:
    """Run `chalice <command> --stage <stage>`. On AWS, where it takes minutes, show its output."""
    process = subprocess.Popen(
        [*_chalice(cloud.stage), command, "--stage", cloud.stage],
        cwd=ROOT,
        env=cloud.environment() | {"HEADRACE_STAGE": cloud.stage, "PYTHONPATH": str(ROOT)} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    assert process.stdout is not None
    lines = []
    for line in without_tracebacks(process.stdout):
        lines.append(line)
        if cloud.endpoint is None:
            print(f"    {line}", end="")
    process.stdout.close()
    output = "".join(lines)
    if process.wait() != 0:
        raise DeploymentFailed(f"chalice {command} failed:\n{output}")
    if MISSING_WHEELS in output:
        raise DeploymentFailed("A dependency has no wheel for Lambda; see the lines above.")


def _chalice(stage: str) -> list[str]:
    module = "infra.local.chalice_on_ministack" if stage == "local" else "infra.deployment.chalice_command"
    return [sys.executable, "-m", module]
