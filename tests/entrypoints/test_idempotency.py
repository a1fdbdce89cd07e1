"""Repeated requests: nothing is started twice, and a repetition does what the first request could not finish."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chalicelib.domain.auth.identity import Role
from chalicelib.domain.failures import RequestRefused, StreamCut
from chalicelib.domain.jobs.job import Status
from chalicelib.domain.units import rfc3339
from tests.kit.http import Api, Reply, unreachable
from tests.kit.provider import Script
from tests.kit.work import work

FAILS = Script(error=RequestRefused())


def wake_ups(api: Api, lane: str = "normal") -> list[dict[str, Any]]:
    """The wake-ups in the queue of a lane."""
    return [json.loads(message.body) for message in api.container.queues.messages[lane]]


def retry(api: Api, job_id: str, body: Any = None, **headers: str) -> Reply:
    return api.call("POST", f"/jobs/{job_id}/retry", body, **headers)


@pytest.fixture
def failed(api: Api) -> str:
    """A failed job; a retry of it fails, too."""
    api.container.provider.scripts[:] = [FAILS]
    job_id = api.submit()
    work(api)
    assert api.job(job_id).status is Status.FAILED
    return job_id


# ---- submissions


@pytest.mark.parametrize("other", ["colleague", "operator", "stranger"])
def test_idempotency_and_dedupe_keys_belong_to_one_user(api: Api, other: str) -> None:
    """Another caller with the same key gets a new job and learns nothing of the first."""
    body = {"prompt": "x", "dedupe_key": "story:1"}
    first = api.call("POST", "/jobs", body, "user", idempotency_key="1")

    by_key = api.call("POST", "/jobs", body, other, idempotency_key="1")
    by_dedupe_key = api.call("POST", "/jobs", {**body, "prompt": "y"}, "user")

    assert by_key.json["job_id"] != first.json["job_id"]
    assert "idempotent-replayed" not in by_key.headers
    assert "deduplicated" not in by_key.json
    assert by_dedupe_key.json["job_id"] == first.json["job_id"]


def test_a_dedupe_key_belongs_to_the_user_an_operator_submits_for(api: Api) -> None:
    """The user of the job decides, not the caller."""
    alices_job = api.submit("user", dedupe_key="story:1")

    reply = api.call("POST", "/jobs", {"prompt": "x", "dedupe_key": "story:1", "user": "alice"}, "operator")

    assert (reply.json["job_id"], reply.json["deduplicated"]) == (alices_job, True)


def test_a_replay_requires_the_current_right_to_read_the_job(api: Api) -> None:
    """An operator demoted to user no longer sees the job submitted for another user."""
    body = {"prompt": "x", "user": "alice", "dedupe_key": "d"}
    api.call("POST", "/jobs", body, "operator", idempotency_key="k")
    api.change_key("operator", role=Role.USER)

    assert api.call("POST", "/jobs", body, "operator", idempotency_key="k").status == 404


def test_a_deduplicated_response_shows_the_config_of_the_found_job(api: Api) -> None:
    first = api.call("POST", "/jobs", {"prompt": "x", "dedupe_key": "d", "config": {"max_tokens": 111, "priority": "high"}})

    second = api.call("POST", "/jobs", {"prompt": "x", "dedupe_key": "d", "config": {"max_tokens": 222}})

    assert second.json["config"] == first.json["config"]
    assert (second.json["deduplicated"], second.json["queue"], second.json["queue_position"]) == (True, "general:high", None)


def test_a_replay_sends_the_wake_up_missed_by_the_first_request(api: Api) -> None:
    """The first wake-up could not be sent; after a worker has run the job, a replay sends none."""
    api.container.queues.send = unreachable(api.container.queues.send, 1)  # type: ignore[method-assign]
    body = {"prompt": "x"}
    first = api.call("POST", "/jobs", body, idempotency_key="k")
    assert (first.status, wake_ups(api)) == (202, [])

    again = api.call("POST", "/jobs", body, idempotency_key="k")

    assert again.json == first.json
    assert wake_ups(api) == [{"job_id": first.json["job_id"], "generation": 1}]
    work(api)
    api.call("POST", "/jobs", body, idempotency_key="k")
    assert wake_ups(api) == []


def test_a_replay_returns_the_deduplicated_job_after_its_end(api: Api) -> None:
    """The idempotency key stays bound to the found job, so no second job is created."""
    job_id = api.submit(dedupe_key="d")
    body = {"prompt": "y", "dedupe_key": "d"}
    found = api.call("POST", "/jobs", body, idempotency_key="k")
    work(api)

    again = api.call("POST", "/jobs", body, idempotency_key="k")

    assert (found.json["job_id"], again.json["job_id"]) == (job_id, job_id)
    assert (again.headers["idempotent-replayed"], again.json["deduplicated"], again.json["status"]) == ("true", True, "completed")
    assert api.call("POST", "/jobs", {"prompt": "z", "dedupe_key": "d"}, idempotency_key="k").status == 409
    assert len(api.container.jobs.records) == 1


def test_a_replay_skips_the_checks_of_a_new_submission(api: Api) -> None:
    """`expires_at` has passed and the lane is full, but the request was accepted before."""
    body = {"prompt": "x", "expires_at": rfc3339(api.container.clock.now() + 60_000), "ticket": True}
    first = api.call("POST", "/jobs", body, idempotency_key="k")
    api.container.clock.advance(120)
    api.container.queues.depth = lambda _lane: 10**6  # type: ignore[method-assign]

    again = api.call("POST", "/jobs", body, idempotency_key="k")

    assert again.status == 202, again.text
    assert {**again.json, "ticket": ""} == {**first.json, "ticket": ""}
    assert api.call("POST", "/jobs", body).status == 400


def test_concurrent_requests_with_one_idempotency_key_create_one_job(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second request is answered while the first is still creating its job."""
    create = api.container.jobs.create
    second: list[Reply] = []

    def send_second_request(*args: Any) -> None:
        monkeypatch.setattr(api.container.jobs, "create", create)
        second.append(api.call("POST", "/jobs", {"prompt": "x"}, idempotency_key="k"))
        create(*args)

    monkeypatch.setattr(api.container.jobs, "create", send_second_request)
    first = api.call("POST", "/jobs", {"prompt": "x"}, idempotency_key="k")

    assert (first.status, first.json["job_id"]) == (202, second[0].json["job_id"])
    assert len(api.container.jobs.records) == 1


