"""Checks of what is deployed against what the code expects."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from infra.chalice_config import FUNCTIONS, REST_THROTTLE, WEBSOCKET_THROTTLE
from infra.cloud import Cloud
from infra.deployment.event_sources import differences, event_sources, settings_of
from infra.deployment.record import RECORD
from infra.deployment.recursion import stopped_loops
from infra.deployment.throttling import rest_throttle, websocket_throttle
from infra.doctor.finding import Finding, ok, problem
from infra.stack import stack_outputs_or_none


def is_deployed(cloud: Cloud) -> bool:
    return stack_outputs_or_none(cloud) is not None


def not_deployed(cloud: Cloud) -> Finding:
    return problem("stage", f"{cloud.stage} is not deployed: {_deploy(cloud)}.")


def sources(cloud: Cloud) -> Iterator[Finding]:
    """Every function that reads a queue or the stream has its event source, set as the code expects."""
    found: dict[str, list[dict[str, Any]]] = {}
    for function, mapping in event_sources(cloud):
        found.setdefault(function.name, []).append(mapping)
    good = 0
    for function in FUNCTIONS:
        if function.stream is None and not function.reports:
            continue
        if not found.get(function.name):
            yield problem("event sources", f"{function.name} has none, so it is never called: {_deploy(cloud)}.")
        for mapping in found.get(function.name, []):
            wrong = differences(mapping, settings_of(function, cloud.stage, mapping["EventSourceArn"]))
            if mapping["State"] not in ("Enabled", "Updating", "Creating", "Enabling"):
                yield problem("event sources", f"That of {function.name} is {mapping['State'].lower()}: enable it in Lambda.")
            elif wrong:
                yield problem("event sources", f"That of {function.name} differs in {', '.join(sorted(wrong))}: {_deploy(cloud)}.")
            else:
                good += 1
    if good:
        yield ok("event sources", f"{good} are as the code expects.")


def recursion(cloud: Cloud) -> Iterator[Finding]:
    stopped = [function.name for function in stopped_loops(cloud)]
    if stopped:
        yield problem("recursion", f"Lambda would drop the messages of jobs that wait long, at {', '.join(stopped)}: {_deploy(cloud)}.")
    else:
        yield ok("recursion", "Functions whose messages come back to them may run on.")


def throttles(cloud: Cloud) -> Iterator[Finding]:
    outputs = stack_outputs_or_none(cloud) or {}
    body = cloud.client("s3").get_object(Bucket=outputs["ContentBucketName"], Key=RECORD)["Body"].read()
    resources = {resource["name"]: resource for resource in json.loads(body)["resources"]}
    actual = {
        "REST": (rest_throttle(cloud, resources["rest_api"]["rest_api_id"]), REST_THROTTLE[cloud.stage]),
        "WebSocket": (websocket_throttle(cloud, resources["websocket_api"]["websocket_api_id"]), WEBSOCKET_THROTTLE[cloud.stage]),
    }
    for api, (found, expected) in actual.items():
        if found != expected:
            yield problem("throttles", f"That of the {api} stage is not {expected.rate} requests a second: {_deploy(cloud)}.")
        else:
            yield ok("throttles", f"{api}: {expected.rate} requests a second, {expected.burst} at once.")


def _deploy(cloud: Cloud) -> str:
    return f"deploy it, make {'up' if cloud.stage == 'local' else f'deploy STAGE={cloud.stage}'}"


CHECKS = (sources, recursion, throttles)
