"""Run workers, the scheduler and the sweeps through the triggers of `app.py`."""

from __future__ import annotations

from typing import Any

from chalicelib.domain.queues.lanes import JOB_QUEUES, SCHEDULE, WORK
from infra.chalice_config import FUNCTIONS
from tests.kit.http import CONTEXT, Api

SCHEDULES = tuple(function.name for function in FUNCTIONS if function.every_minute)


def work(api: Api, *queues: str) -> None:
    """Deliver the messages of these queues to workers, as SQS does; by default of `normal` and `work`."""
    for queue in queues or ("normal", WORK.name):
        received = api.container.queues.receive(queue)
        size = JOB_QUEUES[queue].batch_size
        for batch in (received[start : start + size] for start in range(0, len(received), size)):
            invoke(api, queue, [{"body": message.body, "receiptHandle": message.receipt, "messageId": message.id} for message in batch])
            api.container.queues.acknowledge(queue, [message.receipt for message in batch])


def run_scheduler(api: Api) -> None:
    """Deliver the messages of the queue `schedule`, one after another. Needs an `Api` on a loop: its loops serve for some seconds."""
    for message in api.container.queues.receive(SCHEDULE, 100):
        record = {"body": message.body, "receiptHandle": message.receipt, "messageId": message.id}
        assert api.module.run_scheduler({"Records": [record]}, CONTEXT) == {"batchItemFailures": []}
        api.container.queues.acknowledge(SCHEDULE, [message.receipt])


def invoke(api: Api, queue: str, records: list[dict[str, Any]]) -> None:
    """Invoke the worker of a queue with these records."""
    getattr(api.module, JOB_QUEUES[queue].function)({"Records": records}, CONTEXT)


def sweep(api: Api, after: float = 60.0) -> None:
    """Advance the clock by `after` seconds, and run each scheduled function once."""
    api.container.clock.advance(after)
    for name in SCHEDULES:
        run_schedule(api, name)


def run_schedule(api: Api, name: str) -> None:
    """Invoke one scheduled function, as EventBridge does each minute."""
    fields = ("version", "account", "region", "source", "id", "time", "detail-type")
    getattr(api.module, name)({**dict.fromkeys(fields, ""), "detail": {}, "resources": []}, CONTEXT)
