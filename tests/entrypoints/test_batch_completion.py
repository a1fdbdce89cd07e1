"""Notifications of the end of a batch, through `app.py`: once per run to the recipients that the submission names."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from chalicelib import bootstrap
from chalicelib.domain.batches.batch import Batch
from chalicelib.domain.errors import Throttled
from chalicelib.domain.failures import RequestRefused
from chalicelib.domain.notifications.recipients import RecipientAllowlist
from tests.kit import batches
from tests.kit.deliveries import HOOK
from tests.kit.failing_store import refusing
from tests.kit.http import Api
from tests.kit.provider import Script
from tests.kit.replies import field_errors
from tests.kit.triggers import deliver
from tests.kit.work import sweep

SLACK = "https://hooks.slack.com/services/T0/B0/abcdefgh"


@pytest.fixture(autouse=True)
def _region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "us-east-1")


@pytest.fixture
def api() -> Iterator[Api]:
    made = Api(*(Script(deltas=["all ", "of it"]) for _ in range(200)))
    made.container.endpoints["api_url"] = "https://api.example/api"
    made.container.notification_settings.put_allowlist("acme", RecipientAllowlist(emails=("ops@acme.com",), slack={"alerts": SLACK}))
    yield made
    bootstrap.override(None)


def events(api: Api) -> list[Any]:
    """Deliver what is queued, and return all events that the webhook has received."""
    deliver(api)
    return [json.loads(request.body) for request in api.container.webhook_client.requests if request.url == HOOK]


def delivery_log(api: Api, batch_id: str) -> Any:
    reply = api.call("GET", f"/batches/{batch_id}/deliveries")
    assert reply.status == 200, reply.text
    return reply.json["data"]


def fail_requests(api: Api, *numbers: int) -> None:
    """Let the provider refuse these requests, counted from 0."""
    for number in numbers:
        api.container.provider.scripts[number] = Script(deltas=["no"], error=RequestRefused("No."))


def test_the_recipients_of_a_batch_are_notified_of_its_end(api: Api) -> None:
    """The message has counts, cost and links but no prompts or outputs; rows send nothing."""
    batch_id = batches.submit(api, 3, name="three", webhook_url=HOOK, notify=["email:Ops@acme.com", "slack:alerts"])
    assert delivery_log(api, batch_id) == []

    batches.settle(api)

    (event,) = events(api)
    data = event["data"]
    assert event["type"] == "batch.completed"
    assert (data["batch_id"], data["name"], data["status"], data["run"], data["job_type"]) == (batch_id, "three", "completed", 1, "general")
    assert data["counts"] == batches.get_batch(api, batch_id)["counts"]
    assert (data["cost"], data["currency"], data["user"]) == (batches.get_batch(api, batch_id)["cost"], "USD", "alice")
    assert data["links"]["export"] == f"https://api.example/api/batches/{batch_id}/export"
    assert "all of it" not in json.dumps(event)
    ((to, subject, text),) = api.container.email.sent
    assert (to, subject) == ("ops@acme.com", "Headrace: batch three completed")
    assert "3 of 3 rows completed" in text
    deliveries = delivery_log(api, batch_id)
    assert sorted((one["channel"], one["status"], one["event"]) for one in deliveries) == [
        ("email", "delivered", "batch.completed"),
        ("slack", "delivered", "batch.completed"),
        ("webhook", "delivered", "batch.completed"),
    ]
    assert {one["message_id"] for one in deliveries} == {event["id"]}
    assert len(api.container.deliveries.rows) == 3


def _submit_with_one_failure(api: Api) -> str:
    fail_requests(api, 1)
    return batches.submit(api, 3, webhook_url=HOOK)


def _submit_with_too_many_failures(api: Api) -> str:
    fail_requests(api, *range(4))
    return batches.submit(api, 4, webhook_url=HOOK, failure_tolerance=0.25)


def _submit_and_cancel(api: Api) -> str:
    batch_id = batches.submit(api, 3, webhook_url=HOOK)
    assert api.call("DELETE", f"/batches/{batch_id}").status in (200, 202)
    return batch_id


@pytest.mark.parametrize(
    ("submit", "status"),
    [(_submit_with_one_failure, "completed_with_failures"), (_submit_with_too_many_failures, "failed"), (_submit_and_cancel, "cancelled")],
)
def test_every_final_status_of_a_batch_is_notified(api: Api, submit: Callable[[Api], str], status: str) -> None:
    """The event type is always `batch.completed`; `data.status` has the final status."""
    batch_id = submit(api)

    batches.settle(api)
    batches.settle(api)

    (event,) = events(api)
    assert (event["type"], event["data"]["status"], event["data"]["batch_id"]) == ("batch.completed", status, batch_id)
    assert batches.get_batch(api, batch_id)["status"] == status


def test_each_run_of_a_batch_is_notified(api: Api) -> None:
    """Each notification has an id of its own."""
    fail_requests(api, 1)
    batch_id = batches.submit(api, 3, webhook_url=HOOK)
    batches.settle(api)
    api.call("POST", f"/batches/{batch_id}/retry-failed", {})

    batches.settle(api)

    first, second = events(api)
    assert [(one["data"]["run"], one["data"]["status"]) for one in (first, second)] == [(1, "completed_with_failures"), (2, "completed")]
    assert first["id"] != second["id"]


def submit_without_notification(api: Api, *, after: bool) -> str:
    """Return a batch whose end is stored but not notified: a crash came before or `after` storing the deliveries."""
    batch_id = batches.submit(api, 2, webhook_url=HOOK)
    replace = api.container.batches.replace

    def crash(seen: Batch, new: Batch) -> None:
        if new.notified:
            raise Throttled
        replace(seen, new)

    if after:
        api.container.batches.replace = crash  # type: ignore[method-assign]
        batches.settle(api)
        api.container.batches.replace = replace  # type: ignore[method-assign]
    else:
        with refusing(api.container.deliveries, "create", 10**6):
            batches.settle(api)
    stored = api.container.batches.get("acme", batch_id)
    assert stored is not None
    assert (stored.finished_at is None, stored.notified, batch_id in api.container.batches.open) == (False, False, True)
    return batch_id


@pytest.mark.parametrize("after", [False, True], ids=["before storing", "after storing"])
def test_a_missed_batch_notification_is_sent_once_after_a_sweep(api: Api, after: bool) -> None:
    """The crash comes before or after the deliveries are stored; the message id stays the same."""
    batch_id = submit_without_notification(api, after=after)
    before = {event["id"] for event in events(api)}
    assert len(before) == int(after)

    sweep(api)
    batches.settle(api)
    sweep(api, 600)
    batches.settle(api)

    assert len(events(api)) == len(delivery_log(api, batch_id)) == 1
    assert {event["id"] for event in events(api)} >= before
    assert batch_id not in api.container.batches.open


def test_a_retried_batch_still_notifies_the_end_of_its_first_run(api: Api) -> None:
    """The retry arrives before the notification of the first run was stored."""
    fail_requests(api, 0)
    batch_id = submit_without_notification(api, after=False)

    assert api.call("POST", f"/batches/{batch_id}/retry-failed", {}).status == 202
    batches.settle(api)

    sent = {(one["data"]["run"], one["data"]["status"]) for one in events(api)}  # in any order: they are sent at the same time
    assert sent == {(1, "completed_with_failures"), (2, "completed")}


def test_a_batch_without_recipients_stores_no_deliveries(api: Api) -> None:
    batch_id = batches.submit(api, 2)

    with refusing(api.container.deliveries, "create", 1) as calls:
        batches.settle(api)

    assert (calls, delivery_log(api, batch_id)) == ([0], [])


def test_recipients_not_allowed_are_refused(api: Api) -> None:
    """Every refused recipient is reported at once, for a dry run too, and no batch is stored."""
    recipients = {"webhook_url": "http://127.0.0.1/", "notify": ["slack:alerts", "email:me@evil.example"]}

    for more in ({}, {"dry_run": True}):
        errors = field_errors(api.call("POST", "/batches", {"items": ["x"], **recipients, **more}))
        assert errors["webhook_url"] == "must begin with https://"
        assert "allowed are email:ops@acme.com, slack:alerts" in errors["notify.1"]
        assert set(errors) == {"webhook_url", "notify.1"}
    assert api.container.batches.rows == {}


def test_recipients_of_a_csv_batch_are_given_in_the_query(api: Api) -> None:
    """`notify` is a JSON list there."""
    reply = api.call("POST", f'/batches?webhook_url={HOOK}&notify=["slack:alerts"]', raw="prompt\nhello\n", content_type="text/csv")
    batches.settle(api)

    assert reply.status == 202, reply.text
    assert len(events(api)) == 1
    assert sorted(one["channel"] for one in delivery_log(api, reply.json["batch_id"])) == ["slack", "webhook"]
    errors = field_errors(api.call("POST", "/batches?notify=slack:alerts", raw="prompt\nhello\n", content_type="text/csv"))
    assert "must be JSON" in errors["notify"]


@pytest.mark.parametrize(("token", "status"), [("user", 200), ("operator", 200), ("colleague", 404), ("stranger", 404), ("viewer", 403)])
def test_deliveries_of_a_batch_are_visible_only_to_its_user_and_operators(api: Api, token: str, status: int) -> None:
    batch_id = batches.submit(api, 1, webhook_url=HOOK)

    assert api.call("GET", f"/batches/{batch_id}/deliveries", token=token).status == status


def test_an_operator_can_retry_a_delivery(api: Api) -> None:
    batch_id = batches.submit(api, 1, webhook_url=HOOK)
    batches.settle(api)
    events(api)
    (delivery,) = delivery_log(api, batch_id)
    path = f"/batches/{batch_id}/deliveries/{delivery['delivery_id']}/retry"

    assert api.call("POST", path, {}).status == 403
    assert api.call("POST", path, {}, "operator").json["status"] == "pending"
    assert api.call("POST", f"/batches/{batch_id}/deliveries/dlv_none/retry", {}, "operator").status == 404

    assert [event["id"] for event in events(api)] == [delivery["message_id"]] * 2
