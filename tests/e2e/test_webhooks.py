"""Webhooks on the laptop cloud: a receiver on this machine, which only these tests allow to be reached."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from standardwebhooks import Webhook

from tests.e2e.cloud import Model, Stack, until
from tests.kit.receiver import Receiver, answer, receiver

API, DELIVER = "headrace-local", "headrace-local-deliver"
LOOPBACK = "127.0.0.0/8"


@contextmanager
def allowed(stack: Stack, *functions: str) -> Iterator[None]:
    """These functions may reach loopback; afterwards they may not, as before."""
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
def there() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


def submit(stack: Stack, url: str, model: Model) -> str:
    """Accepted, once the API has its new setting."""

    def post() -> str | None:
        reply = stack.api().call("POST", "/jobs", {"prompt": "Say something.", "config": model.config, "webhook_url": url})
        assert reply.status_code in (202, 400), reply.text
        return str(reply.json()["job_id"]) if reply.status_code == 202 else None

    return until(post, "an API that takes the address")


def deliveries(stack: Stack, job_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = stack.api().get(f"/jobs/{job_id}/deliveries")["data"]
    return found


def test_webhook_of_a_job_end_is_signed_and_retried(stack: Stack, model: Model, there: Receiver) -> None:
    """The second attempt carries the same message, signed with the tenant's secret."""
    model.say("Done.")
    answers = iter([503])
    there.respond = lambda handler: answer(handler, next(answers, 204))
    with allowed(stack, API, DELIVER):
        secret = stack.api("admin").get("/webhooks")["secret"]
        job_id = submit(stack, there.url(), model)
        stack.api().wait_for_end(job_id)
        first, second = until(lambda: there.received if len(there.received) >= 2 else None, "two attempts")[:2]
        (kept,) = until(lambda: [one for one in deliveries(stack, job_id) if one["status"] == "delivered"], "a delivery")

    event = Webhook(secret).verify(second.body, second.headers)
    assert (event["type"], event["data"]["job_id"]) == ("job.completed", job_id)
    assert event["data"]["links"]["self"] == f"{stack.api_url}/jobs/{job_id}"
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == kept["message_id"]
    assert first.body == second.body
    assert [one["status_code"] for one in kept["attempts"]] == [503, 204]
    assert "Done." not in json.dumps(event)


def test_loopback_webhook_is_refused_without_the_setting(stack: Stack, model: Model, there: Receiver) -> None:
    """The API refuses the address, and the dispatcher would not post to it either."""
    model.say("Done.")
    refused = stack.api().call("POST", "/jobs", {"prompt": "Say something.", "webhook_url": "https://127.0.0.1:8443/"})
    with allowed(stack, API):
        job_id = submit(stack, there.url(), model)
        stack.api().wait_for_end(job_id)
        (kept,) = until(lambda: [one for one in deliveries(stack, job_id) if one["status"] != "pending"], "a refusal")

    assert refused.status_code == 400
    assert refused.json()["error"]["details"] == [{"path": "webhook_url", "message": "must be a public address"}]
    assert kept["status"] == "failed"
    assert [(one["status_code"], one["error"]) for one in kept["attempts"]] == [(None, "the address must begin with https://")]
    assert there.received == []
