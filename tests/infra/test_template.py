"""The CloudFormation template of the tables, queues and the content bucket."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import boto3
import pytest
from moto import mock_aws

from chalicelib.adapters.s3.blobs import key_of
from chalicelib.domain.files.object_retention import RESULT_DAYS, RESULT_TAG, SPEC_DAYS
from chalicelib.domain.files.upload import object_key
from chalicelib.domain.jobs.transitions import COMPLETED_RETENTION_DAYS
from chalicelib.domain.queues import lanes
from chalicelib.domain.units import DAY_MS
from chalicelib.entrypoints.http.requests.jobs import MAX_DELAY_SECONDS
from chalicelib.services.jobs.edit_job import MAX_EXPIRY_MS
from infra.deployment.record import LOCK, RECORD
from infra.naming import STAGES, bucket_name, table_name
from infra.tables import TABLES, create_table_arguments
from infra.template import alarm_template, template

QUEUES = list(lanes.JOB_QUEUES)
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
    assert problems(template(stage)) == problems(alarm_template(stage)) == []


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("made", [template, alarm_template])
def test_template_fits_into_a_request(made: Callable[[str], dict[str, Any]], stage: str) -> None:
    """`create_stack` takes the text itself; a longer one has to be an object of S3."""
    assert len(json.dumps(made(stage), separators=(",", ":")).encode()) <= TEMPLATE_BODY
    assert len(made(stage)["Resources"]) <= RESOURCES


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


def test_bucket_is_private_and_encrypted() -> None:
    bucket = next(iter(resources("prod", "AWS::S3::Bucket").values()))

    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]


def expiry_of(key: str, tags: dict[str, str] | None = None) -> int | None:
    """After how many days the bucket removes an object; None: never."""
    bucket = next(iter(resources("prod", "AWS::S3::Bucket").values()))
    days = [
        rule["ExpirationInDays"]
        for rule in bucket["LifecycleConfiguration"]["Rules"]
        if rule["Status"] == "Enabled" and "ExpirationInDays" in rule and key.startswith(rule.get("Prefix", ""))
        if all((tags or {}).get(tag["Key"]) == tag["Value"] for tag in rule.get("TagFilters", []))
    ]
    return min(days, default=None)


def test_objects_expire_soon_after_what_they_belong_to() -> None:
    """A result is kept 30 days; a job spec may wait 30 for its start, 30 more, and is kept 30 then."""
    assert expiry_of(key_of("acme", "job_1", "result-1-1"), dict([RESULT_TAG])) == 35
    assert expiry_of(key_of("acme", "job_1", "spec")) == 95
    assert expiry_of(object_key("upload_1", "acme", "ann")) == 2
    assert expiry_of("batches/ab/acme/batch_1/part-0001") == 70


def test_job_specs_outlive_the_longest_wait_and_retention() -> None:
    assert SPEC_DAYS > MAX_DELAY_SECONDS / 86_400 + MAX_EXPIRY_MS / DAY_MS + COMPLETED_RETENTION_DAYS
    assert RESULT_DAYS > COMPLETED_RETENTION_DAYS


@pytest.mark.parametrize("key", [RECORD, LOCK])
def test_the_record_of_the_deployment_never_expires(key: str) -> None:
    assert expiry_of(key) is None


def test_unfinished_uploads_are_removed_from_every_folder() -> None:
    bucket = next(iter(resources("prod", "AWS::S3::Bucket").values()))

    [rule] = [rule for rule in bucket["LifecycleConfiguration"]["Rules"] if "AbortIncompleteMultipartUpload" in rule]

    assert rule["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] == 2
    assert "Prefix" not in rule


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
    assert {index["IndexName"] for index in jobs["GlobalSecondaryIndexes"]} == {"by_tenant", "by_user", "by_state", "due", "by_line"}
    assert jobs["LatestStreamArn"]
