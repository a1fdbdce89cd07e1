"""Job types with a task handler on the laptop cloud, and the webhook of a batch's end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest
from standardwebhooks import Webhook

from tests.e2e.chaos import AT_TASK, Hit, StrayMessages, Workers
from tests.e2e.stack import Api, Model, Stack, until, words
from tests.e2e.test_batches import Batches, sheet
from tests.e2e.test_webhooks import API, DELIVER, allowed
from tests.kit.receiver import Receiver, receiver


@dataclass
class KilledTask:
    """A task whose worker was killed while other jobs of its lane streamed."""

    task: str
    hit: Hit | None
    streams: list[dict[str, Any]]  # their results
    imported: Future[dict[str, Any]]  # its result
    requests: int  # of the streams


@pytest.fixture(scope="module", autouse=True)
def killed(stack: Stack) -> Iterator[KilledTask]:
    """The file takes seconds to read, and its last row is invalid: the second attempt says so.

    It begins when the lease of the first has run out, which takes half a minute. It waits beside the
    other tests.
    """
    api, model = stack.api(), stack.model()
    model.reply(words(900))
    streams = [api.submit(config=model.config, priority="low") for _ in range(4)]
    for job_id in streams:
        api.wait_for_text(job_id)
    row = json.dumps({"input": "y", "metadata": {f"k{number}": number for number in range(400)}})
    upload = api.upload("application/x-ndjson", (f"{row}\n" * 1_800 + '{"input": 7}\n').encode())
    queues, workers = StrayMessages(stack, Random(0)), Workers(stack, api)
    with queues.short_visibility_timeout():
        task = api.submit(prompt=None, job_type="csv_import", input={"upload_id": upload}, priority="low")
        hit = until(lambda: workers.hit("killed", Random(0), "work", AT_TASK), "a busy worker of tasks")
    results = [api.wait_for_end(job_id) for job_id in streams]

    def wait() -> dict[str, Any]:
        with stack.sweeping():
            return api.wait_for_end(task, 240)  # its lease, a sweep, and the second attempt

    with ThreadPoolExecutor() as threads:
        yield KilledTask(task, hit, results, threads.submit(wait), len(model.requests))
    until(lambda: not queues.left(), "the redelivery of the dead worker's message")


@pytest.fixture
def webhook_receiver() -> Iterator[Receiver]:
    with receiver() as started:
        yield started


def test_csv_import_job_creates_a_batch_from_an_upload(api: Api, model: Model) -> None:
    model.reply("Read.")
    upload = api.upload("text/csv", sheet(30))

    task_input = {"upload_id": upload, "prompt_template": "On {{topic}}: {{input}}", "model": model.name}
    result = api.wait_for_end(api.submit(prompt=None, job_type="csv_import", input=task_input))

    assert (result["status"], result["parsed"]["rows"]) == ("completed", 30), result
    body = Batches(api).wait(result["parsed"]["batch_id"], "completed")
    assert body["counts"]["completed"] == 30


def test_cache_hit_after_a_warmup_costs_nothing(api: Api, model: Model) -> None:
    model.reply("Warm.")
    prompts = [f"What is {number}?" for number in range(3)]
    task_input = {"prompts": prompts, "model": model.name}

    first = api.wait_for_end(api.submit(prompt=None, job_type="cache_warmup", input=task_input))
    Batches(api).wait(first["parsed"]["batch_id"], "completed")

    def warm_up_again() -> dict[str, Any] | None:
        result = api.wait_for_end(api.submit(prompt=None, job_type="cache_warmup", input=task_input))
        return result if result["parsed"]["cached_already"] == 3 else None

    second = until(warm_up_again, "a cache with all responses")
    hit = api.wait_for_end(api.submit(prompt=prompts[1], config={"model": model.name, "cache": True}))

    assert (first["parsed"]["submitted"], second["parsed"]["batch_id"]) == (3, None)
    assert (hit["output"], float(hit["cost"]), hit["cache"]["hit"]) == ("Warm.", 0, True), hit
    assert len(model.requests) == 3


def test_batch_end_and_notification_job_are_delivered(stack: Stack, api: Api, model: Model, webhook_receiver: Receiver) -> None:
    """Both are signed with the tenant's secret and hold no text of a model."""
    model.reply("Secret.")
    with allowed(stack, API, DELIVER):
        secret = stack.api("admin").get("/webhooks")["secret"]

        def submit() -> str | None:
            answer = api.call("POST", "/batches", {"items": ["a", "b"], "config": model.config, "webhook_url": webhook_receiver.url()})
            assert answer.status_code in (202, 400), answer.text
            return str(answer.json()["batch_id"]) if answer.status_code == 202 else None

        batch_id = until(submit, "an API that accepts the address") or ""
        message = {"to": f"webhook:{webhook_receiver.url()}", "subject": "Hello", "message": "The report is there.", "data": {"n": 1}}
        sent = api.wait_for_end(api.submit(prompt=None, job_type="notification", input=message))
        until(lambda: len(webhook_receiver.received) >= 2, "two messages")
        events = [Webhook(secret).verify(one.body, one.headers) for one in webhook_receiver.received]

    assert sent["status"] == "completed", sent
    ended = next(event for event in events if event["type"] == "batch.completed")
    assert (ended["data"]["batch_id"], ended["data"]["status"], ended["data"]["counts"]["completed"]) == (batch_id, "completed", 2)
    assert not any("Secret." in str(event) for event in events)
    [delivery] = api.get(f"/batches/{batch_id}/deliveries")["data"]
    assert delivery["status"] == "delivered"


def test_killing_the_worker_of_a_task_leaves_the_streams_of_its_lane_alone(api: Api, killed: KilledTask) -> None:
    imported = killed.imported.result()

    assert killed.hit is not None
    assert (killed.hit.lane, list(killed.hit.victims)) == ("work", [killed.task])
    assert [(one["status"], one["attempt"], one["output"]) for one in killed.streams] == [("completed", 1, words(900))] * 4
    assert killed.requests == 4
    assert (imported["status"], imported["attempt"], imported["error"]["code"]) == ("failed", 2, "request_invalid"), imported
    attempts = api.get(f"/jobs/{killed.task}/attempts")["data"]
    assert sorted(attempt["error_code"] for attempt in attempts) == ["request_invalid", "worker_lost"]