def test_a_full_lane_returns_429_and_names_the_lane(api: Api) -> None:
    """The limit counts messages of all tenants in a lane, so another lane may have room."""
    api.container.queues.depth = lambda lane: 1_000_000 if lane == "normal" else 0  # type: ignore[method-assign]

    full = api.call("POST", "/jobs", {"prompt": "x"})

    assert (full.status, full.json["error"]["code"], full.headers["retry-after"]) == (429, "queue_full", "30")
    assert "normal lane holds 1000000 messages" in full.json["error"]["message"]
    assert api.call("POST", "/jobs", {"prompt": "x", "priority": "high"}).status == 202


# ---- retries


def test_a_retry_with_one_idempotency_key_starts_only_one_run(api: Api, failed: str) -> None:
    """This holds even after the run has failed; another key starts another run."""
    first = retry(api, failed, idempotency_key="k")
    queued_again = retry(api, failed, idempotency_key="k")
    work(api)
    after_the_run = retry(api, failed, idempotency_key="k")

    assert [reply.json["run"] for reply in (first, queued_again, after_the_run)] == [2, 2, 2]
    assert [reply.headers.get("idempotent-replayed") for reply in (first, queued_again, after_the_run)] == [None, "true", "true"]
    assert (after_the_run.status, after_the_run.json["status"]) == (202, "failed")
    assert retry(api, failed, idempotency_key="other").json["run"] == 3


def test_a_replayed_retry_of_a_waiting_attempt_starts_no_new_run(api: Api) -> None:
    """The first retry started the next attempt, which then failed for good."""
    api.container.provider.scripts[:] = [Script(error=StreamCut()), FAILS]
    job_id = api.submit()
    work(api)
    assert api.job(job_id).status is Status.RETRYING

    first = retry(api, job_id, idempotency_key="k")
    work(api)
    again = retry(api, job_id, idempotency_key="k")

    assert (first.json["status"], again.json["status"], again.json["run"]) == ("queued", "failed", 1)
    assert api.job(job_id).status is Status.FAILED


def test_a_retry_key_with_another_job_or_body_is_a_conflict(api: Api, failed: str) -> None:
    retry(api, failed, idempotency_key="k")

    assert retry(api, failed, {"run": 1}, idempotency_key="k").json["error"]["code"] == "idempotency_conflict"
    assert retry(api, api.submit(), idempotency_key="k").json["error"]["code"] == "idempotency_conflict"


def test_a_refused_retry_leaves_its_idempotency_key_unused(api: Api, failed: str) -> None:
    """A queued job cannot be retried; the same key works once the job has failed."""
    retry(api, failed)
    refused = retry(api, failed, idempotency_key="k")
    work(api)

    assert (refused.status, refused.json["error"]["code"]) == (409, "job_not_retryable")
    assert retry(api, failed, idempotency_key="k").json["run"] == 3


def test_a_retry_lost_after_storing_its_key_can_be_repeated(api: Api, failed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key was stored, but the job record was not changed."""
    monkeypatch.setattr(api.container.jobs, "replace", unreachable(api.container.jobs.replace, 1))
    lost = retry(api, failed, idempotency_key="k")

    again = retry(api, failed, idempotency_key="k")

    assert (lost.status, again.status, again.json["run"]) == (503, 202, 2)


@pytest.mark.parametrize(("body", "headers"), [({"run": 1}, {}), (None, {"idempotency_key": "k"})])
def test_a_repeated_retry_sends_the_wake_up_missed_by_the_first(api: Api, failed: str, body: Any, headers: dict[str, str]) -> None:
    """The job record was changed, but its wake-up could not be sent."""
    api.container.queues.send = unreachable(api.container.queues.send, 1)  # type: ignore[method-assign]
    lost = retry(api, failed, body, **headers)

    again = retry(api, failed, body, **headers)

    assert (lost.status, again.status, again.json["status"], again.json["run"]) == (503, 202, "queued", 2)
    assert wake_ups(api) == [{"job_id": failed, "generation": api.job(failed).generation}]


def test_the_run_of_a_retry_is_compared_with_the_latest_record(api: Api, failed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another request starts a run, which fails, between the read and the write."""
    replace, interrupted = api.container.jobs.replace, []

    def interrupt(*args: Any) -> None:
        if not interrupted:
            interrupted.append(True)
            retry(api, failed)
            work(api)
        replace(*args)

    monkeypatch.setattr(api.container.jobs, "replace", interrupt)
    reply = retry(api, failed, {"run": 1})

    assert (reply.status, reply.json["run"], reply.json["status"]) == (202, 2, "failed")
