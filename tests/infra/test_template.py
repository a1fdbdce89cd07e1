"""The CloudFormation template of the tables, queues and the content bucket."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import boto3
import pytest
from moto import mock_aws

from chalicelib.domain.queues import lanes
from infra.naming import STAGES, bucket_name, table_name
from infra.tables import TABLES, create_table_arguments
from infra.template import template

LANES = list(lanes.LANES)
LONGEST_STAGE = "x" * 20  # `Settings.stage`
TEMPLATE_BODY = 51_200  # bytes of a template in a request to CloudFormation
RESOURCES = 500  # of a stack
INDEXES = 20  # global secondary indexes of a table
PROJECTED_ATTRIBUTES = 100  # of all indexes of a table together


def resources(stage: str, kind: str) -> dict[str, dict[str, Any]]:
    """The properties of all resources of one type, by logical name."""
    found = template(stage)["Resources"].items()
    return {name: resource["Properties"] for name, resource in found if resource["Type"] == kind}


def queues(stage: str) -> dict[str, dict[str, Any]]:
    return {queue["QueueName"]: queue for queue in resources(stage, "AWS::SQS::Queue").values()}


def tables(stage: str) -> dict[str, dict[str, Any]]:
    return {table["TableName"]: table for table in resources(stage, "AWS::DynamoDB::Table").values()}


@pytest.mark.parametrize("stage", STAGES)
def test_cfn_lint_finds_nothing(problems: Callable[[dict[str, Any]], list[str]], stage: str) -> None:
    assert problems(template(stage)) == []


@pytest.mark.parametrize("stage", STAGES)
def test_template_fits_into_a_request(stage: str) -> None:
    """`create_stack` takes the text itself; a longer one has to be an object of S3."""
    assert len(json.dumps(template(stage)).encode()) <= TEMPLATE_BODY
    assert len(template(stage)["Resources"]) <= RESOURCES


@pytest.mark.parametrize("stage", [*STAGES, LONGEST_STAGE])
def test_names_of_tables_queues_and_the_bucket_fit(stage: str) -> None:
    """With the longest name that a stage may have, too. The schemas of CloudFormation do not have these rules."""
    queues = [*lanes.LANES, *lanes.TASK_QUEUES, lanes.STREAM]

    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,80}", lanes.dead_letter_queue_name(stage, queue)) for queue in queues)
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]{3,255}", table_name(stage, table.name)) for table in TABLES)
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]", bucket_name(stage, "123456789012"))


def test_tables_have_few_enough_indexes_and_define_exactly_their_keys() -> None:
    for name, table in tables("prod").items():
        indexes = table.get("GlobalSecondaryIndexes", [])
        keys = {key["AttributeName"] for schema in (table, *indexes) for key in schema["KeySchema"]}
        projected = [attribute for index in indexes for attribute in index["Projection"].get("NonKeyAttributes", [])]

        assert len(indexes) <= INDEXES, name
        assert len(projected) <= PROJECTED_ATTRIBUTES, name
        assert {attribute["AttributeName"] for attribute in table["AttributeDefinitions"]} == keys, name


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("lane", LANES)
def test_every_lane_has_a_queue_with_a_dead_letter_queue(stage: str, lane: str) -> None:
    queue = queues(stage)[lanes.queue_name(stage, lane)]

    dead_name = queue["RedrivePolicy"]["deadLetterTargetArn"]["Fn::GetAtt"][0]

    assert resources(stage, "AWS::SQS::Queue")[dead_name]["QueueName"] == lanes.dead_letter_queue_name(stage, lane)
    assert queue["RedrivePolicy"]["maxReceiveCount"] == lanes.MAX_RECEIVE_COUNT


@pytest.mark.parametrize("stage", STAGES)
def test_only_lanes_task_queues_and_the_stream_have_queues(stage: str) -> None:
    """The stream has only a dead-letter queue, for change records that could not be read."""
    assert len(queues(stage)) == 2 * (len(LANES) + len(lanes.TASK_QUEUES)) + 1
    assert lanes.dead_letter_queue_name(stage, lanes.STREAM) in queues(stage)


@pytest.mark.parametrize("lane", LANES)
def test_visibility_timeout_exceeds_the_worker_timeout(lane: str) -> None:
    """AWS refuses an event source whose visibility timeout is shorter."""
    assert queues("prod")[lanes.queue_name("prod", lane)]["VisibilityTimeout"] > lanes.WORKER_TIMEOUT


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
