"""The CloudFormation template of a stage: tables, queues and the content bucket, generated from the tables that declare them."""

from __future__ import annotations

from typing import Any

from chalicelib.domain.files import upload
from chalicelib.domain.queues import lanes
from infra.chalice_config import SETTINGS
from infra.naming import bucket_name
from infra.tables import TABLES, TTL_ATTRIBUTE, Table, create_table_arguments

Resource = dict[str, Any]

CONTENT_DAYS = 400  # a net for what retention missed; retention itself is the product's business
BATCH_DAYS = 70  # rows and exports of batches: longer than their records are kept
UNFINISHED_UPLOAD_DAYS = 2  # of S3's own uploads in parts


def template(stage: str) -> dict[str, Any]:
    """The whole template. Only `JobsStreamArn` has to be looked up afterwards: it holds the time when the stream was made."""
    resources: dict[str, Resource] = {}
    for table in TABLES:
        resources[_camel(table.name) + "Table"] = _table(table, stage)
    for lane in lanes.LANES.values():
        resources |= _queues(lane.name, stage, lanes.VISIBILITY_TIMEOUT)
    for errands in lanes.TASK_QUEUES:
        resources |= _queues(errands, stage, lanes.TASK_TIMEOUT + 60)
    resources["StreamDeadQueue"] = _dead_queue(lanes.STREAM, stage)
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": f"Headrace, {stage}: tables, queues and content. Chalice deploys the functions and the APIs.",
        "Resources": resources | _content(stage),
        "Outputs": {
            "JobsStreamArn": {"Value": {"Fn::GetAtt": ["JobsTable", "StreamArn"]}},
            "ContentBucketName": {"Value": {"Ref": "ContentBucket"}},
        },
    }


def _table(table: Table, stage: str) -> Resource:
    properties = create_table_arguments(table, stage)
    if table.stream:
        properties["StreamSpecification"] = {"StreamViewType": properties["StreamSpecification"]["StreamViewType"]}
    if table.ttl:
        properties["TimeToLiveSpecification"] = {"AttributeName": TTL_ATTRIBUTE, "Enabled": True}
    properties["PointInTimeRecoverySpecification"] = {"PointInTimeRecoveryEnabled": stage in table.recovery}
    return {"Type": "AWS::DynamoDB::Table", **_kept(stage in table.protected), "Properties": properties}


def _queues(queue_of: str, stage: str, visibility: int) -> dict[str, Resource]:
    """A queue, and the one for what it could not get rid of."""
    name = _camel(queue_of)
    queue = {
        "Type": "AWS::SQS::Queue",
        **_kept(False),
        "Properties": {
            "QueueName": lanes.queue_name(stage, queue_of),
            "VisibilityTimeout": visibility,
            "MessageRetentionPeriod": lanes.MESSAGE_RETENTION,
            "SqsManagedSseEnabled": True,
            "RedrivePolicy": {
                "deadLetterTargetArn": {"Fn::GetAtt": [f"{name}DeadQueue", "Arn"]},
                "maxReceiveCount": lanes.MAX_RECEIVE_COUNT,
            },
        },
    }
    return {f"{name}DeadQueue": _dead_queue(queue_of, stage), f"{name}Queue": queue}


def _dead_queue(name: str, stage: str) -> Resource:
    """Where people see what could not be dealt with: a lane's messages, or the change stream's records."""
    properties = {
        "QueueName": lanes.dead_letter_queue_name(stage, name),
        "MessageRetentionPeriod": lanes.MESSAGE_RETENTION,
        "SqsManagedSseEnabled": True,
    }
    return {"Type": "AWS::SQS::Queue", **_kept(False), "Properties": properties}


def _content(stage: str) -> dict[str, Resource]:
    resources = {"ContentBucket": _bucket(stage)}
    if stage != "local":  # the emulators speak plain HTTP
        resources["ContentBucketPolicy"] = _tls_only()
    return resources


def _bucket(stage: str) -> Resource:
    return {
        "Type": "AWS::S3::Bucket",
        **_kept(stage == "prod"),
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
            "LifecycleConfiguration": {"Rules": [_expiry(), _uploads_expiry(), _batches()]},
            **_cors(stage),
        },
    }


def _expiry() -> dict[str, Any]:
    return {
        "Id": "bounded-age",
        "Status": "Enabled",
        "ExpirationInDays": CONTENT_DAYS,
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": UNFINISHED_UPLOAD_DAYS},
    }


def _uploads_expiry() -> dict[str, Any]:
    """What callers put there is read once, when the batch is made of it."""
    return {"Id": "uploads", "Status": "Enabled", "Prefix": upload.FOLDER, "ExpirationInDays": upload.DAYS}


def _cors(stage: str) -> dict[str, Any]:
    """Pages that may call the API may follow its signed links too."""
    origins = [origin.strip() for origin in SETTINGS[stage]["HEADRACE_ALLOWED_ORIGINS"].split(",") if origin.strip()]
    rule = {"AllowedOrigins": origins, "AllowedMethods": ["GET", "PUT"], "AllowedHeaders": ["Content-Type"], "MaxAge": 3600}
    return {"CorsConfiguration": {"CorsRules": [rule]}} if origins else {}


def _batches() -> dict[str, Any]:
    return {"Id": "batches", "Status": "Enabled", "Prefix": "batches/", "ExpirationInDays": BATCH_DAYS}


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


def _kept(keep: bool) -> dict[str, str]:
    policy = "Retain" if keep else "Delete"
    return {"DeletionPolicy": policy, "UpdateReplacePolicy": policy}


def _camel(name: str) -> str:
    return "".join(part[0].upper() + part[1:] for part in name.split("_"))
