"""Send a message of the caller by e-mail, Slack or webhook.

The job completes when the messages are in the outbox; their deliveries show what becomes of them.
The id of a message is derived from that of the job, so a repeated attempt sends nothing twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chalicelib.domain.errors import Detail, InvalidRequest
from chalicelib.domain.jobs.job_type import JobType, Limits, Schema
from chalicelib.domain.notifications.message import MAX_SUBJECT_LENGTH, message_id
from chalicelib.domain.notifications.recipients import MAX_RECIPIENTS, Recipient, parse_any_recipient
from chalicelib.services.notifications.outbox import MAX_TEXT_LENGTH, enqueue_message

if TYPE_CHECKING:
    from chalicelib.domain.notifications.delivery import Delivery
    from chalicelib.services.worker.run_task import TaskRun

_ADDRESS: Schema = {"type": "string", "minLength": 1, "maxLength": 2_100}
INPUT: Schema = {
    "type": "object",
    "properties": {
        "to": {
            "description": "One recipient or a list: `email:<address>` or `slack:<name>` from the tenant's allowlist, `webhook:<URL>`.",
            "anyOf": [_ADDRESS, {"type": "array", "minItems": 1, "maxItems": MAX_RECIPIENTS, "items": _ADDRESS}],
        },
        "subject": {"type": "string", "minLength": 1, "maxLength": MAX_SUBJECT_LENGTH, "description": "The subject, one line."},
        "message": {"type": "string", "minLength": 1, "maxLength": MAX_TEXT_LENGTH, "description": "The text."},
        "data": {"type": "object", "maxProperties": 100, "description": "Data for programs; webhooks carry it as `data.data`."},
    },
    "required": ["to", "subject", "message"],
    "additionalProperties": False,
}

_ONE: Schema = {
    "type": "object",
    "properties": {
        "delivery_id": {"type": "string"},
        "recipient": {"type": "string"},
        "status": {
            "enum": ["pending", "delivered", "failed"],
            "description": "The status when the job completed; `GET /jobs/{id}/deliveries` has the current one.",
        },
    },
    "required": ["delivery_id", "recipient", "status"],
    "additionalProperties": False,
}
OUTPUT: Schema = {
    "type": "object",
    "properties": {"deliveries": {"type": "array", "items": _ONE}},
    "required": ["deliveries"],
    "additionalProperties": False,
}


def recipients_of(job_input: Any) -> list[tuple[str, str]]:
    """Return the recipients in the input, each with its path.

    Values of a wrong type are left to the schema.
    """
    to = job_input.get("to") if isinstance(job_input, dict) else None
    if isinstance(to, str):
        return [("input.to", to)]
    return [(f"input.to.{index}", text) for index, text in enumerate(to) if isinstance(text, str)] if isinstance(to, list) else []


async def notify(task: TaskRun) -> dict[str, Any]:
    """Put a message for each recipient into the outbox."""
    given, job, ctx = task.spec.input, task.job, task.context
    recipients = [_parse_recipient(path, text) for path, text in recipients_of(given)]
    task.start_stage("sending")
    message = (given["subject"], given["message"], message_id(job.id, "notification"), given.get("data"))
    deliveries = await task.run_sync(enqueue_message, ctx, job.tenant, job.id, recipients, *message)
    task.report_progress(len(deliveries), len(deliveries))
    return {"deliveries": [_shape(delivery) for delivery in deliveries]}


def _parse_recipient(path: str, text: str) -> Recipient:
    try:
        return parse_any_recipient(text)
    except ValueError as exc:
        raise InvalidRequest(details=(Detail(path, str(exc)),)) from exc


def _shape(delivery: Delivery) -> dict[str, Any]:
    return {"delivery_id": delivery.id, "recipient": delivery.recipient.name, "status": delivery.state.value}


JOB_TYPE = JobType(
    name="notification",
    title="Notification",
    description="Sends a message by e-mail, Slack or webhook. Completes once it is enqueued; see `GET /jobs/{id}/deliveries`.",
    instructions="",
    stages=("setup", "sending", "finalization"),
    streaming_stage="finalization",
    input_schema=INPUT,
    response_schema=OUTPUT,
    retry_schedule=(2.0, 10.0, 60.0),
    recipients_of=recipients_of,
    limits=Limits(concurrency=10, per_minute=100),
    handler=notify,
)
