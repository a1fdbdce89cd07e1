"""The functions and APIs as Chalice deploys them, judged by AWS's own schemas.

The emulator takes unknown properties, and values that AWS refuses.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

import pytest
from cfnlint.schema import PROVIDER_SCHEMA_MANAGER

from chalicelib.settings import Settings
from infra.chalice_config import FUNCTIONS, Function
from infra.concurrency import MIN_UNRESERVED
from infra.naming import STAGES
from infra.policies import policy
from infra.template import template
from tests.kit.chalice_package import Template

Problems = Callable[[dict[str, Any]], list[str]]

ACCOUNT_CONCURRENCY = 1_000  # executions at once in an account, until AWS raises it
INLINE_POLICY = 10_240  # characters of all inline policies of a role, without white space
ENVIRONMENT = 4_096  # bytes of all variables of a function
REST_RESOURCES = 300  # paths of a REST API, each part of a path counted
ROOMY = 10  # messages of a batch; more need a batch window
LONGEST_STAGE = "x" * 20  # `Settings.stage`


def functions(package: Template) -> dict[str, dict[str, Any]]:
    """The properties of the functions, by their names on AWS."""
    found = (each["Properties"] for each in package["Resources"].values() if each["Type"] == "AWS::Serverless::Function")
    return {each["FunctionName"]: each for each in found}


def sources(package: Template, kind: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The event sources of one kind, each with its function."""
    return [
        (function, source["Properties"])
        for function in functions(package).values()
        for source in function.get("Events", {}).values()
        if source["Type"] == kind
    ]


def queue_name(source: dict[str, Any]) -> str:
    name: str = source["Queue"]["Fn::Sub"].rsplit(":", 1)[-1]
    return name


@pytest.mark.parametrize("stage", STAGES)
def test_cfn_lint_finds_nothing_in_a_package(packages: dict[str, Template], problems: Problems, stage: str) -> None:
    """It knows the names, ranges and patterns of AWS's resource types, and expands the SAM template itself."""
    assert problems(packages[stage]) == []


def test_cfn_lint_finds_what_aws_refuses(packages: dict[str, Template], problems: Problems) -> None:
    """A judge that finds nothing has to be able to find something."""
    broken = copy.deepcopy(packages["prod"])
    resources = broken["Resources"]
    resources["Sweep"]["Properties"]["MemorySize"] = 64
    resources["SweepRole"]["Properties"]["RoleName"] = "x" * 65
    resources["SweepLogGroup"]["Properties"]["RetentionInDays"] = 2
    resources["WebsocketAPI"]["Properties"]["Nonsense"] = 1
    statements = resources["DeliverRole"]["Properties"]["Policies"][0]["PolicyDocument"]["Statement"]
    statements.append(statements[0])

    found = {problem.split()[0] for problem in problems(broken)}

    assert found == {"E3002", "E3030", "E3033", "E3034", "E3510"}  # property, enumeration, length, range, statement ids


@pytest.mark.parametrize("stage", STAGES)
def test_every_declared_function_is_in_the_package(packages: dict[str, Template], stage: str) -> None:
    """A function of app.py that is not declared gets 128 MB and no permissions. The API's function is named after the stage alone."""
    names = {f"headrace-{stage}" if each.name == "api_handler" else f"headrace-{stage}-{each.name}" for each in FUNCTIONS}

    assert set(functions(packages[stage])) == names


@pytest.mark.parametrize("stage", [*STAGES, LONGEST_STAGE])
@pytest.mark.parametrize("function", [each.name for each in FUNCTIONS])
def test_function_names_fit(stage: str, function: str) -> None:
    """With the longest name that a stage may have, too. Roles are named like functions."""
    for kind, name in (("AWS::Lambda::Function", "FunctionName"), ("AWS::IAM::Role", "RoleName"), ("AWS::Events::Rule", "Name")):
        rule = PROVIDER_SCHEMA_MANAGER.get_resource_schema("us-east-1", kind).schema["properties"][name]
        made = f"headrace-{stage}-{function}" + ("-event" if kind == "AWS::Events::Rule" else "")
        assert re.search(rule["pattern"], made)
        assert len(made) <= rule.get("maxLength", len(made))


