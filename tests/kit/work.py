"""Run workers and the sweeper through the triggers of `app.py`."""

from __future__ import annotations

from typing import Any

from tests.kit.http import CONTEXT, Api


def work(api: Api, lane: str = "normal") -> None:
    """Deliver the messages of a lane to a worker, as SQS does."""
    received = api.container.queues.receive(lane)
    if received:
        invoke(api, lane, [{"body": message.body, "receiptHandle": message.receipt, "messageId": message.id} for message in received])
        api.container.queues.acknowledge(lane, [message.receipt for message in received])


def invoke(api: Api, lane: str, records: list[dict[str, Any]]) -> None:
    """Invoke a lane's worker with these records."""
    getattr(api.module, f"worker_{lane}")({"Records": records}, CONTEXT)


def sweep(api: Api, after: float = 60.0) -> None:
    """Advance the clock by `after` seconds, and run each scheduled function once."""
    api.container.clock.advance(after)
    for name in ("sweep", "sweep_batches", "sweep_deliveries", "sweep_bulk_operations"):
        run_schedule(api, name)


def run_schedule(api: Api, name: str) -> None:
    """Invoke one scheduled function, as EventBridge does each minute."""
    fields = ("version", "account", "region", "source", "id", "time", "detail-type")
    getattr(api.module, name)({**dict.fromkeys(fields, ""), "detail": {}, "resources": []}, CONTEXT)
