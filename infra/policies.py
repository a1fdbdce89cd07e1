"""The IAM policy of each kind of function, by stage.

`chalice_config.py` writes them to `.chalice/policies/`.
"""

from __future__ import annotations

from typing import Any

from infra.naming import API_STAGE, bucket_name, openai_secret_name, resource_id, table_name, tenant_secret_prefix

Statement = dict[str, Any]

READ = ("BatchGetItem", "GetItem", "Query")
CHANGE = ("ConditionCheckItem", "PutItem", "UpdateItem")
REMOVE = ("BatchWriteItem", "DeleteItem")


def policy(kind: str, stage: str) -> dict[str, Any]:
    """The policy document of one kind of function."""
    return {"Version": "2012-10-17", "Statement": [_logs(stage), *_STATEMENTS[kind](stage)]}


def _api(stage: str) -> list[Statement]:
    return [
        _table(stage, "jobs", (*READ, *CHANGE, "DeleteItem")),
        _table(stage, "job_data", READ + CHANGE + REMOVE),
        _table(stage, "coordination", READ + CHANGE + REMOVE),
        _table(stage, "accounts", READ),
        _table(stage, "counters", READ + CHANGE + REMOVE),
        *_signing_secrets(stage, write=True),
        _send(stage),
        _measure(stage),
        _redrive(stage),
        _content(stage),
        *_delete_content(stage),
    ]


def _websocket(stage: str) -> list[Statement]:
    return [
        _table(stage, "jobs", (*READ, "UpdateItem")),
        _table(stage, "job_data", READ + CHANGE + REMOVE),
        _table(stage, "coordination", READ + CHANGE + REMOVE),
        _table(stage, "counters", READ),
        _table(stage, "accounts", READ),
        _content(stage),
        _connections(),
    ]


def _worker(stage: str) -> list[Statement]:
    """The workers of the lanes, which ask OpenAI. Tasks, which change other jobs, have their own."""
    return [
        _table(stage, "jobs", READ + CHANGE),
        _table(stage, "job_data", READ + CHANGE + REMOVE),
        _table(stage, "coordination", READ + CHANGE + REMOVE),
        _table(stage, "counters", READ),
        _table(stage, "accounts", READ),
        _receive(stage),
        _send(stage),
        _find_content(stage),
        _content(stage),
        _openai_credentials(stage),
        _connections(),
    ]


def _work(stage: str) -> list[Statement]:
    """The worker of tasks: it deletes jobs and content and creates batches, and reads no key."""
    return [
        _table(stage, "jobs", (*READ, *CHANGE, "DeleteItem")),
        _table(stage, "job_data", READ + CHANGE + REMOVE),
        _table(stage, "coordination", READ + CHANGE + REMOVE),
        _table(stage, "counters", (*READ, "DeleteItem", "PutItem")),  # batches and deliveries
        _table(stage, "accounts", READ),
        _receive(stage),
        _send(stage),
        _content(stage),
        _abort_uploads(stage),
        _connections(),
        *_delete_content(stage),
    ]


def _on_job_change(stage: str) -> list[Statement]:
    return [
        _stream(stage),
        _table(stage, "jobs", (*READ, "UpdateItem")),
        _table(stage, "job_data", READ + CHANGE + REMOVE),
        _table(stage, "coordination", REMOVE),
        _table(stage, "counters", READ + CHANGE + REMOVE),
        _table(stage, "accounts", READ),
        _send(stage),
        _connections(),
    ]


def _count_jobs(stage: str) -> list[Statement]:
    """It changes other tables only to delete the subscriptions of a closed WebSocket."""
    return [
        _stream(stage),
        _table(stage, "counters", READ + CHANGE),
        _table(stage, "job_data", ("Query", "UpdateItem", "DeleteItem")),
        _table(stage, "coordination", ("DeleteItem",)),
        _table(stage, "accounts", ("GetItem",)),
        _send(stage),
        _connections(),
    ]


def _run_tasks(stage: str) -> list[Statement]:
    return [
        _table(stage, "jobs", (*READ, *CHANGE, "DeleteItem")),
        _table(stage, "job_data", READ + CHANGE + REMOVE),
        _table(stage, "coordination", READ + CHANGE + REMOVE),
        _table(stage, "counters", (*READ, *CHANGE, "DeleteItem")),
        _table(stage, "accounts", ("GetItem",)),  # API address for links in messages; keys of subscribers
        _receive(stage),
        _send(stage),
        _content(stage),
        _connections(),
        *_delete_content(stage),
    ]


def _deliver(stage: str) -> list[Statement]:
    """It sends to recipients outside, so it cannot read the content of jobs."""
    return [
        _table(stage, "counters", READ + CHANGE + REMOVE),
        _receive(stage),
        _send(stage),
        *_signing_secrets(stage, write=False),
        _send_email(),
    ]