@pytest.mark.parametrize("stage", STAGES)
def test_environment_variables_fit(packages: dict[str, Template], stage: str) -> None:
    """With all settings, a value of each being long. AWS counts names and values of a function."""
    settings = {f"HEADRACE_{name.upper()}": "x" * 100 for name in Settings.__dataclass_fields__}
    for name, function in functions(packages[stage]).items():
        variables = settings | function["Environment"]["Variables"]
        assert len(json.dumps(variables)) <= ENVIRONMENT, name


@pytest.mark.parametrize("stage", STAGES)
def test_policies_fit_into_their_roles(packages: dict[str, Template], stage: str) -> None:
    """AWS counts all inline policies of a role together, without white space."""
    for name, resource in packages[stage]["Resources"].items():
        if resource["Type"] == "AWS::IAM::Role":
            documents = [each["PolicyDocument"] for each in resource["Properties"]["Policies"]]
            assert sum(len(json.dumps(document, separators=(",", ":"))) for document in documents) <= INLINE_POLICY, name


@pytest.mark.parametrize("stage", STAGES)
def test_concurrency_fits_into_an_account(packages: dict[str, Template], stage: str) -> None:
    """What functions reserve and what queues may use: more would throttle some, and throttled messages use up their receives."""
    reserved = sum(function.get("ReservedConcurrentExecutions", 0) for function in functions(packages[stage]).values())
    queues = sum(source["ScalingConfig"]["MaximumConcurrency"] for _, source in sources(packages[stage], "SQS"))

    assert reserved + queues + MIN_UNRESERVED <= ACCOUNT_CONCURRENCY


@pytest.mark.parametrize("stage", STAGES)
def test_functions_behind_queues_reserve_no_concurrency(packages: dict[str, Template], stage: str) -> None:
    """Lambda polls for as many executions as the mapping allows; those beyond a reservation are throttled."""
    for function, _ in sources(packages[stage], "SQS"):
        assert "ReservedConcurrentExecutions" not in function, function["FunctionName"]


@pytest.mark.parametrize("stage", STAGES)
def test_messages_stay_invisible_for_as_long_as_their_function_may_run(packages: dict[str, Template], stage: str) -> None:
    """AWS refuses the event source otherwise.

    It recommends six times the timeout, for messages whose invocation is throttled and tried again.
    The functions reserve no concurrency and the mappings bound it, so that does not happen; and a
    message that a dead function had is visible again after minutes, not after an hour and a half.
    """
    queues = {
        each["Properties"]["QueueName"]: each["Properties"] for each in template(stage)["Resources"].values() if "Queue" in each["Type"]
    }
    for function, source in sources(packages[stage], "SQS"):
        queue = queues[queue_name(source)]
        assert queue["VisibilityTimeout"] >= function["Timeout"] + source["MaximumBatchingWindowInSeconds"], function["FunctionName"]


@pytest.mark.parametrize("stage", STAGES)
def test_large_batches_have_a_window(packages: dict[str, Template], stage: str) -> None:
    """AWS refuses more than ten messages without one."""
    for function, source in sources(packages[stage], "SQS"):
        assert source["BatchSize"] <= ROOMY or source["MaximumBatchingWindowInSeconds"] >= 1, function["FunctionName"]


@pytest.mark.parametrize("stage", STAGES)
def test_every_queue_and_stream_source_is_one_of_the_stage(packages: dict[str, Template], stage: str) -> None:
    names = {each["Properties"].get("QueueName") for each in template(stage)["Resources"].values()}

    assert {queue_name(source) for _, source in sources(packages[stage], "SQS")} <= names


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.name)
def test_a_function_may_write_its_log(stage: str, function: Function) -> None:
    """Nobody sees it otherwise: a function runs without that right."""
    name = f"headrace-{stage}" if function.name == "api_handler" else f"headrace-{stage}-{function.name}"
    stream = f"arn:aws:logs:us-east-1:123456789012:log-group:/aws/lambda/{name}:log-stream:2027/01/01/[$LATEST]0"
    [logs] = [statement for statement in policy(function.kind, stage)["Statement"] if statement["Sid"] == "Logs"]

    assert any(fnmatchcase(stream, resource) for resource in logs["Resource"])


def test_the_rest_api_has_few_enough_paths(packages: dict[str, Template]) -> None:
    """Each part of a path is a resource of the API."""
    paths = packages["prod"]["Resources"]["RestAPI"]["Properties"]["DefinitionBody"]["paths"]
    parts = {tuple(path.split("/")[:end]) for path in paths for end in range(1, len(path.split("/")) + 1)}

    assert len(paths) > 10
    assert len(parts) <= REST_RESOURCES
