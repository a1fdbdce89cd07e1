"""The IAM policy of each kind of function, by stage.

`chalice_config.py` writes them to `.chalice/policies/`.
"""

from __future__ import annotations

from typing import Any

from chalicelib.domain.files import upload
from chalicelib.domain.files.object_retention import BATCHES_FOLDER, JOBS_FOLDER
from infra.naming import API_STAGE, bucket_name, openai_secret_name, resource_id, table_name, tenant_secret_prefix

Statement = dict[str, Any]

READ = ("BatchGetItem", "GetItem", "Query")
CHANGE = ("PutItem", "UpdateItem")
REMOVE = ("BatchWriteItem", "DeleteItem")
RESULT_ACTIONS = ["s3:GetObject", "s3:PutObject", "s3:PutObjectTagging"]


def policy(kind: str, stage: str) -> dict[str, Any]:
    """The policy document of one kind of function."""
    return {"Version": "2012-10-17", "Statement": [_logs(stage), *_STATEMENTS[kind](stage)]}


def _api(stage: str) -> list[Statement]:
    return [
        _table(stage, "jobs", (*READ, *CHANGE, "DeleteItem")),
        _table(stage, "job_data", READ + CHANGE + REMOVE),
        _table(stage, "coordination", READ + CHANGE + REMOVE),
        _table(stage, "accounts", ("GetItem",)),
        _table(stage, "counters", (*READ, *CHANGE, *REMOVE, "ConditionCheckItem")),  # a recount checks
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
        _table(stage, "accounts", ("GetItem",)),
        *_read_content(stage),
        _connections(),
    ]


def _worker(stage: str) -> list[Statement]:
    """The workers of the lanes, which ask OpenAI. Tasks, which change other jobs, have their own."""
    return [
        _table(stage, "jobs", READ + CHANGE),
        _table(stage, "job_data", READ + CHANGE + REMOVE),
        _table(stage, "coordination", READ + CHANGE + REMOVE),
        _table(stage, "counters", READ),
        _table(stage, "accounts", ("BatchGetItem",)),  # keys of subscribers
        _receive(stage),
        _send(stage),
        _find_content(stage),
        _results(stage),
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
        _table(stage, "accounts", ("BatchGetItem", "GetItem")),  # keys of subscribers
        _receive(stage),
        _send(stage),
        _results(stage),
        _abort_uploads(stage),
        _connections(),
        *_delete_content(stage),
    ]


def _on_job_change(stage: str) -> list[Statement]:
    return [
        *_stream(stage),
        _table(stage, "jobs", (*READ, "UpdateItem")),
        _table(stage, "job_data", READ + CHANGE + REMOVE),
        # limits and lines, for the frames of held jobs; places of dependents that do not run
        _table(stage, "coordination", (*READ, *REMOVE, "UpdateItem")),
        _table(stage, "counters", READ + CHANGE + REMOVE),
        _table(stage, "accounts", ("GetItem",)),
        _send(stage),
        *_read_content(stage),  # recipients are in the job's spec, which is an object if it is large
        _connections(),
    ]


def _count_jobs(stage: str) -> list[Statement]:
    """It changes other tables only to delete the subscriptions of a closed WebSocket."""
    return [
        *_stream(stage),
        _table(stage, "counters", READ + CHANGE),
        _table(stage, "job_data", ("Query", "UpdateItem", "DeleteItem")),
        _table(stage, "coordination", ("DeleteItem",)),
        _table(stage, "accounts", ("GetItem",)),
        _send(stage),
        _connections(),
    ]


def _run_tasks(stage: str) -> list[Statement]:
    """It advances batches and bulk operations, which delete jobs."""
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
        _table(stage, "jobs", (*READ, "UpdateItem")),
        _table(stage, "job_data", READ + CHANGE + REMOVE),
        _table(stage, "coordination", (*READ, "DeleteItem", "UpdateItem")),
        _send(stage),
        _measure(stage),
        _job_results(stage),
        _find_job_content(stage),
        _openai_credentials(stage),
        _connections(),
    ]


def _sweep_lines(stage: str) -> list[Statement]:
    """It ends the jobs that were held too long, and wakes schedulers."""
    return [
        _table(stage, "jobs", (*READ, "UpdateItem")),
        _table(stage, "coordination", (*READ, "DeleteItem", "UpdateItem")),
        _send(stage),
    ]


def _run_scheduler(stage: str) -> list[Statement]:
    """It reads lines and what they wait for, and changes no job."""
    return [
        _table(stage, "jobs", ("GetItem", "Query", "UpdateItem")),  # takes jobs out of the index of lines
        _table(stage, "coordination", (*READ, *CHANGE, "DeleteItem")),
        _receive(stage),  # it also measures the queue `ready`
        _send(stage),
        _openai_credentials(stage),
    ]


def _sweep_deliveries(stage: str) -> list[Statement]:
    return [_table(stage, "counters", ("BatchGetItem", "DeleteItem", "Query", *CHANGE)), _send(stage)]


