"""Generate the CloudFormation template of a stage: tables, queues and the content bucket."""

from __future__ import annotations

from typing import Any

from chalicelib.domain.files import object_retention, upload
from chalicelib.domain.queues import lanes
from infra.alarms import TOPIC, TOPIC_ARN, alarm_resources, topic_resources
from infra.chalice_config import SETTINGS
from infra.naming import bucket_name, resource_id
from infra.tables import TABLES, TTL_ATTRIBUTE, Table, create_table_arguments

Resource = dict[str, Any]

BATCH_DAYS = 70  # rows and exports of batches; longer than the retention of batch records
UNFINISHED_UPLOAD_DAYS = 2  # incomplete multipart uploads of S3


def template(stage: str) -> dict[str, Any]:
    """The template of a stage.

    Its outputs have what cannot be derived from the stage: the stream ARN contains a creation time.
    """
    resources: dict[str, Resource] = {}
    for table in TABLES:
        resources[resource_id(table.name) + "Table"] = _table(table, stage)
    for name in lanes.JOB_QUEUES:
        resources |= _queues(name, stage, lanes.VISIBILITY_TIMEOUT)
    for task_queue in lanes.TASK_QUEUES:
        resources |= _queues(task_queue, stage, lanes.TASK_TIMEOUT + 60)
    resources["StreamDeadQueue"] = _dead_letter_queue(lanes.STREAM, stage)
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": f"Headrace, {stage}: tables, queues and content. Chalice deploys the functions and the APIs.",
        "Resources": resources | _content(stage) | topic_resources(stage),
        "Outputs": {
            "JobsStreamArn": {"Value": {"Fn::GetAtt": ["JobsTable", "StreamArn"]}},
            "ContentBucketName": {"Value": {"Ref": "ContentBucket"}},
            TOPIC_ARN: {"Value": {"Ref": TOPIC}},
        },
    }


def alarm_template(stage: str) -> dict[str, Any]:
    """The template of the alarms of a stage. It is a stack of its own: one template may have 51,200 bytes."""
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": f"Headrace, {stage}: alarms.",
        "Parameters": {TOPIC_ARN: {"Type": "String"}},
        "Resources": alarm_resources(stage),
    }


def _table(table: Table, stage: str) -> Resource:
    properties = create_table_arguments(table, stage)
    if table.stream:
        properties["StreamSpecification"] = {"StreamViewType": properties["StreamSpecification"]["StreamViewType"]}
    if table.ttl:
        properties["TimeToLiveSpecification"] = {"AttributeName": TTL_ATTRIBUTE, "Enabled": True}
    properties["PointInTimeRecoverySpecification"] = {"PointInTimeRecoveryEnabled": stage in table.recovery}
    return {"Type": "AWS::DynamoDB::Table", **_deletion_policy(stage in table.protected), "Properties": properties}


def _queues(name: str, stage: str, visibility: int) -> dict[str, Resource]:
    """A queue and its dead-letter queue."""
    logical_name = resource_id(name)
    queue = {
        "Type": "AWS::SQS::Queue",
        **_deletion_policy(False),
        "Properties": {
            "QueueName": lanes.queue_name(stage, name),
            "VisibilityTimeout": visibility,
            "MessageRetentionPeriod": lanes.MESSAGE_RETENTION,
            "SqsManagedSseEnabled": True,
            "RedrivePolicy": {
                "deadLetterTargetArn": {"Fn::GetAtt": [f"{logical_name}DeadQueue", "Arn"]},
                "maxReceiveCount": lanes.MAX_RECEIVE_COUNT,
            },
        },
    }
    return {f"{logical_name}DeadQueue": _dead_letter_queue(name, stage), f"{logical_name}Queue": queue}


def _dead_letter_queue(name: str, stage: str) -> Resource:
    """A dead-letter queue, for the messages of a queue or the records of the change stream."""
    properties = {
        "QueueName": lanes.dead_letter_queue_name(stage, name),
        "MessageRetentionPeriod": lanes.MESSAGE_RETENTION,
        "SqsManagedSseEnabled": True,
    }
    return {"Type": "AWS::SQS::Queue", **_deletion_policy(False), "Properties": properties}


def _content(stage: str) -> dict[str, Resource]:
    resources = {"ContentBucket": _bucket(stage)}
    if stage != "local":  # the emulator speaks plain HTTP
        resources["ContentBucketPolicy"] = _tls_only()
    return resources


def _bucket(stage: str) -> Resource:
    return {
        "Type": "AWS::S3::Bucket",
        **_deletion_policy(stage == "prod"),
        "Properties": {
            "BucketName": {"Fn::Sub": bucket_name(stage, "${AWS::AccountId}")},
            "BucketEncryption": {"ServerSideEncryptionConfiguration": [{"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]},
            "PublicAccessBlockConfiguration": {
                "BlockPublicAcls": True,
                "BlockPublicPolicy": True,
                "IgnorePublicAcls": True,
                "RestrictPublicBuckets": True,
            },
            "OwnershipControls": {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]},
            "LifecycleConfiguration": {"Rules": _lifecycle_rules()},
            **_cors(stage),
        },
    }


def _lifecycle_rules() -> list[dict[str, Any]]:
    """No rule covers the whole bucket: the record of the deployment in it has no age."""
    tag, value = object_retention.RESULT_TAG
    return [
        {
            "Id": "unfinished-uploads",
            "Status": "Enabled",
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": UNFINISHED_UPLOAD_DAYS},
        },
        _expiry("results", object_retention.JOBS_FOLDER, object_retention.RESULT_DAYS) | {"TagFilters": [{"Key": tag, "Value": value}]},
        _expiry("jobs", object_retention.JOBS_FOLDER, object_retention.SPEC_DAYS),
        _expiry("uploads", upload.FOLDER, upload.DAYS),  # an uploaded file is read once, when its batch is created
        _expiry("batches", object_retention.BATCHES_FOLDER, BATCH_DAYS),
    ]


def _expiry(name: str, folder: str, days: int) -> dict[str, Any]:
    return {"Id": name, "Status": "Enabled", "Prefix": folder, "ExpirationInDays": days}


def _cors(stage: str) -> dict[str, Any]:
    """Origins that may call the API may also use its signed links, with the headers that tracing adds."""
    origins = [origin.strip() for origin in SETTINGS[stage]["HEADRACE_ALLOWED_ORIGINS"].split(",") if origin.strip()]
    rule = {"AllowedOrigins": origins, "AllowedMethods": ["GET", "PUT"], "AllowedHeaders": ["*"], "MaxAge": 3600}
    return {"CorsConfiguration": {"CorsRules": [rule]}} if origins else {}


def _tls_only() -> Resource:
    bucket = {"Fn::GetAtt": ["ContentBucket", "Arn"]}
    statement = {
        "Sid": "TlsOnly",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [bucket, {"Fn::Join": ["", [bucket, "/*"]]}],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    return {"Type": "AWS::S3::BucketPolicy", "Properties": {"Bucket": {"Ref": "ContentBucket"}, "PolicyDocument": policy}}


def _deletion_policy(keep: bool) -> dict[str, str]:
    policy = "Retain" if keep else "Delete"
    return {"DeletionPolicy": policy, "UpdateReplacePolicy": policy}
