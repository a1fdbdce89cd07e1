"""A stage, deployed from nothing or brought up to date; and removed."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from chalicelib.adapters.dynamodb.api_keys import DynamoApiKeys
from infra import chalice_config, layer
from infra.chalice_config import CHALICE_FOLDER, LOG_DAYS, RESERVES, ROOT, SETTINGS
from infra.cloud import Cloud
from infra.concurrency import account_concurrency, too_narrow
from infra.gateway_responses import set_gateway_responses
from infra.naming import API_STAGE, stack_name
from infra.openai_key import ensure_openai_secret
from infra.stack import delete_stack, deploy_stack, stack_outputs

STREAM_VARIABLE = "HEADRACE_JOBS_STREAM_ARN"  # app.py reads it while Chalice loads it; it is not shipped
MISSING_WHEELS = "Could not install dependencies"  # Chalice warns and deploys a broken package


class DeploymentFailed(RuntimeError):
    """The deployment stopped; what went wrong is in the message."""


@dataclass(frozen=True)
class Deployment:
    """Where a stage answers."""

    rest_api_id: str
    rest_url: str
    websocket_url: str


def deploy(cloud: Cloud) -> Deployment:
    """Tables and queues, then functions and APIs, then API Gateway's own answers."""
    if cloud.stage in RESERVES and (narrow := too_narrow(cloud.stage, account_concurrency(cloud))):
        raise DeploymentFailed(narrow)
    chalice_config.write()
    layer.build(cloud.stage)
    outputs = deploy_stack(cloud)
    ensure_openai_secret(cloud)
    run_chalice(cloud, "deploy", {STREAM_VARIABLE: outputs["JobsStreamArn"]})
    deployment = deployed(cloud)
    tell_addresses(cloud, deployment)
    keep_api_logs(cloud)
    set_gateway_responses(cloud, deployment.rest_api_id, SETTINGS[cloud.stage]["HEADRACE_ALLOWED_ORIGINS"])
    return deployment


def keep_api_logs(cloud: Cloud) -> None:
    """Bound the age of the API's logs: Chalice does so for `headrace-<stage>-api_handler`, but names that function `headrace-<stage>`."""
    logs, group = cloud.client("logs"), f"/aws/lambda/headrace-{cloud.stage}"
    with suppress(logs.exceptions.ResourceAlreadyExistsException):
        logs.create_log_group(logGroupName=group)
    logs.put_retention_policy(logGroupName=group, retentionInDays=LOG_DAYS[cloud.stage])


def destroy(cloud: Cloud) -> None:
    """Remove functions and APIs, then tables and queues. What the template retains stays, and so does the secret."""
    run_chalice(cloud, "delete", {})
    if cloud.stage != "prod":  # a bucket can only be deleted when it is empty
        empty_bucket(cloud, stack_outputs(cloud)["ContentBucketName"])
    delete_stack(cloud, stack_name(cloud.stage))


def empty_bucket(cloud: Cloud, bucket: str) -> None:
    client = cloud.client("s3")
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        objects = [{"Key": item["Key"]} for item in page.get("Contents", [])]
        if objects:
            client.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})


def deployed(cloud: Cloud) -> Deployment:
    """What Chalice wrote down about its last deployment. The emulator is addressed by path, since not every system resolves its hosts."""
    record = json.loads((CHALICE_FOLDER / "deployed" / f"{cloud.stage}.json").read_text())
    resources = {resource["name"]: resource for resource in record["resources"]}
    rest, websocket = resources["rest_api"], resources["websocket_api"]
    rest_url, websocket_url = rest["rest_api_url"], websocket["websocket_api_url"]
    if cloud.endpoint:
        rest_url = f"{cloud.endpoint}/_aws/execute-api/{rest['rest_api_id']}/{API_STAGE}"
        websocket_url = f"{cloud.endpoint}/_aws/execute-api/{websocket['websocket_api_id']}/{API_STAGE}".replace("http", "ws", 1)
    return Deployment(rest["rest_api_id"], rest_url.rstrip("/"), websocket_url.rstrip("/"))


def tell_addresses(cloud: Cloud, deployment: Deployment) -> None:
    """Let the API know where it and its WebSockets are, for the links in its answers."""
    cloud.bind_this_process()
    DynamoApiKeys(cloud.stage).put_endpoints(ws_url=deployment.websocket_url, api_url=deployment.rest_url)


def run_chalice(cloud: Cloud, command: str, variables: dict[str, str]) -> None:
    """`chalice <command> --stage <stage>`; its output is searched, and shown where it takes long."""
    process = subprocess.Popen(
        [*_chalice(cloud.stage), command, "--stage", cloud.stage],
        cwd=ROOT,
        env=cloud.environment() | {"HEADRACE_STAGE": cloud.stage, "PYTHONPATH": str(ROOT)} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if cloud.endpoint is None:  # on AWS it takes minutes
            print(f"    {line}", end="")
    output = "".join(lines)
    if process.wait() != 0:
        raise DeploymentFailed(f"chalice {command} failed:\n{output}")
    if MISSING_WHEELS in output:
        raise DeploymentFailed("A dependency has no wheel for Lambda; see the lines above.")


def _chalice(stage: str) -> list[str]:
    if stage == "local":
        return [sys.executable, "-m", "infra.local.chalice_on_ministack"]
    return [str(Path(sys.executable).with_name("chalice"))]