def _sweep_job_ends(stage: str) -> list[Statement]:
    return [
        _table(stage, "jobs", (*READ, "UpdateItem")),
        _table(stage, "job_data", ("GetItem", "Query", "UpdateItem")),  # specs, dependencies
        _table(stage, "coordination", ("UpdateItem",)),  # places of dependents that do not run
        _table(stage, "counters", ("GetItem", "PutItem")),  # deliveries
        _table(stage, "accounts", ("GetItem",)),  # API address for links in messages
        _send(stage),
        *_read_content(stage),  # recipients are in the job's spec, which is an object if it is large
    ]


def _sweep_batches(stage: str) -> list[Statement]:
    """It deletes only index rows whose batch does not exist."""
    return [_table(stage, "counters", ("BatchGetItem", "DeleteItem", "Query")), _send(stage)]


def _sweep_bulk_operations(stage: str) -> list[Statement]:
    """It deletes only index rows whose operation has ended or does not exist."""
    return [_table(stage, "coordination", ("BatchGetItem", "DeleteItem", "PutItem", "Query")), _send(stage)]


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
    "sweep_lines": _sweep_lines,
    "run_scheduler": _run_scheduler,
    "sweep_deliveries": _sweep_deliveries,
    "sweep_job_ends": _sweep_job_ends,
    "sweep_batches": _sweep_batches,
    "sweep_bulk_operations": _sweep_bulk_operations,
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


def _stream(stage: str) -> list[Statement]:
    """`ListStreams` takes no resource: on the stream it would allow nothing."""
    actions = ["dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator"]
    stream = f"arn:aws:dynamodb:*:*:table/{table_name(stage, 'jobs')}/stream/*"
    return [_allow("JobsStream", actions, stream), _allow("ListStreams", ["dynamodb:ListStreams"], "*")]


def _send(stage: str) -> Statement:
    return _allow("WakeWorkers", ["sqs:GetQueueUrl", "sqs:SendMessage"], f"arn:aws:sqs:*:*:headrace-{stage}-*")


def _measure(stage: str) -> Statement:
    return _allow("MeasureQueues", ["sqs:GetQueueAttributes"], f"arn:aws:sqs:*:*:headrace-{stage}-*")


def _receive(stage: str) -> Statement:
    actions = ["sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage"]
    return _allow("TakeMessages", actions, f"arn:aws:sqs:*:*:headrace-{stage}-*")


def _redrive(stage: str) -> Statement:
    """For dead-letter queues only: the API takes no messages from the lanes."""
    return _allow("RedriveDeadLetters", ["sqs:DeleteMessage", "sqs:ReceiveMessage"], f"arn:aws:sqs:*:*:headrace-{stage}-*-dead")


def _find_content(stage: str) -> Statement:
    """To list objects, and to be told that one is gone: without this right S3 answers as for one that is forbidden."""
    return _allow("FindContent", ["s3:ListBucket"], f"arn:aws:s3:::{bucket_name(stage, '*')}")


def _delete_content(stage: str) -> list[Statement]:
    """Listing is needed to delete all objects of a job: a crash can leave one that no row names."""
    return [_find_content(stage), _allow("RemoveContent", ["s3:DeleteObject"], *_content_folders(stage))]


def _content(stage: str) -> Statement:
    return _allow("Content", ["s3:GetObject", "s3:PutObject"], *_content_folders(stage))


def _results(stage: str) -> Statement:
    """The content, and the results of jobs, which have a tag: they are removed earlier."""
    return _allow("Content", RESULT_ACTIONS, *_content_folders(stage))


def _job_results(stage: str) -> Statement:
    return _allow("Content", RESULT_ACTIONS, f"arn:aws:s3:::{bucket_name(stage, '*')}/{JOBS_FOLDER}*")


def _content_folders(stage: str) -> list[str]:
    """Everything but the record of the deployment, which would let a function replace the stage."""
    return [f"arn:aws:s3:::{bucket_name(stage, '*')}/{folder}*" for folder in (JOBS_FOLDER, BATCHES_FOLDER, upload.FOLDER)]


def _read_content(stage: str) -> list[Statement]:
    """Read what jobs have stored, and be told that it is gone."""
    return [_get_content(stage), _find_job_content(stage)]


def _find_job_content(stage: str) -> Statement:
    """Be told that an object of a job is gone.

    For an absent object S3 compares the prefix with its key, or has none: the condition holds for
    both.
    """
    return _find_content(stage) | {"Condition": {"StringLikeIfExists": {"s3:prefix": f"{JOBS_FOLDER}*"}}}


def _get_content(stage: str) -> Statement:
    return _allow("Content", ["s3:GetObject"], f"arn:aws:s3:::{bucket_name(stage, '*')}/{JOBS_FOLDER}*")


def _abort_uploads(stage: str) -> Statement:
    """For multipart uploads that are not completed."""
    return _allow("LeaveUploads", ["s3:AbortMultipartUpload"], *_content_folders(stage))


def _openai_credentials(stage: str) -> Statement:
    secret = openai_secret_name(stage)
    return _allow("OpenAiCredentials", ["secretsmanager:GetSecretValue"], f"arn:aws:secretsmanager:*:*:secret:{secret}-*")


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
