"""A message in the caller's own words, to people and to other systems.

The work waits for nobody: it ends when the messages are written down to be delivered, and the log of deliveries says what becomes of them.
The id of a message is made of the job's, so whatever is done again writes to nobody twice.
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
            "description": "`email:<address>` and `slack:<name>`, as the tenant's admins allow them, or `webhook:<URL>`; one, or a list.",
            "anyOf": [_ADDRESS, {"type": "array", "minItems": 1, "maxItems": MAX_RECIPIENTS, "items": _ADDRESS}],
        },
        "subject": {"type": "string", "minLength": 1, "maxLength": MAX_SUBJECT_LENGTH, "description": "One line."},
        "message": {"type": "string", "minLength": 1, "maxLength": MAX_TEXT_LENGTH, "description": "The text."},
        "data": {"type": "object", "maxProperties": 100, "description": "For programs: webhooks carry it as `data.data`."},
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
            "description": "When the work ended; `GET /jobs/{id}/deliveries` has it now.",
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


def named(given: Any) -> list[tuple[str, str]]:
    """Whom it is for, each by its place. What is no address at all is left to the schema."""
    to = given.get("to") if isinstance(given, dict) else None
    if isinstance(to, str):
        return [("input.to", to)]
    return [(f"input.to.{at}", text) for at, text in enumerate(to) if isinstance(text, str)] if isinstance(to, list) else []


async def notify(task: TaskRun) -> dict[str, Any]:
    """Write the messages down, and have them delivered."""
    given, job, ctx = task.spec.input, task.job, task.context
    recipients = [_read(place, text) for place, text in named(given)]
    task.start_stage("sending")
    about = (given["subject"], given["message"], message_id(job.id, "notification"), given.get("data"))
    made = await task.run_sync(enqueue_message, ctx, job.tenant, job.id, recipients, *about)
    task.report_progress(len(made), len(made))
    return {"deliveries": [_shape(delivery) for delivery in made]}


def _read(place: str, text: str) -> Recipient:
    try:
        return parse_any_recipient(text)
    except ValueError as exc:
        raise InvalidRequest(details=(Detail(place, str(exc)),)) from exc


def _shape(delivery: Delivery) -> dict[str, Any]:
    return {"delivery_id": delivery.id, "recipient": delivery.recipient.name, "status": delivery.state.value}


JOB_TYPE = JobType(
    name="notification",
    title="Notification",
    description="A message by e-mail, Slack or webhook. Ends when it is written down; `GET /jobs/{id}/deliveries` says what becomes of it.",
    instructions="",
    stages=("setup", "sending", "finalization"),
    streaming_stage="finalization",
    input_schema=INPUT,
    response_schema=OUTPUT,
    retry_schedule=(2.0, 10.0, 60.0),
    recipients_of=named,
    limits=Limits(concurrency=10, per_minute=100),
    handler=notify,
)
