"""`/jobs` through `app.py`, with events as API Gateway sends them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chalicelib.domain.jobs.job import Status
from tests.kit.http import Api
from tests.kit.replies import field_errors


def test_a_submission_returns_everything_the_client_needs_next(api: Api) -> None:
    """The queue of the lane has one wake-up for the tenant."""
    reply = api.call("POST", "/jobs", {"prompt": "Audit this.", "job_type": "general", "config": {"priority": "high"}, "ticket": True})

    assert reply.status == 202
    body = reply.json
    assert body["success"] is True
    assert (body["status"], body["queue"], body["queue_position"]) == ("queued", "general:high", 1)
    assert body["links"]["stream"] == f"/jobs/{body['job_id']}/stream"
    assert body["links"]["websocket"] == "wss://ws.example/api"
    assert float(body["max_cost"]) > float(body["estimated_cost"]) > 0
    assert body["currency"] == "USD"
    assert body["config"]["model"] == "gpt-4o-mini"
    assert body["ticket"].startswith("hrt_")
    [message] = api.container.queues.messages["high"]
    assert (json.loads(message.body), message.tenant) == ({"job_id": body["job_id"], "generation": 1}, "acme")
    assert reply.headers["headrace-version"] == "1"
    assert reply.headers["x-request-id"] == "request-1"
    assert reply.headers["ratelimit-policy"] == '"key";q=600;w=60'


def test_all_invalid_fields_are_reported_at_once(api: Api) -> None:
    """An unknown field is reported with the nearest known name."""
    reply = api.call(
        "POST",
        "/jobs",
        {"promt": "x", "config": {"temperature": "hot", "max_tokens": 1}, "tags": [1], "priority": "soon", "depends_on": ["job_1"]},
    )

    assert reply.status == 400
    assert reply.json["success"] is False
    assert reply.json["error"]["code"] == "invalid_request"
    errors = field_errors(reply)
    assert {"promt", "config.temperature", "config.max_tokens", "tags.0", "priority", "depends_on.0"} <= set(errors)
    assert "prompt" in errors["promt"]
    assert "the id of a job" in errors["depends_on.0"]


@pytest.mark.parametrize(
    ("config", "invalid"),
    [
        ({"durable": True, "timeout": 86_400}, None),
        ({"durable": True, "openai": {"store": True}}, None),
        ({"durable": None, "timeout": 840}, None),
        ({"durable": True, "timeout": 86_401}, "config.timeout"),
        ({"timeout": 841}, "config.timeout"),
        ({"durable": False, "timeout": 841}, "config.timeout"),
        ({"durable": "yes"}, "config.durable"),
        ({"durable": 1}, "config.durable"),
        ({"durable": True, "openai": {"store": False}}, "config.openai.store"),
    ],
)
def test_only_durable_jobs_may_run_for_a_day(api: Api, config: dict[str, Any], invalid: str | None) -> None:
    """Other jobs must end within one worker invocation; conflicting options are reported."""
    reply = api.call("POST", "/jobs", {"prompt": "x", "config": config})

    assert reply.status == (202 if invalid is None else 400)
    if invalid is None:
        assert reply.json["config"]["durable"] is bool(config["durable"])
    else:
        assert set(field_errors(reply)) == {invalid}


@pytest.mark.parametrize(
    "raw",
    [
        "{",
        "[]",
        '"text"',
        "null",
        "\ufeff{}",
        '{"prompt": NaN}',
        "[" * 100_000,
        '{"prompt": "\\ud800"}',
        '{"prompt": {"a": 1}}',
        '{"prompt": "  "}',
    ],
    ids=["cut", "list", "string", "null", "bom", "nan", "deep", "lone surrogate", "object", "blank"],
)
def test_a_malformed_body_never_causes_an_internal_error(api: Api, raw: str) -> None:
    """A refused body creates no job, and no response shows a stack trace."""
    reply = api.call("POST", "/jobs", raw=raw)

    assert reply.status == 400
    assert reply.json["error"]["code"] == "invalid_request"
    assert not api.container.jobs.records
    assert "Traceback" not in reply.text


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"prompt": "x", "type": "general", "job_type": "security_analysis"}, "type"),
        ({"prompt": "x", "priority": "low", "config": {"priority": "high"}}, "priority"),
        ({"prompt": "x", "metadata": {"a": "b" * 17_000}}, "metadata"),
        ({"prompt": "x", "expires_at": "yesterday"}, "expires_at"),
        ({"prompt": "x", "user": "another-user"}, "user"),
        ({"prompt": "x" * 1_000_001}, "prompt"),
        ({"prompt": "x", "input": {}}, "input"),
        ({"prompt": "x", "options": {"unheard_of": 1}}, "options.unheard_of"),
        ({"prompt": "x", "config": {"response_format": {"type": "json_schema", "schema": {"type": "nonsense"}}}}, "config.response_format"),
    ],
)
def test_an_invalid_or_conflicting_field_is_named_in_the_error(api: Api, body: dict[str, Any], path: str) -> None:
    """The cases are differing aliases, limits and missing rights."""
    reply = api.call("POST", "/jobs", body)

    assert reply.status == 400
    assert any(name.startswith(path) for name in field_errors(reply))


def test_agreeing_aliases_are_accepted(api: Api) -> None:
    """`type` is an alias of `job_type`, and `priority` of `config.priority`."""
    body = {"prompt": "x", "type": "general", "job_type": "general", "priority": "low", "config": {"priority": "low"}}

    assert api.call("POST", "/jobs", body).json["queue"] == "general:low"


def test_the_error_for_an_unknown_job_type_suggests_a_similar_type(api: Api) -> None:
    reply = api.call("POST", "/jobs", {"prompt": "x", "job_type": "security_analysys"})

    assert (reply.status, reply.json["error"]["code"]) == (404, "job_type_not_found")
    assert "security_analysis" in reply.json["error"]["message"]


def test_a_repeated_idempotency_key_returns_the_first_response(api: Api) -> None:
    """Another body with the same key is a conflict; tenants do not share keys."""
    body = {"prompt": "once"}
    first = api.call("POST", "/jobs", body, idempotency_key="k1")
    again = api.call("POST", "/jobs", body, idempotency_key="k1")
    other_body = api.call("POST", "/jobs", {"prompt": "twice"}, idempotency_key="k1")
    other_tenant = api.call("POST", "/jobs", body, "stranger", idempotency_key="k1")

    assert again.json == first.json
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    assert (other_body.status, other_body.json["error"]["code"]) == (409, "idempotency_conflict")
    assert other_tenant.json["job_id"] != first.json["job_id"]
    assert len(api.container.jobs.records) == 2
    assert api.call("POST", "/jobs", body, idempotency_key="k" * 256).status == 400


def test_a_refused_request_leaves_its_idempotency_key_unused(api: Api) -> None:
    """The corrected request may use the same key."""
    assert api.call("POST", "/jobs", {"prompt": ""}, idempotency_key="k2").status == 400
    assert api.call("POST", "/jobs", {"prompt": "now right"}, idempotency_key="k2").status == 202


def test_a_dedupe_key_returns_the_unfinished_job(api: Api) -> None:
    """Once the job has ended, the same dedupe key creates a new job."""
    first = api.call("POST", "/jobs", {"prompt": "x", "dedupe_key": "story:1"})
    second = api.call("POST", "/jobs", {"prompt": "x", "dedupe_key": "story:1"})
    api.call("DELETE", f"/jobs/{first.json['job_id']}")
    third = api.call("POST", "/jobs", {"prompt": "x", "dedupe_key": "story:1"})

    assert second.json["job_id"] == first.json["job_id"]
    assert second.json["deduplicated"] is True
    assert third.json["job_id"] != first.json["job_id"]


def test_an_estimate_creates_nothing(api: Api) -> None:
    reply = api.call("POST", "/jobs/estimate", {"prompt": "x" * 1000, "job_type": "security_analysis"})

    assert reply.status == 200
    assert float(reply.json["max_cost"]) > float(reply.json["estimated_cost"]) > 0
    assert not api.container.jobs.records


def test_an_unknown_price_is_null(api: Api) -> None:
    """`null` means unknown, and the fields are never missing."""
    reply = api.call("POST", "/jobs/estimate", {"prompt": "x", "config": {"model": "some-model-of-tomorrow"}})

    assert reply.json["estimated_cost"] is None
    assert reply.json["max_cost"] is None


@pytest.mark.parametrize("token", [None, "nonsense", ""])
def test_a_request_without_a_valid_key_returns_401(api: Api, token: str | None) -> None:
    assert api.call("GET", "/jobs", token=token).status == 401


def test_a_job_of_another_user_or_tenant_is_not_found_on_any_route(api: Api) -> None:
    """An operator of the tenant does see the job."""
    job_id = api.submit()
    routes = [("GET", suffix) for suffix in ("", "/status", "/progress", "/progress-history", "/text", "/result", "/attempts", "/stream")]
    routes += [("DELETE", ""), ("POST", "/cancel"), ("POST", "/retry")]

    for method, suffix in routes:
        for token in ("stranger", "colleague"):
            reply = api.call(method, f"/jobs/{job_id}{suffix}", {} if method == "POST" else None, token)
            assert (reply.status, reply.json["error"]["code"]) == (404, "job_not_found"), (method, suffix, token)
    assert api.call("GET", f"/jobs/{job_id}", token="operator").status == 200
    assert api.container.jobs.records[job_id].status is Status.QUEUED


def test_a_viewer_sees_statuses_and_no_content(api: Api) -> None:
    """Content written by people or models is null or refused."""
    job_id = api.submit(metadata={"secret": "plan"}, dedupe_key="secret:key")

    record = api.call("GET", f"/jobs/{job_id}?include=prompt", token="viewer")

    assert record.json["status"] == "queued"
    assert [record.json[name] for name in ("metadata", "config", "prompt", "dedupe_key")] == [None] * 4
    assert "secret" not in record.text
    for suffix in ("/text", "/result", "/stream", "/attempts"):
        assert api.call("GET", f"/jobs/{job_id}{suffix}", token="viewer").status == 403
    assert api.call("POST", "/jobs", {"prompt": "x"}, "viewer").status == 403
    assert api.call("DELETE", f"/jobs/{job_id}", token="viewer").status == 403


def test_the_prompt_of_a_job_is_returned_only_on_request(api: Api) -> None:
    job_id = api.submit(metadata={"a": 1}, tags=["x", "x", "y"])

    plain, full = api.call("GET", f"/jobs/{job_id}"), api.call("GET", f"/jobs/{job_id}?include=prompt")

    assert "prompt" not in plain.json
    assert full.json["prompt"] == "Say hello."
    assert (plain.json["metadata"], plain.json["tags"]) == ({"a": 1}, ["x", "y"])
    assert plain.json["created_at"].endswith("Z")


def test_an_unchanged_job_returns_304(api: Api) -> None:
    """With `wait` the request is held for a change before the 304."""
    job_id = api.submit()
    for suffix in ("", "/status", "/progress"):
        tag = api.call("GET", f"/jobs/{job_id}{suffix}").headers["etag"]
        again = api.call("GET", f"/jobs/{job_id}{suffix}", if_none_match=tag)
        assert (again.status, again.text, again.headers["etag"]) == (304, "", tag)
    before = api.container.clock.now()
    held = api.call("GET", f"/jobs/{job_id}/status?wait=10", if_none_match=tag)
    assert held.status == 304
    assert 10_000 <= api.container.clock.now() - before <= 11_000


def test_a_queued_job_is_cancelled_at_once(api: Api) -> None:
    """A second cancellation is harmless, and a retry starts a new run."""
    job_id = api.submit()

    first, second = api.call("DELETE", f"/jobs/{job_id}"), api.call("POST", f"/jobs/{job_id}/cancel")
    assert (first.status, first.json["status"]) == (200, "cancelled")
    assert second.status == 200
    retried = api.call("POST", f"/jobs/{job_id}/retry")
    assert (retried.status, retried.json["status"], retried.json["run"]) == (202, "queued", 2)
    repeated = api.call("POST", f"/jobs/{job_id}/retry", {"run": 1})
    assert (repeated.status, repeated.json["run"]) == (202, 2)
    assert api.call("POST", f"/jobs/{job_id}/retry").status == 409


def test_a_list_is_paginated_with_cursors_bound_to_the_query(api: Api) -> None:
    """The newest job comes first, and every job appears once."""
    job_ids = [api.submit(priority="low" if number % 2 else "high") for number in range(7)]
    seen: list[str] = []
    cursor = ""
    while cursor is not None:
        page = api.call("GET", f"/jobs?limit=3{'&cursor=' + cursor if cursor else ''}").json
        seen += [row["job_id"] for row in page["data"]]
        cursor = page["next_cursor"]

    assert seen == job_ids[::-1]
    first = api.call("GET", "/jobs?limit=3").json["next_cursor"]
    assert api.call("GET", f"/jobs?limit=3&status=failed&cursor={first}").status == 400
    assert api.call("GET", "/jobs?cursor=garbage").status == 400


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "status=done", "priority=soon", "since=now", "colour=red"])
def test_a_list_with_an_invalid_query_is_refused(api: Api, query: str) -> None:
    assert api.call("GET", f"/jobs?{query}").status == 400


def test_a_list_can_be_filtered(api: Api) -> None:
    """Filters can be combined, and users see only their own jobs."""
    mine = api.submit(tags=["red"], priority="high")
    other = api.submit("colleague")
    api.call("DELETE", f"/jobs/{mine}")

    def ids(query: str, token: str = "operator") -> list[str]:
        return [row["job_id"] for row in api.call("GET", f"/jobs?{query}", token=token).json["data"]]

    assert ids("status=cancelled") == [mine]
    assert ids("status=queued") == [other]
    assert ids("tag=red&priority=high") == [mine]
    assert ids("tag=red&priority=low") == []
    assert ids("user=bob") == [other]
    assert ids("", "user") == [mine]
    assert ids("user=bob", "user") == []
    assert ids("", "stranger") == []


def test_requests_over_the_rate_limit_return_429(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The response has Retry-After, and the next window accepts requests again."""
    for _ in range(600):
        api.container.request_counters.increment("key#key_user", api.container.clock.now() // 60_000, 0)

    refused = api.call("GET", "/me")

    assert (refused.status, refused.json["error"]["code"]) == (429, "rate_limited")
    assert refused.headers["ratelimit"].startswith('"key";r=0;')
    assert 0 < int(refused.headers["retry-after"]) <= 60
    api.container.clock.advance(61)
    assert api.call("GET", "/me").status == 200


def test_a_revoked_key_is_refused_within_a_minute(api: Api) -> None:
    from dataclasses import replace

    assert api.call("GET", "/me").status == 200
    key = next(key for key in api.container.api_keys.keys("acme") if key.id == "key_user")
    api.container.api_keys.put_key(replace(key, revoked_at=api.container.clock.now()))
    api.container.clock.advance(31)

    assert api.call("GET", "/me").status == 401


def test_framework_errors_have_the_error_format_of_the_api(api: Api) -> None:
    """Chalice itself refuses a wrong media type or method."""
    media = api.call("POST", "/jobs", raw="prompt=x", content_type="text/plain")
    assert (media.status, media.json["error"]["code"]) == (415, "unsupported_media_type")
    method = api.call("DELETE", "/me")
    assert (method.status, method.json["error"]["code"]) == (405, "method_not_allowed")
    assert media.headers["headrace-version"] == "1"


def test_health_is_public(api: Api) -> None:
    reply = api.call("GET", "/health", token=None)

    assert (reply.status, reply.json["status"]) == (200, "ok")


def test_job_types_are_listed_with_their_schemas(api: Api) -> None:
    names = [row["job_type"] for row in api.call("GET", "/job-types").json["data"]]
    assert {"general", "security_analysis"} <= set(names)
    assert api.call("GET", "/job-types/security_analysis").json["response_schema"]["type"] == "object"
    assert api.call("GET", "/job-types/nope").status == 404


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"delay": 5, "run_at": "2099-01-01T00:00:00Z"}, "run_at"),
        ({"delay": -1}, "delay"),
        ({"delay": 2_592_001}, "delay"),
        ({"run_at": "tomorrow"}, "run_at"),
        ({"run_at": "2099-01-01T00:00:00Z"}, "run_at"),
        ({"delay": 100, "expires_at": "2025-11-22T08:27:00Z"}, "expires_at"),
    ],
)
def test_an_invalid_start_time_is_refused(api: Api, fields: dict[str, Any], path: str) -> None:
    """The start must lie within thirty days, be given once, and precede the expiry."""
    reply = api.call("POST", "/jobs", {"prompt": "x", **fields})

    assert reply.status == 400
    assert path in field_errors(reply)


def test_a_delayed_job_waits_for_its_start_time(api: Api) -> None:
    """`expires_in` counts from the start time, and a start time in the past means now."""
    reply = api.call("POST", "/jobs", {"prompt": "x", "delay": 3_600, "expires_in": 60}, idempotency_key="later")
    replay = api.call("POST", "/jobs", {"prompt": "x", "delay": 3_600, "expires_in": 60}, idempotency_key="later")
    record = api.call("GET", f"/jobs/{reply.json['job_id']}").json

    assert replay.json == reply.json
    assert (reply.json["status"], reply.json["queue_position"]) == ("waiting", None)
    assert (record["status"], record["reason"]) == ("waiting", "run_at")
    assert record["next_attempt_at"] == "2025-11-22T09:26:40.000Z"
    assert record["expires_at"] == "2025-11-22T09:27:40.000Z"
    assert not api.container.queues.messages["normal"]
    assert api.call("POST", "/jobs", {"prompt": "x", "run_at": "2020-01-01T00:00:00Z"}).json["status"] == "queued"
