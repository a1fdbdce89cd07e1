"""Invocations of the functions of `app.py` that read the change stream and the delivery queue."""

from __future__ import annotations

from tests.kit.change_records import change
from tests.kit.http import CONTEXT, Api


def publish_change(api: Api, job_id: str) -> None:
    """Invoke `on_job_change` with the current record of a job, as new."""
    api.module.on_job_change({"Records": [change(None, api.job(job_id))]}, CONTEXT)


def deliver(api: Api) -> None:
    """Invoke `deliver` once, with the messages that its queue holds."""
    received = api.container.queues.receive("deliveries")
    if received:
        records = [{"body": message.body, "receiptHandle": message.receipt, "messageId": message.id} for message in received]
        api.module.deliver({"Records": records}, CONTEXT)
        api.container.queues.acknowledge("deliveries", [message.receipt for message in received])
