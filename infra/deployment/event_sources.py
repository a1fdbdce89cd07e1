"""What Chalice cannot set of the event sources of the functions.

New event sources are created with these settings (`chalice_command.py`). Those that exist get them
before the new code, so that an answer of the new code that names failed messages is never taken for
success, and a filter never hides what the old code must see.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from chalicelib.domain.queues.lanes import STREAM, dead_letter_queue_name
from infra.chalice_config import BY_NAME, FUNCTIONS, Function
from infra.cloud import Cloud

MAX_RETRIES = 50  # of a batch of change records that fails, each time with half of it
MAX_AGE_SECONDS = 6 * 3600  # of a change record; the sweeper has made up for it long before
SETTLE_CHECKS = 90  # one a second
UNSETTLED = ("Creating", "Enabling", "Disabling", "Updating")

Settings = dict[str, Any]


class NotSettled(RuntimeError):
    """An event source did not become ready in time; the message names it."""


def settings_of(function: Function, stage: str, source_arn: str) -> Settings:
    """The arguments of `create_event_source_mapping` that Chalice does not pass."""
    if function.stream is None:
        return {"FunctionResponseTypes": ["ReportBatchItemFailures"]} if function.reports else {}
    _, partition, _, region, account, _ = source_arn.split(":", 5)
    dead_letters = f"arn:{partition}:sqs:{region}:{account}:{dead_letter_queue_name(stage, STREAM)}"
    return {
        "BisectBatchOnFunctionError": True,
        "MaximumRetryAttempts": MAX_RETRIES,
        "MaximumRecordAgeInSeconds": MAX_AGE_SECONDS,
        "ParallelizationFactor": function.stream.parallel,
        "DestinationConfig": {"OnFailure": {"Destination": dead_letters}},
        "FilterCriteria": {"Filters": [{"Pattern": json.dumps(pattern)} for pattern in function.stream.filters]},
    }


def settings_of_new(stage: str, arguments: Settings) -> Settings:
    """`arguments` of `create_event_source_mapping` with the settings of the function they name."""
    name = arguments["FunctionName"].rsplit(":", 1)[-1].removeprefix(f"headrace-{stage}-")
    function = BY_NAME.get(name)
    return arguments | (settings_of(function, stage, arguments["EventSourceArn"]) if function else {})


def set_event_sources(cloud: Cloud, sleep: Callable[[float], None] = time.sleep) -> list[str]:
    """Give every event source that exists its settings. Returns the functions whose source changed.

    Raises:
        NotSettled: an event source did not become ready in time.
    """
    client, changed = cloud.client("lambda"), []
    for function, mapping in event_sources(cloud):
        missing = differences(mapping, settings_of(function, cloud.stage, mapping["EventSourceArn"]))
        if missing:
            _wait_until_settled(client, mapping["UUID"], function, sleep)
            client.update_event_source_mapping(UUID=mapping["UUID"], **missing)
            _wait_until_settled(client, mapping["UUID"], function, sleep)
            changed.append(function.name)
    return changed


def event_sources(cloud: Cloud) -> Iterator[tuple[Function, dict[str, Any]]]:
    """Every function that should have an event source, with those that it has: one call each."""
    client = cloud.client("lambda")
    for function in FUNCTIONS:
        if function.stream is None and not function.reports:
            continue
        try:
            found = client.list_event_source_mappings(FunctionName=function.aws_name(cloud.stage))["EventSourceMappings"]
        except client.exceptions.ResourceNotFoundException:  # the stage is deployed for the first time
            found = []
        for mapping in found:
            yield function, mapping


def differences(mapping: dict[str, Any], expected: Settings) -> Settings:
    """The expected settings that the event source does not have."""
    return {name: value for name, value in expected.items() if _comparable(mapping.get(name)) != _comparable(value)}


def _comparable(value: Any) -> Any:
    """Patterns are JSON in a string, so they are compared as JSON; `OnSuccess: {}` is the same as none."""
    if isinstance(value, dict) and "Filters" in value:
        return sorted(json.dumps(json.loads(each["Pattern"]), sort_keys=True) for each in value["Filters"])
    if isinstance(value, dict):
        return {name: _comparable(inner) for name, inner in value.items() if inner}
    return value


def _wait_until_settled(client: Any, uuid: str, function: Function, sleep: Callable[[float], None]) -> None:
    for _ in range(SETTLE_CHECKS):
        if client.get_event_source_mapping(UUID=uuid)["State"] not in UNSETTLED:
            return
        sleep(1.0)
    raise NotSettled(f"The event source of {function.name} is not ready after {SETTLE_CHECKS} s. Deploy again.")
