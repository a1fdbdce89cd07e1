"""Create, update and delete the CloudFormation stack of a stage."""

from __future__ import annotations

import json
from typing import Any

from botocore.exceptions import ClientError

from infra.alarms import TOPIC_ARN
from infra.cloud import Cloud
from infra.naming import alarm_stack_name, stack_name
from infra.template import alarm_template, template

Outputs = dict[str, str]


def deploy_stack(cloud: Cloud) -> Outputs:
    """Create or update the stacks of the stage and return the outputs of the first one."""
    outputs = put_stack(cloud, stack_name(cloud.stage), template(cloud.stage))
    put_stack(cloud, alarm_stack_name(cloud.stage), alarm_template(cloud.stage), {TOPIC_ARN: outputs[TOPIC_ARN]})
    return outputs


def put_stack(cloud: Cloud, name: str, body: dict[str, Any], parameters: dict[str, str] | None = None) -> Outputs:
    """Create or update one stack, wait until it is done and return its outputs."""
    client = cloud.client("cloudformation")
    arguments = {
        "StackName": name,
        "TemplateBody": json.dumps(body, separators=(",", ":")),
        "Parameters": [{"ParameterKey": key, "ParameterValue": value} for key, value in (parameters or {}).items()],
        "Tags": [{"Key": "headrace", "Value": cloud.stage}],
    }
    if _exists(client, name):
        _update(cloud, client, arguments)
    else:
        client.create_stack(**arguments)
        _wait(cloud, client, "stack_create_complete", name)
    return _outputs(client, name)


def stack_outputs(cloud: Cloud) -> Outputs:
    return _outputs(cloud.client("cloudformation"), stack_name(cloud.stage))


def stack_outputs_or_none(cloud: Cloud) -> Outputs | None:
    """The outputs of the stack; None if it does not exist, or has none yet."""
    exists = _exists(cloud.client("cloudformation"), stack_name(cloud.stage))
    return (stack_outputs(cloud) if exists else None) or None


def delete_stack(cloud: Cloud, name: str) -> None:
    """Delete a stack, if it exists."""
    client = cloud.client("cloudformation")
    if not _exists(client, name):
        return
    client.delete_stack(StackName=name)
    _wait(cloud, client, "stack_delete_complete", name)


def _exists(client: Any, name: str) -> bool:
    try:
        client.describe_stacks(StackName=name)
    except ClientError as error:
        if "does not exist" in str(error):
            return False
        raise
    return True


def _update(cloud: Cloud, client: Any, arguments: dict[str, Any]) -> None:
    try:
        client.update_stack(**arguments)
    except ClientError as error:
        if "No updates are to be performed" not in str(error):
            raise
        return
    _wait(cloud, client, "stack_update_complete", arguments["StackName"])


def _wait(cloud: Cloud, client: Any, waiter: str, name: str) -> None:
    delay = 0.1 if cloud.stage == "local" else 5
    client.get_waiter(waiter).wait(StackName=name, WaiterConfig={"Delay": delay, "MaxAttempts": 360})


def _outputs(client: Any, name: str) -> Outputs:
    stack = client.describe_stacks(StackName=name)["Stacks"][0]
    return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}
