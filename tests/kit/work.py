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
    """Advance the clock by `after` seconds, and run the sweeper once."""
    api.container.clock.advance(after)
    names = ("version", "account", "region", "source", "id", "time", "detail-type")
    api.module.sweep({**dict.fromkeys(names, ""), "detail": {}, "resources": []}, CONTEXT)
