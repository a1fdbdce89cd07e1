"""IAM's judgement of the policies: that of moto, of parliament, and of AWS's reference of actions and resources.

The emulator of the laptop cloud accepts every policy.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from infra.naming import STAGES
from infra.policies import KINDS, policy
from tests.kit.iam import TRUST
from tests.kit.parliament import findings, resource_formats, takes

POLICIES = [(kind, stage) for kind in KINDS for stage in STAGES]
SHARED = {"ListStreams", "Mail", "WebSocketConnections"}  # statements whose resources do not have the name of the stage


@pytest.fixture(scope="module")
def iam() -> Iterator[Any]:
    with mock_aws():
        client = boto3.client("iam", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
        client.create_role(RoleName="role", AssumeRolePolicyDocument=json.dumps(TRUST))
        yield client


@pytest.mark.parametrize(("kind", "stage"), POLICIES)
def test_iam_accepts_a_policy(iam: Any, kind: str, stage: str) -> None:
    iam.put_role_policy(RoleName="role", PolicyName=kind, PolicyDocument=json.dumps(policy(kind, stage)))

    assert iam.get_role_policy(RoleName="role", PolicyName=kind)["PolicyDocument"] == policy(kind, stage)


def test_iam_refuses_two_statements_of_one_name(iam: Any) -> None:
    broken = policy("api", "prod")
    broken["Statement"].append(broken["Statement"][0])

    with pytest.raises(ClientError, match="must be unique"):
        iam.put_role_policy(RoleName="role", PolicyName="broken", PolicyDocument=json.dumps(broken))


@pytest.mark.parametrize(("kind", "stage"), POLICIES)
def test_parliament_objects_to_nothing(kind: str, stage: str) -> None:
    assert findings(policy(kind, stage)) == []


@pytest.mark.parametrize(
    ("action", "resource", "finding"),
    [
        ("dynamodb:TransactWriteItems", "arn:aws:dynamodb:*:*:table/x", "UNKNOWN_ACTION"),
        ("dynamodb:ListStreams", "arn:aws:dynamodb:*:*:table/x/stream/*", "RESOURCE_MISMATCH"),
        ("cloudwatch:PutMetricData", "arn:aws:cloudwatch:*:*:headrace", "RESOURCE_MISMATCH"),
        ("ses:SendEmail", "arn:aws:ses:*:*:configuration/x", "RESOURCE_MISMATCH"),
        ("s3:GetObject", "arn:aws:s3:::headrace", "RESOURCE_MISMATCH"),
        ("s3:ListBucket", "arn:aws:s3:::headrace/*", "RESOURCE_MISMATCH"),
    ],
)
def test_parliament_knows_actions_and_their_resources(action: str, resource: str, finding: str) -> None:
    statement = {"Sid": "One", "Effect": "Allow", "Action": [action], "Resource": [resource]}

    assert finding in " ".join(findings({"Version": "2012-10-17", "Statement": [statement]}))


@pytest.mark.parametrize(("kind", "stage"), POLICIES)
def test_only_actions_without_resources_are_allowed_on_all(kind: str, stage: str) -> None:
    for statement in policy(kind, stage)["Statement"]:
        if "*" in statement["Resource"]:
            assert [action for action in statement["Action"] if resource_formats(action)] == [], statement["Sid"]


@pytest.mark.parametrize(("kind", "stage"), POLICIES)
def test_each_action_takes_a_resource_of_its_statement_and_each_resource_an_action(kind: str, stage: str) -> None:
    for statement in policy(kind, stage)["Statement"]:
        for action in statement["Action"]:
            assert any(takes(action, resource) for resource in statement["Resource"]), action
        for resource in statement["Resource"]:
            assert any(takes(action, resource) for action in statement["Action"]), resource


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stage", STAGES)
def test_a_policy_allows_nothing_of_another_stage(kind: str, stage: str) -> None:
    """Stages may be in one account. What a wildcard stands for begins after the name of the stage."""
    patterns = [
        resource for statement in policy(kind, stage)["Statement"] if statement["Sid"] not in SHARED for resource in statement["Resource"]
    ]
    for other in set(STAGES) - {stage}:
        for statement in policy(kind, other)["Statement"]:
            if statement["Sid"] not in SHARED:
                names = [resource.replace("*", "x") for resource in statement["Resource"]]
                assert [name for name in names for pattern in patterns if fnmatchcase(name, pattern)] == []
