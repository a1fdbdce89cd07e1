"""The CloudFormation template of the tables, queues and the content bucket."""

from __future__ import annotations

import json
from typing import Any

import boto3
import pytest
from cfnlint.api import lint
from moto import mock_aws

from chalicelib.domain.queues import lanes
from infra.naming import STAGES
from infra.tables import TABLES, create_table_arguments
from infra.template import template

QUEUES = list(lanes.JOB_QUEUES)


def resources(stage: str, kind: str) -> dict[str, dict[str, Any]]:
    """The properties of all resources of one type, by logical name."""
    found = template(stage)["Resources"].items()
    return {name: resource["Properties"] for name, resource in found if resource["Type"] == kind}


def queues(stage: str) -> dict[str, dict[str, Any]]:
    return {queue["QueueName"]: queue for queue in resources(stage, "AWS::SQS::Queue").values()}


def tables(stage: str) -> dict[str, dict[str, Any]]:
    return {table["TableName"]: table for table in resources(stage, "AWS::DynamoDB::Table").values()}


@pytest.mark.parametrize("stage", STAGES)
def test_cfn_lint_reports_nothing(stage: str) -> None:
    assert [str(match) for match in lint(json.dumps(template(stage)), regions=["us-east-1"])] == []


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", QUEUES)
def test_every_queue_of_jobs_has_a_dead_letter_queue(stage: str, name: str) -> None:
    queue = queues(stage)[lanes.queue_name(stage, name)]

    dead_name = queue["RedrivePolicy"]["deadLetterTargetArn"]["Fn::GetAtt"][0]

    assert resources(stage, "AWS::SQS::Queue")[dead_name]["QueueName"] == lanes.dead_letter_queue_name(stage, name)
    assert queue["RedrivePolicy"]["maxReceiveCount"] == lanes.MAX_RECEIVE_COUNT


@pytest.mark.parametrize("stage", STAGES)
def test_only_jobs_task_queues_and_the_stream_have_queues(stage: str) -> None:
    """The stream has only a dead-letter queue, for change records that could not be read."""
    assert len(queues(stage)) == 2 * (len(QUEUES) + len(lanes.TASK_QUEUES)) + 1
    assert lanes.dead_letter_queue_name(stage, lanes.STREAM) in queues(stage)


@pytest.mark.parametrize("name", QUEUES)
def test_visibility_timeout_exceeds_the_worker_timeout(name: str) -> None:
    """AWS refuses an event source whose visibility timeout is shorter."""
    assert queues("prod")[lanes.queue_name("prod", name)]["VisibilityTimeout"] > lanes.WORKER_TIMEOUT


def test_only_the_jobs_table_has_a_stream() -> None:
    streams = {name: table["StreamSpecification"] for name, table in tables("prod").items() if "StreamSpecification" in table}

    assert streams == {"headrace-prod-jobs": {"StreamViewType": "NEW_AND_OLD_IMAGES"}}


@pytest.mark.parametrize(
    ("stage", "protected"),
    [
        ("local", set()),  # `make down` deletes everything
        ("dev", {"headrace-dev-accounts"}),  # API keys that users have
        ("prod", {f"headrace-prod-{name}" for name in ("jobs", "job_data", "coordination", "counters", "accounts")}),
    ],
)
def test_protected_tables_survive_the_stack(stage: str, protected: set[str]) -> None:
    kept = {
        resource["Properties"]["TableName"]
        for resource in template(stage)["Resources"].values()
        if resource["Type"] == "AWS::DynamoDB::Table" and resource["DeletionPolicy"] == "Retain"
    }

    assert kept == protected
    assert {name for name, table in tables(stage).items() if table["DeletionProtectionEnabled"]} == protected


@pytest.mark.parametrize(
    ("table", "stages"),
    [
        ("jobs", {"local", "dev", "prod"}),
        ("job_data", {"prod"}),  # large and append-only; its backup costs the most
        ("coordination", set()),  # short-lived state
        ("accounts", {"local", "dev", "prod"}),
    ],
)
def test_point_in_time_recovery_is_enabled_by_table_and_stage(table: str, stages: set[str]) -> None:
    recoverable = {
        stage
        for stage in STAGES
        if tables(stage)[f"headrace-{stage}-{table}"]["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"]
    }

    assert recoverable == stages


def test_bucket_is_private_encrypted_and_expires_objects() -> None:
    bucket = next(iter(resources("prod", "AWS::S3::Bucket").values()))

    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    rule = bucket["LifecycleConfiguration"]["Rules"][0]
    assert rule["ExpirationInDays"] > 90
    assert rule["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] > 0


def test_uploads_expire_after_two_days() -> None:
    bucket = next(iter(resources("prod", "AWS::S3::Bucket").values()))

    [rule] = [rule for rule in bucket["LifecycleConfiguration"]["Rules"] if rule.get("Prefix") == "u/"]

    assert (rule["ExpirationInDays"], rule["Status"]) == (2, "Enabled")


@pytest.mark.parametrize(("stage", "origins"), [("local", ["*"]), ("prod", None)])
def test_bucket_cors_allows_the_configured_origins(stage: str, origins: list[str] | None) -> None:
    """Pages of these origins may use signed links."""
    bucket = next(iter(resources(stage, "AWS::S3::Bucket").values()))

    rules = bucket.get("CorsConfiguration", {}).get("CorsRules", [])

    assert ([rule["AllowedOrigins"] for rule in rules] or [None]) == [origins]
    assert all(rule["AllowedMethods"] == ["GET", "PUT"] for rule in rules)


def test_tables_can_be_created_with_boto3() -> None:
    """Contract tests create their tables this way."""
    with mock_aws():
        client = boto3.client("dynamodb", region_name="us-east-1")

        for table in TABLES:
            client.create_table(**create_table_arguments(table, "dev"))

        jobs = client.describe_table(TableName="headrace-dev-jobs")["Table"]
    assert {index["IndexName"] for index in jobs["GlobalSecondaryIndexes"]} == {"by_tenant", "by_user", "by_state", "due"}
    assert jobs["LatestStreamArn"]
