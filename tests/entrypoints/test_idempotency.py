"""Requests that are sent again: what was begun once is never begun twice, and what got lost on the way is made good."""

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
    return [json.loads(message.body) for message in api.container.queues.messages[lane]]


def retry(api: Api, job_id: str, body: Any = None, **headers: str) -> Reply:
    return api.call("POST", f"/jobs/{job_id}/retry", body, **headers)


@pytest.fixture
def failed(api: Api) -> str:
    """A job whose every attempt fails for good."""
    api.container.provider.scripts[:] = [FAILS]
    job_id = api.submit()
    work(api)
    assert api.head(job_id).status is Status.FAILED
    return job_id


# ---- submissions


@pytest.mark.parametrize("other", ["colleague", "operator", "stranger"])
def test_keys_and_dedupe_keys_are_a_users_own(api: Api, other: str) -> None:
    """Whoever else sends the same key, guessed or by chance, makes a job of their own and learns nothing of the first."""
    body = {"prompt": "x", "dedupe_key": "story:1"}
    first = api.call("POST", "/jobs", body, "user", idempotency_key="1")

    by_key = api.call("POST", "/jobs", body, other, idempotency_key="1")
    by_dedupe_key = api.call("POST", "/jobs", {**body, "prompt": "y"}, "user")

    assert by_key.json["job_id"] != first.json["job_id"]
    assert "idempotent-replayed" not in by_key.headers
    assert "deduplicated" not in by_key.json
    assert by_dedupe_key.json["job_id"] == first.json["job_id"]


def test_an_operator_finds_the_job_of_whom_they_submit_for(api: Api) -> None:
    """A dedupe key belongs to the user of the job, not to whoever typed it."""
    hers = api.submit("user", dedupe_key="story:1")

    reply = api.call("POST", "/jobs", {"prompt": "x", "dedupe_key": "story:1", "user": "alice"}, "operator")

    assert (reply.json["job_id"], reply.json["deduplicated"]) == (hers, True)


def test_who_may_not_read_a_job_any_more_is_not_shown_it_again(api: Api) -> None:
    """A replay and a found job are answers like any other: the caller's present rights decide."""
    body = {"prompt": "x", "user": "alice", "dedupe_key": "d"}
    api.call("POST", "/jobs", body, "operator", idempotency_key="k")
    api.change_key("operator", role=Role.USER)

    assert api.call("POST", "/jobs", body, "operator", idempotency_key="k").status == 404


def test_a_job_that_was_found_is_shown_as_it_is(api: Api) -> None:
    """`config` is the found job's, not what this request would have made of it."""
    first = api.call("POST", "/jobs", {"prompt": "x", "dedupe_key": "d", "config": {"max_tokens": 111, "priority": "high"}})

    second = api.call("POST", "/jobs", {"prompt": "x", "dedupe_key": "d", "config": {"max_tokens": 222}})

    assert second.json["config"] == first.json["config"]
    assert (second.json["deduplicated"], second.json["queue"], second.json["queue_position"]) == (True, "general:high", None)


def test_a_replay_wakes_a_job_that_nobody_was_told_of(api: Api) -> None:
    """The wake-up could not be sent and the answer was lost: the repetition sends it; once a worker has had it, no more."""
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


def test_a_found_job_is_what_its_key_stands_for(api: Api) -> None:
    """A request with a key that found an unfinished job finds it again, though it has ended meanwhile; no second job is made."""
    job_id = api.submit(dedupe_key="d")
    body = {"prompt": "y", "dedupe_key": "d"}
    found = api.call("POST", "/jobs", body, idempotency_key="k")
    work(api)

    again = api.call("POST", "/jobs", body, idempotency_key="k")

    assert (found.json["job_id"], again.json["job_id"]) == (job_id, job_id)
    assert (again.headers["idempotent-replayed"], again.json["deduplicated"], again.json["status"]) == ("true", True, "completed")
    assert api.call("POST", "/jobs", {"prompt": "z", "dedupe_key": "d"}, idempotency_key="k").status == 409
    assert len(api.container.jobs.heads) == 1


def test_a_replay_is_answered_whatever_its_fields_mean_by_now(api: Api) -> None:
    """`expires_at` is past when the request is repeated, and the lane is full: it is still the request that was accepted."""
    body = {"prompt": "x", "expires_at": rfc3339(api.container.clock.now() + 60_000), "ticket": True}
    first = api.call("POST", "/jobs", body, idempotency_key="k")
    api.container.clock.advance(120)
    api.container.queues.depth = lambda _lane: 10**6  # type: ignore[method-assign]

    again = api.call("POST", "/jobs", body, idempotency_key="k")

    assert again.status == 202, again.text
    assert {**again.json, "ticket": ""} == {**first.json, "ticket": ""}
    assert api.call("POST", "/jobs", body).status == 400


