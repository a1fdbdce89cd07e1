"""`PATCH /jobs/{id}`: changes of a job that has not ended."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chalicelib.domain.jobs.job import Status
from chalicelib.domain.units import rfc3339
from tests.kit.http import Api, Reply, unreachable
from tests.kit.work import sweep, work


def patch(api: Api, job_id: str, body: Any, token: str = "user", **headers: str) -> Reply:
    return api.call("PATCH", f"/jobs/{job_id}", body, token, **headers)


def time_in(api: Api, seconds: float) -> str:
    """The time in so many seconds, in RFC 3339."""
    moment = rfc3339(api.container.clock.now() + round(seconds * 1000))
    assert moment is not None
    return moment


def test_all_fields_can_be_changed_in_one_request(api: Api) -> None:
    job_id = api.submit(delay=600, tags=["a"], metadata={"old": 1})

    reply = patch(
        api,
        job_id,
        {"priority": "high", "run_at": time_in(api, 60), "expires_at": time_in(api, 900), "tags": ["b", "b"], "metadata": {"n": 2}},
    )

    record = reply.json
    assert (reply.status, reply.headers["etag"], record["version"]) == (200, '"v2"', 2)
    assert (record["priority"], record["tags"], record["metadata"]) == ("high", ["b"], {"n": 2})
    assert (record["next_attempt_at"], record["expires_at"]) == (time_in(api, 60), time_in(api, 900))
    again = api.call("GET", f"/jobs/{job_id}").json
    assert again == record


def test_a_delayed_job_can_be_started_now(api: Api) -> None:
    job_id = api.submit(delay=2_592_000)

    assert patch(api, job_id, {"delay": 0}).json["status"] == "queued"
    work(api)

    assert api.job(job_id).status is Status.COMPLETED


def test_a_postponed_job_ignores_its_earlier_wake_up(api: Api) -> None:
    job_id = api.submit(delay=10)
    patch(api, job_id, {"delay": 86_400})

    for _ in range(3):
        sweep(api)
        work(api)
    assert api.job(job_id).status is Status.WAITING

    api.container.clock.advance(86_400 - 180 - 60)
    sweep(api, after=0)
    api.container.clock.advance(60)
    work(api)
    assert api.job(job_id).status is Status.COMPLETED


def test_a_change_with_an_outdated_if_match_returns_412(api: Api) -> None:
    job_id = api.submit()
    tag = api.call("GET", f"/jobs/{job_id}").headers["etag"]

    assert patch(api, job_id, {"tags": ["mine"]}, if_match=tag).status == 200
    late = patch(api, job_id, {"tags": ["late"]}, if_match=tag)

    assert (late.status, late.json["error"]["code"]) == (412, "precondition_failed")
    assert api.job(job_id).tags == ("mine",)
    assert patch(api, job_id, {"tags": ["any"]}, if_match="*").status == 200
    assert patch(api, job_id, {"tags": ["one of"]}, if_match='"v1", W/"v3"').status == 200


@pytest.mark.parametrize("tag", ['"v1.20"', "nonsense", '"v"', '"v²"', '""'])
def test_an_if_match_with_a_foreign_etag_returns_412(api: Api, tag: str) -> None:
    job_id = api.submit()

    assert patch(api, job_id, {"tags": ["x"]}, if_match=tag).status == 412
    assert api.job(job_id).tags == ()


def test_a_repeated_change_has_no_further_effect(api: Api) -> None:
    job_id = api.submit()
    body = {"priority": "low", "tags": ["x"]}
    first = patch(api, job_id, body)

    assert patch(api, job_id, body).json == first.json
    assert len(api.container.queues.messages["low"]) == 1


@pytest.mark.parametrize(
    ("body", "paths"),
    [
        ({}, {""}),
        ({"tags": None}, {""}),
        ({"prompt": "x"}, {"prompt"}),
        ({"priority": "fast", "tags": [1], "metadata": "x"}, {"priority", "tags.0", "metadata"}),
        ({"run_at": "noon", "expires_at": "later"}, {"run_at", "expires_at"}),
        ({"run_at": "2026-11-22T09:30:00Z", "delay": 5}, {"run_at"}),
        ({"expires_at": "2000-01-01T00:00:00Z"}, {"expires_at"}),
        ({"expires_in": 0}, {"expires_in"}),
        ({"delay": 2_592_001}, {"delay"}),
        ({"metadata": {"x": "y" * 17_000}}, {"metadata"}),
        ([], {""}),
    ],
)
def test_all_invalid_fields_are_reported_at_once(api: Api, body: Any, paths: set[str]) -> None:
    job_id = api.submit(delay=60)
    before = api.job(job_id)

    reply = patch(api, job_id, body)

    assert reply.status == 400
    assert {detail["path"] for detail in reply.json["error"]["details"]} == paths
    assert api.job(job_id) == before


def test_a_job_cannot_expire_before_its_start(api: Api) -> None:
    job_id = api.submit(delay=600)

    reply = patch(api, job_id, {"expires_at": time_in(api, 599)})

    assert (reply.status, reply.json["error"]["details"][0]["path"]) == (400, "expires_at")
    assert patch(api, job_id, {"expires_at": time_in(api, 599), "delay": 300}).status == 200


def test_an_ended_job_and_the_start_of_a_queued_job_cannot_be_changed(api: Api) -> None:
    ended, queued = api.submit(), api.submit(priority="low")
    work(api)

    for job_id, body in ((ended, {"tags": ["x"]}), (queued, {"delay": 60})):
        reply = patch(api, job_id, body)
        assert (reply.status, reply.json["error"]["code"]) == (409, "job_not_changeable")
        assert reply.json["error"]["message"]


@pytest.mark.parametrize(("token", "status"), [("colleague", 404), ("stranger", 404), ("viewer", 403), ("operator", 200), (None, 401)])
def test_a_job_can_be_changed_only_by_its_user_and_operators(api: Api, token: str | None, status: int) -> None:
    job_id = api.submit()

    assert api.call("PATCH", f"/jobs/{job_id}", {"tags": ["x"]}, token).status == status
    assert api.job(job_id).tags == (("x",) if status == 200 else ())


def test_a_change_with_unsupported_or_malformed_content_is_refused(api: Api) -> None:
    job_id = api.submit()

    assert api.call("PATCH", f"/jobs/{job_id}", raw="tags=x", content_type="text/plain").status == 415
    assert api.call("PATCH", f"/jobs/{job_id}", raw="{").status == 400


def test_the_sweeper_sends_a_wake_up_missed_by_a_change(api: Api) -> None:
    """The change itself is stored and answered although the queue is unavailable."""
    job_id = api.submit()
    api.container.queues.send = unreachable(api.container.queues.send, 1)  # type: ignore[method-assign]

    assert patch(api, job_id, {"priority": "low"}).status == 200
    assert api.container.queues.messages["low"] == []
    sweep(api, after=130)

    [message] = api.container.queues.messages["low"]
    assert json.loads(message.body) == {"job_id": job_id, "generation": 2}
