"""What jobs say about their wait: record, status, lists, frames, and their whole story."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from chalicelib.domain.jobs import transitions
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.limits.rate_limit import ACCOUNT, LimitSource, RateLimit
from chalicelib.domain.units import rfc3339
from chalicelib.services.scheduling import waits
from tests.kit.events import Events
from tests.kit.http import Api, unreachable
from tests.kit.work import work

MODEL = "gpt-4o-mini"
CAUSE = f"rate:{MODEL}"


def hold(api: Api, reason: str = "rate_limited", cause: str | None = CAUSE, until: int | None = None, **fields: Any) -> Job:
    """Submit a job and hold it, as a worker does."""
    ctx, now = api.container, api.container.clock.now()
    seen = ctx.jobs.records[api.submit(**fields)]
    if cause is not None:
        ctx.lines.touch(cause, seen.tenant, now)
    held = transitions.hold(seen, seen.generation, reason, until, now, cause)
    assert held is not None
    ctx.jobs.replace(seen, held)
    return held


def limit_model(api: Api, **fields: Any) -> None:
    missing = RateLimit(model=MODEL, account=ACCOUNT)
    api.container.rates.save_limit(missing, replace(missing, version=1, **{"requests": 60, "source": LimitSource.HEADER, **fields}))


def test_a_job_in_a_line_says_its_limit_and_when_it_starts(api: Api) -> None:
    limit_model(api)
    for _ in range(10):
        hold(api)
        api.container.clock.advance(0.001)
    job, now = hold(api), api.container.clock.now()

    record = api.call("GET", f"/jobs/{job.id}").json
    status = api.call("GET", f"/jobs/{job.id}/status", token="viewer").json
    progress = api.call("GET", f"/jobs/{job.id}/progress").json

    for shape in (record, status, progress):
        assert (shape["status"], shape["reason"], shape["cause"]) == ("held", "rate_limited", CAUSE)
        assert shape["limit"] == {"kind": "requests", "value": 60, "model": MODEL}
        assert shape["estimated_start_at"] == rfc3339(now + 10_000)


@pytest.mark.parametrize(("weight", "seconds"), [(1, 2), (2, 1.5), (0.5, 3)])
def test_other_tenants_in_the_line_share_the_rate_by_weight(api: Api, weight: float, seconds: float) -> None:
    api.call("PUT", "/limits/tenants/acme", {"weight": weight}, "stage_admin")
    limit_model(api)
    hold(api)
    api.container.clock.advance(0.001)
    job, now = hold(api), api.container.clock.now()
    api.container.lines.touch(CAUSE, "other", now)

    assert api.call("GET", f"/jobs/{job.id}/status").json["estimated_start_at"] == rfc3339(now + round(seconds * 1000))


def test_a_list_says_what_the_record_knows(api: Api) -> None:
    limit_model(api)
    until = api.container.clock.now() + 30_000
    hold(api, until=until)

    (row,) = api.call("GET", "/jobs?status=held").json["data"]

    assert (row["cause"], row["limit"], row["estimated_start_at"]) == (CAUSE, None, rfc3339(until))


def test_a_job_that_is_not_held_waits_for_nothing(api: Api) -> None:
    job_id = api.submit()
    queued = api.call("GET", f"/jobs/{job_id}").json
    work(api)
    done = api.call("GET", f"/jobs/{job_id}").json

    assert (queued["cause"], queued["limit"]) == (None, None)
    assert queued["estimated_start_at"] is not None
    assert (done["status"], done["cause"], done["limit"], done["estimated_start_at"]) == ("completed", None, None, None)


@pytest.mark.parametrize(
    ("reason", "cause"), [("openai_not_configured", "openai:key"), ("type_unknown", "code:new"), ("moonlight", "moon:full")]
)
def test_a_start_that_nobody_can_know_is_null(api: Api, reason: str, cause: str) -> None:
    job = hold(api, reason, cause)

    status = api.call("GET", f"/jobs/{job.id}/status").json

    assert (status["cause"], status["limit"], status["estimated_start_at"]) == (cause, None, None)


def test_a_job_that_waits_for_a_slot_says_whose_limit_it_is(api: Api) -> None:
    api.call("PUT", "/limits/tenants/acme", {"concurrency": 4, "user_concurrency": 2}, "stage_admin")
    of_tenant, of_user = hold(api, "tenant_concurrency", "slots:t:acme"), hold(api, "user_concurrency", "slots:u:acme#alice")

    shapes = [api.call("GET", f"/jobs/{job.id}/status").json for job in (of_tenant, of_user)]

    assert [shape["limit"] for shape in shapes] == [
        {"kind": "concurrency", "value": 4, "tenant": "acme"},
        {"kind": "concurrency", "value": 2, "tenant": "acme", "user": "alice"},
    ]
    assert all(shape["estimated_start_at"] is not None for shape in shapes)


@pytest.mark.parametrize(("reason", "kind", "value"), [("type_rate", "starts", 6), ("type_concurrency", "concurrency", 3)])
def test_a_job_that_waits_for_its_type_says_which_limit(api: Api, reason: str, kind: str, value: int) -> None:
    api.container.settings = replace(api.container.settings, type_limits=("general=3/6",))
    job, now = hold(api, reason, "type:general"), api.container.clock.now()

    status = api.call("GET", f"/jobs/{job.id}/status").json

    assert status["limit"] == {"kind": kind, "value": value, "type": "general"}
    expected = now if reason == "type_rate" else now + -(-(job.estimated_ms or 0) // 3)
    assert status["estimated_start_at"] == rfc3339(expected)


def test_a_paused_job_starts_when_the_pause_ends_as_it_is_now(api: Api) -> None:
    """The end of a pause may be moved while the job waits."""
    body = {"scope": {"type": "general"}, "reason": "x"}
    assert api.call("POST", "/pauses", body, "operator").status == 201
    job = hold(api, "paused", "pause:type:general")
    unknown = api.call("GET", f"/jobs/{job.id}/status").json
    until = rfc3339(api.container.clock.now() + 600_000)
    api.call("POST", "/pauses", body | {"until": until, "replace": True}, "operator")

    assert (unknown["cause"], unknown["estimated_start_at"]) == ("pause:type:general", None)
    assert api.call("GET", f"/jobs/{job.id}/status").json["estimated_start_at"] == until


def test_more_jobs_than_are_counted_make_the_start_unknown(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    limit_model(api)
    monkeypatch.setattr(waits, "MAX_AHEAD", 2)
    jobs = []
    for _ in range(4):
        jobs.append(hold(api))
        api.container.clock.advance(0.001)

    starts = [api.call("GET", f"/jobs/{job.id}/status").json["estimated_start_at"] is not None for job in jobs]

    assert starts == [True, True, True, False]


def test_a_store_that_does_not_answer_leaves_what_the_record_knows(api: Api) -> None:
    until = api.container.clock.now() + 30_000
    job = hold(api, until=until)
    vars(api.container.lines)["count"] = unreachable(api.container.lines.count)

    status = api.call("GET", f"/jobs/{job.id}/status")

    assert (status.status, status.json["cause"], status.json["estimated_start_at"]) == (200, CAUSE, rfc3339(until))


def test_the_held_event_of_a_stream_says_why(api: Api) -> None:
    limit_model(api)
    job = hold(api)

    events = Events(api.call("GET", f"/jobs/{job.id}/stream").text)

    (held,) = [event["data"] for event in events if event["event"] == "held"]
    assert (held["event"], held["cause"], held["limit"]["value"]) == ("held", CAUSE, 60)
    assert held["estimated_start_at"] == rfc3339(api.container.clock.now())


def explain(api: Api, job_id: str, token: str = "user") -> Any:
    reply = api.call("GET", f"/jobs/{job_id}/explain", token=token)
    assert reply.status == 200, reply.text
    return reply.json


def test_the_story_of_a_job_has_its_wait_its_attempts_and_its_end(api: Api) -> None:
    limit_model(api)
    held = hold(api)
    api.container.clock.advance(12)
    assert api.call("POST", f"/jobs/{held.id}/retry").status == 202
    work(api)

    story = explain(api, held.id)

    assert (story["job_id"], story["success"]) == (held.id, True)
    said = [event["sentence"] for event in story["events"]]
    assert said[0].startswith("alice submitted it as a job of the type general in the lane normal, for the model gpt-4o-mini.")
    assert "It waited 12 s for the rate limit of gpt-4o-mini (60 requests a minute)." in said
    assert any(event["what"] == "attempt" for event in story["events"])
    assert "Say hello" not in json.dumps(story)
    times = [event["at"] for event in story["events"] if event["at"] is not None]
    assert times == sorted(times)


def test_a_held_job_explains_its_place(api: Api) -> None:
    limit_model(api)
    hold(api)
    api.container.clock.advance(0.001)
    job = hold(api)

    now = explain(api, job.id)["events"][-1]

    assert (now["what"], now["at"], now["jobs_before"], now["more_before"]) == ("now", None, 1, False)
    assert "1 job of acme is before it." in now["sentence"]
    assert now["estimated_start_at"] == rfc3339(api.container.clock.now() + 1_000)


def test_who_may_not_see_a_job_gets_no_story_and_a_viewer_no_messages(api: Api) -> None:
    job_id = api.submit()
    seen = api.job(job_id)
    error = transitions.AttemptOutcome(status=Status.FAILED, length=0, error=_error())
    claimed = transitions.claim(seen, seen.generation, "lease#x", api.container.clock.now())
    assert claimed is not None
    api.container.jobs.replace(seen, claimed)
    failed = transitions.finish(claimed, claimed.generation, "lease#x", error, api.container.clock.now())
    assert failed is not None
    api.container.jobs.replace(claimed, failed)

    assert api.call("GET", f"/jobs/{job_id}/explain", token="stranger").status == 404
    assert api.call("GET", f"/jobs/{job_id}/explain", token="colleague").status == 404
    assert api.call("GET", f"/jobs/{job_id}/explain", token=None).status == 401
    assert "words of the provider" in json.dumps(explain(api, job_id))
    assert "words of the provider" not in json.dumps(explain(api, job_id, "viewer"))
    assert "request_invalid" in json.dumps(explain(api, job_id, "viewer"))


def _error() -> Any:
    from chalicelib.domain.jobs.job import JobError

    message = "words of the provider"
    return JobError(code="request_invalid", error_class="request", retryable=False, message=message, suggestion="Change it.", attempt=1)