def test_two_at_the_same_moment_are_one(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request with a key that another is just answering gets that answer."""
    create = api.container.jobs.create
    between: list[Reply] = []

    def second_comes_between(*args: Any) -> None:
        monkeypatch.setattr(api.container.jobs, "create", create)
        between.append(api.call("POST", "/jobs", {"prompt": "x"}, idempotency_key="k"))
        create(*args)

    monkeypatch.setattr(api.container.jobs, "create", second_comes_between)
    first = api.call("POST", "/jobs", {"prompt": "x"}, idempotency_key="k")

    assert (first.status, first.json["job_id"]) == (202, between[0].json["job_id"])
    assert len(api.container.jobs.heads) == 1


def test_a_full_lane_says_that_it_is_the_lane(api: Api) -> None:
    """The limit is of all tenants' messages in the lane; another lane may have room."""
    api.container.queues.depth = lambda lane: 100_000 if lane == "normal" else 0  # type: ignore[method-assign]

    full = api.call("POST", "/jobs", {"prompt": "x"})

    assert (full.status, full.json["error"]["code"], full.headers["retry-after"]) == (429, "queue_full", "30")
    assert "normal lane holds 100000 messages" in full.json["error"]["message"]
    assert api.call("POST", "/jobs", {"prompt": "x", "priority": "high"}).status == 202


# ---- retries


def test_a_retry_with_a_key_starts_one_run(api: Api, failed: str) -> None:
    """However often it is sent, and even if that run has failed meanwhile; another key opens another run."""
    first = retry(api, failed, idempotency_key="k")
    queued_again = retry(api, failed, idempotency_key="k")
    work(api)
    after_the_run = retry(api, failed, idempotency_key="k")

    assert [reply.json["run"] for reply in (first, queued_again, after_the_run)] == [2, 2, 2]
    assert [reply.headers.get("idempotent-replayed") for reply in (first, queued_again, after_the_run)] == [None, "true", "true"]
    assert (after_the_run.status, after_the_run.json["status"]) == (202, "failed")
    assert retry(api, failed, idempotency_key="other").json["run"] == 3


def test_a_retry_of_a_waiting_attempt_with_a_key_never_becomes_a_run(api: Api) -> None:
    """It started the next attempt, which failed for good: the repetition opens no new run of its own."""
    api.container.provider.scripts[:] = [Script(error=StreamCut()), FAILS]
    job_id = api.submit()
    work(api)
    assert api.head(job_id).status is Status.RETRYING

    first = retry(api, job_id, idempotency_key="k")
    work(api)
    again = retry(api, job_id, idempotency_key="k")

    assert (first.json["status"], again.json["status"], again.json["run"]) == ("queued", "failed", 1)
    assert api.head(job_id).status is Status.FAILED


def test_a_key_of_a_retry_stands_for_one_job_and_body(api: Api, failed: str) -> None:
    """Another job or another body with the same key is a conflict."""
    retry(api, failed, idempotency_key="k")

    assert retry(api, failed, {"run": 1}, idempotency_key="k").json["error"]["code"] == "idempotency_conflict"
    assert retry(api, api.submit(), idempotency_key="k").json["error"]["code"] == "idempotency_conflict"


def test_a_refused_retry_does_not_use_its_key_up(api: Api, failed: str) -> None:
    """Refused while the job is queued; sent again with the same key once it has failed, it starts a run."""
    retry(api, failed)
    refused = retry(api, failed, idempotency_key="k")
    work(api)

    assert (refused.status, refused.json["error"]["code"]) == (409, "job_not_retryable")
    assert retry(api, failed, idempotency_key="k").json["run"] == 3


def test_a_key_whose_retry_never_happened_still_works(api: Api, failed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key was noted and the change did not come through: the repetition makes it."""
    monkeypatch.setattr(api.container.jobs, "replace", unreachable(api.container.jobs.replace, 1))
    lost = retry(api, failed, idempotency_key="k")

    again = retry(api, failed, idempotency_key="k")

    assert (lost.status, again.status, again.json["run"]) == (503, 202, 2)


@pytest.mark.parametrize(("body", "headers"), [({"run": 1}, {}), (None, {"idempotency_key": "k"})])
def test_a_repeated_retry_wakes_a_job_that_nobody_was_told_of(api: Api, failed: str, body: Any, headers: dict[str, str]) -> None:
    """The record was changed and its wake-up could not be sent: the repetition finds the job queued and sends it."""
    api.container.queues.send = unreachable(api.container.queues.send, 1)  # type: ignore[method-assign]
    lost = retry(api, failed, body, **headers)

    again = retry(api, failed, body, **headers)

    assert (lost.status, again.status, again.json["status"], again.json["run"]) == (503, 202, "queued", 2)
    assert wake_ups(api) == [{"job_id": failed, "generation": api.head(failed).generation}]


def test_the_run_is_compared_with_the_record_as_it_is_written(api: Api, failed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another request opened and lost a run between the look and the write: `run` is no longer what the caller saw."""
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
