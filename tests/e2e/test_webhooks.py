"""Webhooks on the laptop cloud, with a receiver on this machine.

Only these tests allow deliveries to loopback.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from standardwebhooks import Webhook

from tests.e2e.stack import Model, Stack, until
from tests.kit.receiver import Receiver, answer, receiver

API, DELIVER = "headrace-local", "headrace-local-deliver"
LOOPBACK = "127.0.0.0/8"


@contextmanager
def allowed(stack: Stack, *functions: str) -> Iterator[None]:
    """Allow these functions to reach loopback, and restore their settings afterwards."""
    client = stack.aws("lambda")
    before = {name: client.get_function_configuration(FunctionName=name)["Environment"]["Variables"] for name in functions}
    try:
        for name, variables in before.items():
            changed = {"Variables": {**variables, "HEADRACE_WEBHOOK_NETWORKS": LOOPBACK}}
            client.update_function_configuration(FunctionName=name, Environment=changed)
        yield
    finally:
        for name, variables in before.items():
            client.update_function_configuration(FunctionName=name, Environment={"Variables": variables})


@pytest.fixture
def webhook_receiver() -> Iterator[Receiver]:
    with receiver() as started:
        yield started


def submit(stack: Stack, url: str, model: Model, prompt: str = "Say something.") -> str:
    """Submit a job with a webhook, until the API has the new setting and accepts it.

    Return its id.
    """

    def post() -> str | None:
        reply = stack.api().call("POST", "/jobs", {"prompt": prompt, "config": model.config, "webhook_url": url})
        assert reply.status_code in (202, 400), reply.text
        return str(reply.json()["job_id"]) if reply.status_code == 202 else None

    return until(post, "an API that accepts the address")


def deliveries(stack: Stack, job_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = stack.api().get(f"/jobs/{job_id}/deliveries")["data"]
    return found


def test_webhook_of_a_job_end_is_signed_and_retried(stack: Stack, model: Model, webhook_receiver: Receiver) -> None:
    """The second attempt carries the same message, signed with the tenant's secret."""
    model.reply("Done.")
    answers = iter([503])
    webhook_receiver.respond = lambda handler: answer(handler, next(answers, 204))
    with allowed(stack, API, DELIVER):
        secret = stack.api("admin").get("/webhooks")["secret"]
        job_id = submit(stack, webhook_receiver.url(), model)
        stack.api().wait_for_end(job_id)
        first, second = until(lambda: webhook_receiver.received if len(webhook_receiver.received) >= 2 else None, "two attempts")[:2]
        (delivery,) = until(lambda: [one for one in deliveries(stack, job_id) if one["status"] == "delivered"], "a delivery")

    event = Webhook(secret).verify(second.body, second.headers)
    assert (event["type"], event["data"]["job_id"]) == ("job.completed", job_id)
    assert event["data"]["links"]["self"] == f"{stack.api_url}/jobs/{job_id}"
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == delivery["message_id"]
    assert first.body == second.body
    assert [one["status_code"] for one in delivery["attempts"]] == [503, 204]
    assert "Done." not in json.dumps(event)


def test_loopback_webhook_is_refused_without_the_setting(stack: Stack, model: Model, webhook_receiver: Receiver) -> None:
    """The API refuses the address, and the dispatcher would not post to it either."""
    model.reply("Done.")
    refused = stack.api().call("POST", "/jobs", {"prompt": "Say something.", "webhook_url": "https://127.0.0.1:8443/"})
    with allowed(stack, API):
        job_id = submit(stack, webhook_receiver.url(), model)
        stack.api().wait_for_end(job_id)
        (delivery,) = until(lambda: [one for one in deliveries(stack, job_id) if one["status"] != "pending"], "a refusal")

    assert refused.status_code == 400
    assert refused.json()["error"]["details"] == [{"path": "webhook_url", "message": "must be a public address"}]
    assert delivery["status"] == "failed"
    assert [(one["status_code"], one["error"]) for one in delivery["attempts"]] == [(None, "the address must begin with https://")]
    assert webhook_receiver.received == []


def test_webhook_of_a_job_with_a_large_prompt_is_sent(stack: Stack, model: Model, webhook_receiver: Receiver) -> None:
    """Its spec, with the recipients, is an object in the bucket, which the function needs a right to read."""
    model.reply("Done.")
    words = [str(number * number) for number in range(20_000)]
    with allowed(stack, API, DELIVER):
        job_id = submit(stack, webhook_receiver.url(), model, " ".join(words))
        stack.api().wait_for_end(job_id)
        until(lambda: [one for one in deliveries(stack, job_id) if one["status"] == "delivered"], "a delivery")

    assert json.loads(webhook_receiver.received[0].body)["data"]["job_id"] == job_id
