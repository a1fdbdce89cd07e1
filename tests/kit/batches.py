"""Batches through `app.py`: submit them, and run their Lambda functions one call at a time."""

from __future__ import annotations

from typing import Any

from chalicelib.domain.queues.lanes import WORK
from tests.kit.change_records import change
from tests.kit.http import CONTEXT, Api, Reply
from tests.kit.work import work

MAX_ROUNDS = 200


def submit(api: Api, items: list[Any] | int, token: str = "user", **options: Any) -> str:
    """Submit a batch of these items, or of that many generated items. Return its id."""
    rows = [f"Say {number}." for number in range(items)] if isinstance(items, int) else items
    reply = api.call("POST", "/batches", {"items": rows, **options}, token)
    assert reply.status == 202, reply.text
    return str(reply.json["batch_id"])


def get_batch(api: Api, batch_id: str, token: str = "user", query: str = "") -> Any:
    """Return the batch as the API shows it."""
    reply = api.call("GET", f"/batches/{batch_id}{query}", token=token)
    assert reply.status == 200, reply.text
    return reply.json


def tasks(api: Api) -> int:
    """Deliver the messages that are in the queue `tasks` now. Return how many there were."""
    received = api.container.queues.receive("tasks", 100)
    for message in received:
        api.module.run_tasks({"Records": [{"body": message.body, "receiptHandle": message.receipt, "messageId": message.id}]}, CONTEXT)
        api.container.queues.acknowledge("tasks", [message.receipt])
    return len(received)


def count(api: Api) -> None:
    """Run `count_jobs` on a change record with the newest image of each job."""
    records = [change(None, job) for job in api.container.jobs.records.values()]
    api.module.count_jobs({"Records": records}, CONTEXT)


def settle(api: Api, *lanes: str) -> None:
    """Run task messages, workers of `lanes` and of tasks, and counting, until nothing is left to do."""
    for _ in range(MAX_ROUNDS):
        done = tasks(api)
        for queue in (*(lanes or ("low",)), WORK.name):
            while api.container.queues.depth(queue):
                work(api, queue)
                done += 1
        count(api)
        if not done and not api.container.queues.depth("tasks"):
            return
    raise AssertionError(f"there is still work after {MAX_ROUNDS} rounds")


def export(api: Api, batch_id: str, kind: str = "json", token: str = "user") -> Reply:
    return api.call("GET", f"/batches/{batch_id}/export?format={kind}", token=token)