def _sweep(stage: str) -> list[Statement]:
    return [
        _table(stage, "counters", READ + CHANGE + REMOVE),
        _table(stage, "jobs", (*READ, *CHANGE, "DeleteItem")),
        _table(stage, "job_data", READ + CHANGE + REMOVE),
        _table(stage, "coordination", READ + CHANGE + REMOVE),
        _send(stage),
        _measure(stage),
        _content(stage),
        _openai_credentials(stage),
        _connections(),
        *_delete_content(stage),
    ]


_STATEMENTS = {
    "api": _api,
    "websocket": _websocket,
    "worker": _worker,
    "work": _work,
    "on_job_change": _on_job_change,
    "deliver": _deliver,
    "count_jobs": _count_jobs,
    "run_tasks": _run_tasks,
    "sweep": _sweep,
}
KINDS = tuple(_STATEMENTS)


def _allow(sid: str, actions: list[str], *resources: str) -> Statement:
    return {"Sid": sid, "Effect": "Allow", "Action": actions, "Resource": list(resources)}


def _logs(stage: str) -> Statement:
    group = f"arn:aws:logs:*:*:log-group:/aws/lambda/headrace-{stage}"
    actions = ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"]
    return _allow("Logs", actions, f"{group}:*", f"{group}-*:*")  # the API function is named `headrace-<stage>`


def _table(stage: str, table: str, actions: tuple[str, ...]) -> Statement:
    arn = f"arn:aws:dynamodb:*:*:table/{table_name(stage, table)}"
    return _allow(f"{resource_id(table)}Table", [f"dynamodb:{action}" for action in sorted(actions)], arn, f"{arn}/index/*")


def _stream(stage: str) -> Statement:
    actions = ["dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator", "dynamodb:ListStreams"]
    return _allow("JobsStream", actions, f"arn:aws:dynamodb:*:*:table/{table_name(stage, 'jobs')}/stream/*")


def _send(stage: str) -> Statement:
    return _allow("WakeWorkers", ["sqs:GetQueueUrl", "sqs:SendMessage"], f"arn:aws:sqs:*:*:headrace-{stage}-*")


def _measure(stage: str) -> Statement:
    return _allow("MeasureQueues", ["sqs:GetQueueAttributes"], f"arn:aws:sqs:*:*:headrace-{stage}-*")


def _receive(stage: str) -> Statement:
    actions = ["sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage"]
    return _allow("TakeMessages", actions, f"arn:aws:sqs:*:*:headrace-{stage}-*")


def _redrive(stage: str) -> Statement:
    """For dead-letter queues only: the API takes no messages from the lanes."""
    return _allow("RedriveDeadLetters", ["sqs:DeleteMessage", "sqs:ReceiveMessage"], f"arn:aws:sqs:*:*:headrace-{stage}-*-dead")


def _find_content(stage: str) -> Statement:
    """Without it S3 answers a missing object as forbidden, which looks like a failure."""
    return _allow("FindContent", ["s3:ListBucket"], f"arn:aws:s3:::{bucket_name(stage, '*')}")


def _delete_content(stage: str) -> list[Statement]:
    """Listing is needed to delete all objects of a job: a crash can leave one that no row names."""
    return [_find_content(stage), _allow("RemoveContent", ["s3:DeleteObject"], f"arn:aws:s3:::{bucket_name(stage, '*')}/*")]


def _content(stage: str) -> Statement:
    return _allow("Content", ["s3:GetObject", "s3:PutObject"], f"arn:aws:s3:::{bucket_name(stage, '*')}/*")


def _abort_uploads(stage: str) -> Statement:
    """For multipart uploads that are not completed."""
    return _allow("LeaveUploads", ["s3:AbortMultipartUpload"], f"arn:aws:s3:::{bucket_name(stage, '*')}/*")


def _openai_credentials(stage: str) -> Statement:
    secret = openai_secret_name(stage)
    return _allow("OpenAiCredentials", ["secretsmanager:GetSecretValue"], f"arn:aws:secretsmanager:*:*:secret:{secret}*")


def _signing_secrets(stage: str, *, write: bool) -> list[Statement]:
    """The signing secrets and recipient allowlists of tenants.

    The function that needs one first creates it.
    """
    arn = f"arn:aws:secretsmanager:*:*:secret:{tenant_secret_prefix(stage)}*"
    actions = ["secretsmanager:CreateSecret", "secretsmanager:GetSecretValue"]
    return [_allow("SigningSecrets", [*actions, "secretsmanager:PutSecretValue"] if write else actions, arn)]


def _send_email() -> Statement:
    return _allow("Mail", ["ses:SendEmail"], "arn:aws:ses:*:*:identity/*")  # the sender is a setting, and SES itself checks it


def _connections() -> Statement:
    resource = f"arn:aws:execute-api:*:*:*/{API_STAGE}/*/@connections/*"  # the API's id is known only after deployment
    return _allow("WebSocketConnections", ["execute-api:ManageConnections"], resource)
