"""Job types that send notifications, import batches or warm the cache, through `app.py`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from chalicelib import bootstrap
from chalicelib.domain.notifications.recipients import RecipientAllowlist
from tests.kit import batches
from tests.kit.deliveries import HOOK
from tests.kit.http import Api
from tests.kit.provider import Script
from tests.kit.replies import field_errors
from tests.kit.triggers import deliver, publish_change
from tests.kit.work import work

SLACK = "https://hooks.slack.com/services/T0/B0/abcdefgh"
MESSAGE = {"subject": "All done", "message": "The nightly run is over."}


@pytest.fixture(autouse=True)
def _region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "us-east-1")


@pytest.fixture
def api() -> Iterator[Api]:
    made = Api(*(Script(deltas=["all ", "of it"]) for _ in range(200)))
    made.container.notification_settings.put_allowlist("acme", RecipientAllowlist(emails=("ops@acme.com",), slack={"alerts": SLACK}))
    yield made
    bootstrap.override(None)


def submit(api: Api, kind: str, given: Any, token: str = "user", **more: Any) -> Any:
    return api.call("POST", "/jobs", {"type": kind, "input": given, **more}, token)


def parsed(api: Api, job_id: str) -> Any:
    """The parsed result of a completed job."""
    reply = api.call("GET", f"/jobs/{job_id}/result")
    assert reply.status == 200, reply.text
    assert reply.json["status"] == "completed", reply.text
    return reply.json["parsed"]


def upload_csv(api: Api, data: bytes, token: str = "user") -> str:
    """Upload a CSV file and return its id."""
    upload = api.call("POST", "/uploads", {"content_type": "text/csv", "size": len(data)}, token).json
    api.container.uploads.put(upload["url"], data, "text/csv")
    return str(upload["upload_id"])


# ---- notification


def test_a_notification_job_completes_before_its_deliveries(api: Api) -> None:
    """The delivery log shows `pending` first, and `delivered` once the dispatcher has run."""
    job_id = submit(api, "notification", {"to": ["email:ops@acme.com", f"webhook:{HOOK}"], **MESSAGE}).json["job_id"]
    work(api)
    deliveries = parsed(api, job_id)["deliveries"]
    before = api.call("GET", f"/jobs/{job_id}/deliveries").json["data"]

    deliver(api)

    after = api.call("GET", f"/jobs/{job_id}/deliveries").json["data"]
    assert {one["delivery_id"] for one in deliveries} == {one["delivery_id"] for one in after}
    assert ({one["status"] for one in before}, {one["status"] for one in after}) == ({"pending"}, {"delivered"})
    assert {one["event"] for one in after} == {"notification"}
    assert api.container.email.sent == [("ops@acme.com", "All done", "The nightly run is over.")]


def test_recipients_not_allowed_are_refused_at_submission(api: Api) -> None:
    """Every refused recipient is reported by its path in the input, for a job and an estimate."""
    given = {"to": ["slack:alerts", "email:me@evil.example", "webhook:https://127.0.0.1/", "fax:1"], **MESSAGE}

    for path in ("/jobs", "/jobs/estimate"):
        errors = field_errors(api.call("POST", path, {"type": "notification", "input": given}))
        assert set(errors) == {"input.to.1", "input.to.2", "input.to.3"}
        assert "allowed are email:ops@acme.com, slack:alerts" in errors["input.to.1"]
        assert errors["input.to.2"] == "must be a public address"
        assert errors["input.to.3"] == "must be email:<address>, slack:<name> or webhook:<URL>"
    assert field_errors(submit(api, "notification", {"to": "slack:alerts", **MESSAGE}, "stranger"))["input.to"].startswith("is not allowed")
    assert api.container.jobs.records == {}


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({"to": "slack:alerts", "subject": "x"}, "input.message"),
        ({"to": [], **MESSAGE}, "input.to"),
        ({"to": ["slack:alerts"] * 11, **MESSAGE}, "input.to"),
        ({"to": "slack:alerts", **MESSAGE, "subject": ""}, "input.subject"),
        ({"to": "slack:alerts", **MESSAGE, "cc": "x"}, "input.cc"),
    ],
    ids=["no message", "no recipient", "too many", "no subject", "unknown"],
)
def test_an_invalid_notification_input_is_refused(api: Api, given: Any, path: str) -> None:
    assert path in {found[: len(path)] for found in field_errors(submit(api, "notification", given))}


def test_a_notification_may_contain_the_output_of_its_parent(api: Api) -> None:
    """The recipients may not come from the output of a model."""
    parent = api.submit()
    given = {"to": "slack:alerts", "subject": "Done", "message": "It says: {{parents.a.output}}"}
    job_id = submit(api, "notification", given, depends_on={"a": parent}).json["job_id"]
    work(api)
    publish_change(api, parent)
    work(api)
    deliver(api)

    assert parsed(api, job_id)["deliveries"][0]["recipient"] == "slack:alerts"
    assert "It says: all of it" in str(api.container.webhook_client.requests[0].body)
    errors = field_errors(submit(api, "notification", {**given, "to": "email:{{parents.a.output}}"}, depends_on={"a": parent}))
    assert "input.to" in errors


def test_the_allowlist_is_checked_for_every_row_of_a_notification_batch(api: Api) -> None:
    rows = [{"input": {"to": to, **MESSAGE}} for to in ("slack:alerts", ["slack:alerts", "email:me@evil.example"])]

    errors = field_errors(api.call("POST", "/batches", {"items": rows, "type": "notification"}))
    batch_id = batches.submit(api, rows[:1], type="notification")
    batches.settle(api)

    assert set(errors) == {"items.1.input.to.1"}
    assert batches.get_batch(api, batch_id)["status"] == "completed"


VALID: dict[str, Any] = {
    "notification": {"to": "slack:alerts", **MESSAGE},
    "csv_import": {"upload_id": "upload_1"},
    "cache_warmup": {"prompts": ["x"]},
}


@pytest.mark.parametrize("kind", VALID)
@pytest.mark.parametrize(
    "given", [{}, {"to": 3, "notify": "x", "webhook_url": 7}, {"to": [None], "notify": [1]}, ["slack:alerts"], 3], ids=str
)
def test_the_input_of_a_dependent_row_is_not_validated_at_submission(api: Api, kind: str, given: Any) -> None:
    """Parents may still fill in the input, so the schema is checked once they have ended."""
    rows = [{"input": VALID[kind]}, {"id": "a", "input": given, "depends_on": [api.submit()]}]

    reply = api.call("POST", "/batches", {"items": rows, "type": kind})

    assert reply.status == 202, reply.text


def test_an_imported_notification_never_reaches_a_recipient_not_allowed(api: Api) -> None:
    """The import worker does not know the recipient allowlist; the dispatcher checks it."""
    row = json.dumps({"input": {"to": ["email:me@evil.example", "slack:alerts"], **MESSAGE}})
    upload = api.call("POST", "/uploads", {"content_type": "application/x-ndjson", "size": len(row.encode())}).json
    api.container.uploads.put(upload["url"], row.encode(), "application/x-ndjson")
    job_id = submit(api, "csv_import", {"upload_id": upload["upload_id"], "type": "notification"}).json["job_id"]
    work(api)
    batches.settle(api)
    deliver(api)

    (row_id,) = (job.id for job in api.container.jobs.records.values() if job.batch_id == parsed(api, job_id)["batch_id"])
    log = {one["channel"]: one for one in api.call("GET", f"/jobs/{row_id}/deliveries").json["data"]}
    assert (log["email"]["status"], log["slack"]["status"], api.container.email.sent) == ("failed", "delivered", [])
    assert "no longer on the tenant's allowlist" in log["email"]["attempts"][0]["error"]


# ---- csv_import


def test_a_csv_import_creates_a_batch_and_the_rows_complete(api: Api) -> None:
    """The batch has the options of the import and sends `batch.completed` at its end."""
    upload_id = upload_csv(api, b"prompt,who\nhello,Ada\ngoodbye,Bob\n")
    given = {"upload_id": upload_id, "name": "greetings", "prompt_template": "{{input}}, {{who}}", "webhook_url": HOOK}
    job_id = submit(api, "csv_import", given).json["job_id"]
    work(api)

    result = parsed(api, job_id)
    batches.settle(api)

    assert result["rows"] == 2
    batch = batches.get_batch(api, result["batch_id"])
    assert (batch["name"], batch["user"], batch["status"]) == ("greetings", "alice", "completed")
    assert [request.prompt for request in api.container.provider.requests] == ["hello, Ada", "goodbye, Bob"]
    (delivery,) = api.call("GET", f"/batches/{result['batch_id']}/deliveries").json["data"]
    assert delivery["event"] == "batch.completed"
    stages = api.call("GET", f"/jobs/{job_id}/progress").json["stages"]
    assert [stage["name"] for stage in stages] == ["setup", "reading", "checking", "accepting", "finalization"]


@pytest.mark.parametrize("token", ["colleague", "operator", "stranger"])
def test_an_upload_of_another_user_cannot_be_imported(api: Api, token: str) -> None:
    upload_id = upload_csv(api, b"prompt\nhello\n")
    job_id = submit(api, "csv_import", {"upload_id": upload_id}, token).json["job_id"]

    work(api)

    record = api.call("GET", f"/jobs/{job_id}", token=token).json
    assert (record["status"], record["error"]["code"]) == ("failed", "request_invalid")
    assert api.container.batches.rows == {}


def test_invalid_import_options_are_refused_at_submission(api: Api) -> None:
    """Each invalid option is reported by its path in the input."""
    errors = field_errors(
        submit(
            api, "csv_import", {"upload_id": "upload_1", "batch_size": 0, "config": {"temperature": 7}, "dry_run": True, "priority": "soon"}
        )
    )
    recipients = field_errors(
        submit(api, "csv_import", {"upload_id": "upload_1", "webhook_url": "http://a.example/", "notify": ["slack:other"]})
    )

    assert {path.split(".")[1] for path in errors} == {"batch_size", "config", "dry_run", "priority"}
    assert set(recipients) == {"input.webhook_url", "input.notify.0"}


# ---- cache_warmup


def test_a_warm_up_caches_the_responses_to_its_prompts(api: Api) -> None:
    """A second warm-up submits nothing, and a job with a cached prompt costs nothing."""
    job_id = submit(api, "cache_warmup", {"prompts": ["Say 1.", "Say 2."]}).json["job_id"]
    work(api)
    result = parsed(api, job_id)
    batches.settle(api)
    requests = len(api.container.provider.requests)
    again = submit(api, "cache_warmup", {"prompts": ["Say 1.", "Say 2."]}).json["job_id"]
    hit = api.call("POST", "/jobs", {"prompt": "Say 1.", "config": {"cache": True}}).json["job_id"]

    work(api)

    assert (result["submitted"], requests) == (2, 2)
    assert parsed(api, again) == {"batch_id": None, "cached_already": 2, "submitted": 0}
    assert api.call("GET", f"/jobs/{hit}").json["cost"] == "0.000000"
    assert len(api.container.provider.requests) == requests


def test_a_warm_up_with_invalid_or_too_many_prompts_is_refused(api: Api) -> None:
    errors = field_errors(submit(api, "cache_warmup", {"prompts": [{"content": "x", "depends_on": ["a"]}], "items": []}))
    many = field_errors(submit(api, "cache_warmup", {"prompts": ["x"] * 1_001}))

    assert set(errors) == {"input.prompts.0.depends_on", "input.items"}
    assert set(many) == {"input.prompts"}


@pytest.mark.parametrize(("kind", "limits"), [("notification", (10, 100)), ("csv_import", (5, 20)), ("cache_warmup", (1, 10))])
def test_the_limits_of_a_job_type_are_shown(api: Api, kind: str, limits: tuple[int, int]) -> None:
    shown = api.call("GET", f"/job-types/{kind}").json

    assert (shown["limits"]["concurrency"], shown["limits"]["per_minute"], shown["least_role"]) == (*limits, "user")


def test_warm_ups_over_the_limits_of_their_type_are_held(api: Api) -> None:
    """The reason of a held job names the limit."""
    jobs = [submit(api, "cache_warmup", {"prompts": ["x"]}).json["job_id"] for _ in range(12)]
    for _ in range(12):
        work(api)

    states = [(api.job(job_id).status.value, api.job(job_id).reason) for job_id in jobs]

    assert ("completed", None) in states
    assert {reason for status, reason in states if status == "held"} <= {"type_rate", "type_concurrency"}
    assert [status for status, _ in states].count("held") >= 2
