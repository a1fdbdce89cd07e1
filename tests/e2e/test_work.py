"""Work that is no OpenAI call on the laptop cloud: messages, imports, warm-ups; and what a batch's end tells others."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import pytest
from standardwebhooks import Webhook

from tests.e2e.cloud import Api, Model, Stack, until
from tests.e2e.test_batches import Batches, sheet
from tests.e2e.test_webhooks import API, DELIVER, allowed
from tests.kit.receiver import Receiver, receiver


@pytest.fixture
def there() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


def test_csv_import_job_creates_a_batch_from_an_upload(api: Api, model: Model) -> None:
    model.say("Read.")
    ticket = api.call("POST", "/uploads", {"content_type": "text/csv"}).json()
    put = httpx2.request(ticket["method"], ticket["url"], content=sheet(30), headers=ticket["headers"], trust_env=False)
    assert put.status_code == 200, put.text

    given = {"upload_id": ticket["upload_id"], "prompt_template": "On {{topic}}: {{input}}", "model": model.name}
    result = api.wait_for_end(api.submit(prompt=None, job_type="csv_import", input=given))

    assert (result["status"], result["parsed"]["rows"]) == ("completed", 30), result
    body = Batches(api).wait(result["parsed"]["batch_id"], "completed")
    assert body["counts"]["completed"] == 30


def test_cache_hit_after_a_warmup_costs_nothing(api: Api, model: Model) -> None:
    model.say("Warm.")
    prompts = [f"What is {number}?" for number in range(3)]
    given = {"prompts": prompts, "model": model.name}

    first = api.wait_for_end(api.submit(prompt=None, job_type="cache_warmup", input=given))
    Batches(api).wait(first["parsed"]["batch_id"], "completed")
    again = until(
        lambda: (
            (one := api.wait_for_end(api.submit(prompt=None, job_type="cache_warmup", input=given)))["parsed"]["cached_already"] == 3
            and one
        ),
        "a cache that has all answers",
    )
    hit = api.wait_for_end(api.submit(prompt=prompts[1], config={"model": model.name, "cache": True}))

    assert (first["parsed"]["submitted"], again and again["parsed"]["batch_id"]) == (3, None)
    assert (hit["output"], float(hit["cost"]), hit["cache"]["hit"]) == ("Warm.", 0, True), hit
    assert len(model.requests) == 3


def test_batch_end_and_notification_job_are_delivered(stack: Stack, api: Api, model: Model, there: Receiver) -> None:
    """Both are signed with the tenant's secret and hold no text of a model."""
    model.say("Secret.")
    with allowed(stack, API, DELIVER):
        secret = stack.api("admin").get("/webhooks")["secret"]

        def begin() -> str | None:
            answer = api.call("POST", "/batches", {"items": ["a", "b"], "config": model.config, "webhook_url": there.url()})
            assert answer.status_code in (202, 400), answer.text
            return str(answer.json()["batch_id"]) if answer.status_code == 202 else None

        batch_id = until(begin, "an API that takes the address") or ""
        message = {"to": f"webhook:{there.url()}", "subject": "Hello", "message": "The report is there.", "data": {"n": 1}}
        sent = api.wait_for_end(api.submit(prompt=None, job_type="notification", input=message))
        until(lambda: len(there.received) >= 2, "two messages")
        events = [Webhook(secret).verify(one.body, one.headers) for one in there.received]

    assert sent["status"] == "completed", sent
    ended = next(event for event in events if event["type"] == "batch.completed")
    assert (ended["data"]["batch_id"], ended["data"]["status"], ended["data"]["counts"]["completed"]) == (batch_id, "completed", 2)
    assert not any("Secret." in str(event) for event in events)
    [delivery] = api.get(f"/batches/{batch_id}/deliveries")["data"]
    assert delivery["status"] == "delivered"
