"""Workers for what the API has queued, through the triggers of `app.py`."""

from __future__ import annotations

from typing import Any

from tests.kit.http import CONTEXT, Api


def work(api: Api, lane: str = "normal") -> None:
    """Deliver all that waits in a lane, as SQS does."""
    received = api.container.queues.receive(lane)
    if received:
        invoke(api, lane, [{"body": message.body, "receiptHandle": message.receipt, "messageId": message.id} for message in received])
        api.container.queues.acknowledge(lane, [message.receipt for message in received])


def invoke(api: Api, lane: str, records: list[dict[str, Any]]) -> None:
    """One invocation of a lane's worker with these records."""
    getattr(api.module, f"worker_{lane}")({"Records": records}, CONTEXT)


def sweep(api: Api, after: float = 60.0) -> None:
    """One run of the sweep, so many seconds later."""
    api.container.clock.advance(after)
    names = ("version", "account", "region", "source", "id", "time", "detail-type")
    api.module.sweep({**dict.fromkeys(names, ""), "detail": {}, "resources": []}, CONTEXT)
