"""`/queues`, `/pauses`, and pausing jobs and batches, through `app.py`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chalicelib.domain.jobs.job import Status
from chalicelib.domain.limits.pauses import MAX_PAUSES
from chalicelib.domain.queues.lanes import SCHEDULE
from chalicelib.domain.units import rfc3339
from tests.kit.batches import tasks
from tests.kit.http import Api, Reply, unreachable
from tests.kit.work import run_schedule, sweep, work


@pytest.fixture(autouse=True)
def _region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "us-east-1")


def pause(api: Api, scope: dict[str, Any], token: str = "operator", **fields: Any) -> Reply:
    return api.call("POST", "/pauses", {"scope": scope, "reason": "full disk", **fields}, token)


def listed(api: Api, token: str = "operator", query: str = "") -> list[dict[str, Any]]:
    return list(api.call("GET", f"/pauses{query}", token=token).json["data"])


def later(api: Api, seconds: int = 600) -> str | None:
    return rfc3339(api.container.clock.now() + seconds * 1000)


def test_a_pause_of_a_type_holds_its_jobs_and_no_others(api: Api) -> None:
    answer = pause(api, {"type": "general"})
    held, other = api.submit(), api.submit(job_type="sentiment_analysis")  # whose answer is not valid

    work(api)

    assert (answer.status, answer.json["name"], answer.json["scope"]["tenant"], answer.json["by"]) == (201, "type:general", "acme", "olga")
    job = api.job(held)
    assert (job.status, job.reason, job.cause, job.attempt) == (Status.HELD, "paused", "pause:type:general", 0)
    assert (api.job(other).attempt, api.job(other).cause) == (1, None)
    assert api.call("GET", f"/jobs/{held}/status").json["reason"] == "paused"


def test_a_pause_of_one_tenant_does_not_hold_the_jobs_of_another(api: Api) -> None:
    pause(api, {})
    ours, theirs = api.submit(), api.submit("stranger")

    work(api)

    assert (api.job(ours).status, api.job(theirs).status) == (Status.HELD, Status.COMPLETED)
    assert listed(api, "stranger") == []


def test_a_pause_for_everybody_needs_a_key_of_all_tenants_and_hides_its_words(api: Api) -> None:
    reply = pause(api, {"lane": "normal"}, "stage_admin")
    ours, theirs = api.submit(), api.submit("stranger")

    work(api)

    assert (reply.status, reply.json["scope"]["tenant"], reply.json["by"]) == (201, None, "hal")
    assert {api.job(job).cause for job in (ours, theirs)} == {"pause:lane:normal"}
    seen = listed(api)[0]
    assert (seen["name"], seen["by_operator"], seen["by"], seen["reason"]) == ("lane:normal", True, None, None)


def test_only_a_key_of_all_tenants_ends_its_pauses(api: Api) -> None:
    everybody = pause(api, {"lane": "low"}, "stage_admin").json["pause_id"]
    ours = pause(api, {"tenant": "acme", "type": "general"}, "stage_admin").json["pause_id"]

    for name in (everybody, ours):
        assert api.call("DELETE", f"/pauses/{name}", token="admin").status == 403
    assert api.call("POST", "/queues/general/resume", {}, "admin").status == 403
    assert api.call("POST", "/queues/*:low/resume", {}, "admin").status == 403
    assert len(listed(api)) == 2

    assert api.call("DELETE", f"/pauses/{everybody}", token="stage_admin").status == 200
    assert api.call("POST", "/queues/general/resume", {"tenant": "acme"}, "stage_admin").json["resumed"] is True
    assert listed(api) == []


def test_a_tenant_cannot_pause_read_or_resume_another(api: Api) -> None:
    name = pause(api, {"type": "general"}, "stranger").json["pause_id"]

    assert pause(api, {"tenant": "other"}).status == 403
    assert api.call("POST", "/queues/general/pause", {"tenant": "other", "reason": "x"}, "operator").status == 403
    assert api.call("POST", "/queues/general/resume", {"tenant": "other"}, "operator").status == 403
    assert api.call("GET", "/pauses?tenant=other", token="operator").status == 403
    assert api.call("GET", "/queues?tenant=other", token="operator").status == 403
    missing = api.call("DELETE", f"/pauses/{name}", token="operator")
    assert (missing.status, missing.json["error"]["code"]) == (404, "pause_not_found")
    assert api.call("POST", "/queues/general/resume", {}, "operator").json["resumed"] is False
    assert len(listed(api, "stranger")) == 1


@pytest.mark.parametrize("token", ["user", "viewer"])
def test_pausing_a_scope_is_for_operators(api: Api, token: str) -> None:
    assert pause(api, {}, token).status == 403
    assert api.call("POST", "/queues/general/pause", {"reason": "x"}, token).status == 403
    assert api.call("GET", "/pauses", token=token).status == 200


@pytest.mark.parametrize(
    ("name", "scope"), [("general:low", "queue:general:low"), ("general", "type:general"), ("*:low", "lane:low"), ("*", "tenant:acme")]
)
def test_a_queue_is_paused_and_resumed_by_its_name(api: Api, name: str, scope: str) -> None:
    paused = api.call("POST", f"/queues/{name}/pause", {"reason": "moving"}, "operator")
    assert (paused.status, paused.json["name"]) == (201, scope)
    job = api.submit(priority="low")
    work(api, "low")
    assert api.job(job).cause == f"pause:{scope}"

    resumed = api.call("POST", f"/queues/{name}/resume", {}, "operator").json

    assert (resumed["resumed"], [one["reason"] for one in resumed["ended"]]) == (True, ["moving"])
    assert api.container.queues.depth(SCHEDULE) > 0
    assert api.call("POST", f"/queues/{name}/resume", {}, "operator").json["resumed"] is False


def test_the_queues_say_what_is_paused_by_whom_and_why(api: Api) -> None:
    pause(api, {"type": "export", "lane": "low"})
    held = [api.submit(priority="low", job_type="export", prompt=None, input={"filter": {"status": "completed"}}) for _ in range(2)]
    work(api, "work")
    assert {api.job(job).status for job in held} == {Status.HELD}

    rows = {row["name"]: row for row in api.call("GET", "/queues", token="viewer").json["data"]}

    paused = rows.pop("export:low")
    assert (paused["paused"], paused["pause"]["by"], paused["pause"]["reason"]) == (True, "olga", "full disk")
    assert (paused["queue"], paused["held_by_pause"], paused["held_more"], paused["messages"]) == ("work", 2, False, None)
    assert {row["paused"] for row in rows.values()} == {False}
    assert [row["name"] for row in api.call("GET", "/queues/export:*", token="viewer").json["data"]] == [
        f"export:{lane}" for lane in ("urgent", "high", "normal", "low")
    ]


def test_the_queues_of_a_key_of_all_tenants_show_depths_and_the_pauses_for_everybody(api: Api) -> None:
    pause(api, {})
    api.submit()
    rows = {row["name"]: row for row in api.call("GET", "/queues/general", token="stage_admin").json["data"]}

    assert (rows["general:normal"]["messages"], rows["general:normal"]["paused"]) == (1, False)
    ours = api.call("GET", "/queues/general:normal?tenant=acme", token="stage_admin").json["data"]
    assert [row["paused"] for row in ours] == [True]


def test_a_repeated_pause_keeps_author_reason_and_time(api: Api) -> None:
    first = pause(api, {"type": "general"}, until=(end := later(api))).json
    api.container.clock.advance(60)

    again = pause(api, {"type": "general"}, "admin", until=end)

    assert (again.status, again.json) == (200, first)


def test_another_reason_or_end_is_a_conflict_unless_it_replaces(api: Api) -> None:
    first = pause(api, {"type": "general"}).json
    api.container.clock.advance(60)

    refused = pause(api, {"type": "general"}, "admin", reason="moving")
    assert (refused.status, refused.json["error"]["code"]) == (409, "already_paused")
    assert "olga" in refused.json["error"]["message"]
    assert pause(api, {"type": "general"}, "admin", until=later(api)).status == 409
    changed = pause(api, {"type": "general"}, "admin", reason="moving", replace=True)

    assert (changed.status, changed.json["by"], changed.json["reason"]) == (200, "root", "moving")
    assert (changed.json["pause_id"], changed.json["paused_at"]) == (first["pause_id"], first["paused_at"])
    assert len(listed(api)) == 1


def test_a_pause_that_is_over_is_gone(api: Api) -> None:
    name = pause(api, {}, until=later(api, 60)).json["pause_id"]
    api.container.clock.advance(60)
    job = api.submit()

    work(api)

    assert api.job(job).status is Status.COMPLETED
    assert listed(api) == []
    assert api.call("DELETE", f"/pauses/{name}", token="operator").status == 404
    assert pause(api, {}, reason="again").status == 201


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"scope": {}}, "reason"),
        ({"scope": {}, "reason": ""}, "reason"),
        ({"scope": {}, "reason": "x" * 201}, "reason"),
        ({"reason": "x"}, "scope"),
        ({"scope": {"lane": "fast"}, "reason": "x"}, "scope.lane"),
        ({"scope": {"lanes": "low"}, "reason": "x"}, "scope.lanes"),
        ({"scope": {}, "reason": "x", "until": "tomorrow"}, "until"),
        ({"scope": {}, "reason": "x", "until": "2020-01-01T00:00:00Z"}, "until"),
        ({"scope": {}, "reason": "x", "until": "2099-01-01T00:00:00Z"}, "until"),
        ({"scope": {"batch": "batch_01J0000000000000000000000", "type": "general"}, "reason": "x"}, "scope.batch"),
    ],
)
def test_an_invalid_pause_is_refused_by_field(api: Api, body: dict[str, Any], path: str) -> None:
    reply = api.call("POST", "/pauses", body, "operator")

    assert reply.status == 400
    assert path in [detail["path"] for detail in reply.json["error"]["details"]]
    assert listed(api) == []


@pytest.mark.parametrize(
    ("method", "path", "body", "code"),
    [
        ("POST", "/pauses", {"scope": {"type": "none"}, "reason": "x"}, "job_type_not_found"),
        ("POST", "/pauses", {"scope": {"batch": "batch_01J00000000000000000000000"}, "reason": "x"}, "batch_not_found"),
        ("POST", "/queues/none/pause", {"reason": "x"}, "job_type_not_found"),
        ("GET", "/queues/none:low", None, "job_type_not_found"),
        ("GET", "/queues/general:fast", None, "invalid_request"),
        ("DELETE", "/pauses/pause_none", None, "pause_not_found"),
    ],
)
def test_what_does_not_exist_is_said_by_name(api: Api, method: str, path: str, body: Any, code: str) -> None:
    assert api.call(method, path, body, "operator").json["error"]["code"] == code


def test_a_tenant_has_a_bounded_number_of_pauses(api: Api) -> None:
    types = [kind.name for kind in api.container.all_job_types()]
    scopes = [{"type": kind, "lane": lane} for kind in types for lane in ("low", "high")][: MAX_PAUSES + 1]
    replies = [pause(api, scope) for scope in scopes]

    assert {reply.status for reply in replies[:-1]} == {201}
    assert (replies[-1].status, replies[-1].json["error"]["code"]) == (409, "too_many_pauses")
    assert pause(api, scopes[-1], "stranger").status == 201
    assert pause(api, {"tenant": "acme", **scopes[-1]}, "stage_admin").status == 201


def test_a_pause_that_cannot_be_stored_is_503_and_holds_nothing(api: Api) -> None:
    api.container.pauses.replace_tenant = unreachable(api.container.pauses.replace_tenant)  # type: ignore[method-assign]

    assert pause(api, {}).status == 503
    assert listed(api) == []


def test_a_pause_that_meets_others_is_decided_anew(api: Api) -> None:
    """Two operators at once: neither loses the other's pause."""
    real = api.container.pauses.replace_tenant

    def second_comes_first(*records: Any) -> None:
        api.container.pauses.replace_tenant = real  # type: ignore[method-assign]
        pause(api, {"type": "export"}, "admin")
        real(*records)

    api.container.pauses.replace_tenant = second_comes_first  # type: ignore[method-assign]

    assert pause(api, {"type": "general"}).status == 201
    assert sorted(one["name"] for one in listed(api)) == ["type:export", "type:general"]


def test_a_key_of_all_tenants_lists_the_pauses_of_every_tenant_by_pages(api: Api) -> None:
    pause(api, {"lane": "low"}, "stage_admin")
    for number in range(60):
        pause(api, {"tenant": f"tenant-{number:02}"}, "stage_admin")

    first = api.call("GET", "/pauses", token="stage_admin").json
    rest = api.call("GET", f"/pauses?cursor={first['next_cursor']}", token="stage_admin").json

    names = [one["tenant"] for one in first["data"] + rest["data"]]
    assert (len(names), len(set(names)), rest["next_cursor"]) == (61, 61, None)


# ---- a job


def job_call(api: Api, job: str, verb: str, body: Any = None, token: str = "user") -> Reply:
    return api.call("POST", f"/jobs/{job}/{verb}", body, token)


def test_a_queued_job_is_held_until_it_is_resumed(api: Api) -> None:
    job = api.submit()

    paused = job_call(api, job, "pause", {"reason": "wait for me"})
    work(api)

    assert (paused.status, paused.json["status"], paused.json["reason"]) == (200, "held", "paused")
    assert (paused.json["paused"]["by"], paused.json["paused"]["reason"]) == ("alice", "wait for me")
    assert (api.job(job).status, api.job(job).cause) == (Status.HELD, "pause:job")
    assert api.call("GET", f"/jobs/{job}/status", token="viewer").json["paused"]["reason"] is None

    resumed = job_call(api, job, "resume")
    work(api)

    assert (resumed.status, resumed.json["status"], resumed.json["paused"]) == (200, "queued", None)
    assert (api.job(job).status, api.job(job).attempt) == (Status.COMPLETED, 1)


def test_pausing_and_resuming_a_job_twice_changes_nothing(api: Api) -> None:
    job = api.submit()
    job_call(api, job, "pause", {"reason": "a"})
    held = api.job(job)

    assert job_call(api, job, "pause", {"reason": "a"}).status == 200
    assert api.job(job) == held
    assert job_call(api, job, "pause", {"reason": "b"}).json["error"]["code"] == "already_paused"
    job_call(api, job, "resume")
    queued = api.job(job)
    assert job_call(api, job, "resume").status == 200
    assert api.job(job) == queued


def test_a_job_that_waits_for_its_time_is_held_after_it(api: Api) -> None:
    job = api.submit(delay=600)
    paused = job_call(api, job, "pause").json
    assert (paused["status"], paused["reason"], paused["paused"]["by"]) == ("waiting", "run_at", "alice")
    api.container.clock.advance(600)
    work(api)
    assert (api.job(job).status, api.job(job).cause) == (Status.HELD, "pause:job")

    job_call(api, job, "resume")
    work(api)

    assert api.job(job).status is Status.COMPLETED


def test_a_waiting_job_that_is_resumed_in_time_starts_at_its_time(api: Api) -> None:
    job = api.submit(delay=600)
    before = api.job(job)
    job_call(api, job, "pause")
    job_call(api, job, "resume")
    assert (api.job(job).status, api.job(job).resume_at, api.job(job).generation) == (Status.WAITING, before.resume_at, before.generation)

    api.container.clock.advance(600)
    work(api)

    assert api.job(job).status is Status.COMPLETED


def test_a_job_that_depends_on_another_is_held_after_its_parent(api: Api) -> None:
    parent = api.submit(priority="high")
    child = api.submit(depends_on=[parent])
    job_call(api, child, "pause")
    work(api, "high")
    sweep(api)
    work(api)
    assert (api.job(child).status, api.job(child).reason) == (Status.HELD, "paused")

    job_call(api, child, "resume")
    work(api)

    assert api.job(child).status is Status.COMPLETED


def test_the_pause_of_a_job_with_an_end_ends_by_itself(api: Api) -> None:
    job = api.submit()
    paused = job_call(api, job, "pause", {"until": later(api, 300)}).json
    assert (paused["status"], paused["paused"]["until"]) == ("held", later(api, 300))
    work(api)
    assert api.job(job).status is Status.HELD

    api.container.clock.advance(301)
    work(api)

    assert (api.job(job).status, api.job(job).attempt) == (Status.COMPLETED, 1)


@pytest.mark.parametrize(("status", "part"), [(Status.PROCESSING, "running"), (Status.COMPLETED, "has ended")])
def test_a_running_or_ended_job_cannot_be_paused(api: Api, status: Status, part: str) -> None:
    job = api.submit()
    record = api.job(job)
    api.container.jobs.records[job] = replace(record, status=status, owner="l#1", finished_at=record.created_at)

    reply = job_call(api, job, "pause")

    assert (reply.status, reply.json["error"]["code"]) == (409, "job_not_pausable")
    assert part in reply.json["error"]["message"]


def test_a_paused_job_is_not_retried_but_can_be_cancelled(api: Api) -> None:
    job = api.submit()
    job_call(api, job, "pause")

    assert job_call(api, job, "retry").json["error"]["code"] == "job_not_retryable"
    assert job_call(api, job, "cancel").json["status"] == "cancelled"
    assert job_call(api, job, "resume").json["error"]["code"] == "job_not_pausable"
    assert job_call(api, job, "retry").status == 202
    work(api)
    assert api.job(job).status is Status.COMPLETED


def test_a_paused_job_expires_in_time(api: Api) -> None:
    job = api.submit(expires_in=600)
    job_call(api, job, "pause")

    assert api.job(job).due_at == api.job(job).expires_at


def test_a_job_of_others_cannot_be_paused(api: Api) -> None:
    job = api.submit()

    assert job_call(api, job, "pause", token="colleague").status == 404
    assert job_call(api, job, "pause", token="stranger").status == 404
    assert job_call(api, job, "pause", token="viewer").status == 403
    assert job_call(api, job, "pause", token="operator").status == 200


# ---- a batch


def submit_batch(api: Api, rows: int, **options: Any) -> str:
    body = {"items": [f"row {number}" for number in range(rows)], "priority": "normal", **options}
    return str(api.call("POST", "/batches", body).json["batch_id"])


def test_a_paused_batch_releases_no_further_rows_and_starts_none(api: Api) -> None:
    batch = submit_batch(api, 4, batch_size=2, delay=60)
    tasks(api)
    before = len(api.container.jobs.records)

    paused = api.call("POST", f"/batches/{batch}/pause", {"reason": "look at the first rows"}, "user")
    api.container.clock.advance(120)
    tasks(api)
    run_schedule(api, "sweep_batches")
    tasks(api)
    work(api)

    assert (paused.status, paused.json["name"]) == (201, f"batch:{batch}")
    assert len(api.container.jobs.records) == before == 2
    assert {job.status for job in api.container.jobs.records.values()} == {Status.HELD}
    assert {job.cause for job in api.container.jobs.records.values()} == {f"pause:batch:{batch}"}

    resumed = api.call("POST", f"/batches/{batch}/resume", token="user").json
    tasks(api)

    assert resumed["resumed"] is True
    assert len(api.container.jobs.records) == before + 2


def test_an_ended_batch_cannot_be_paused(api: Api) -> None:
    batch = submit_batch(api, 2)
    api.call("DELETE", f"/batches/{batch}")

    reply = api.call("POST", f"/batches/{batch}/pause", {}, "user")

    assert (reply.status, reply.json["error"]["code"]) == (409, "batch_not_pausable")
    assert api.call("POST", f"/batches/{batch}/pause", {}, "colleague").status == 404


# ---- many jobs


def test_bulk_pauses_and_resumes_jobs(api: Api) -> None:
    queued, running = [api.submit() for _ in range(3)], api.submit(priority="high")
    work(api, "high")

    paused = api.call("POST", "/bulk", {"action": "pause", "all": True, "reason": "night"}, "operator").json
    assert (paused["done"], paused["reason"]) == (3, "night")
    assert {api.job(job).reason for job in queued} == {"paused"}
    assert api.job(queued[0]).pause.by == "olga"  # type: ignore[union-attr]
    assert api.job(running).status is Status.COMPLETED
    resumed = api.call("POST", "/bulk", {"action": "resume", "all": True}, "operator").json
    work(api)

    assert resumed["done"] == 3
    assert {api.job(job).status for job in queued} == {Status.COMPLETED}


def test_bulk_before_and_limit_select_fewer_jobs(api: Api) -> None:
    old = [api.submit() for _ in range(3)]
    moment = later(api, 1)
    api.container.clock.advance(5)
    new = api.submit()

    counted = api.call("POST", "/bulk", {"action": "cancel", "before": moment, "limit": 2, "dry_run": True}, "operator").json
    answer = api.call("POST", "/bulk", {"action": "cancel", "before": moment, "limit": 2}, "operator").json

    assert (counted["matched"], answer["done"], answer["status"]) == (2, 2, "completed")
    assert [api.job(job).status for job in (*old, new)].count(Status.CANCELLED) == 2
    assert api.job(new).status is Status.QUEUED
    rest = api.call("POST", "/bulk", {"action": "cancel", "before": moment, "limit": 100}, "operator").json
    assert rest["done"] == 1
    assert api.call("POST", "/bulk", {"action": "cancel", "before": moment, "limit": 100}, "operator").json["done"] == 0


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"action": "cancel", "limit": 0, "all": True}, "limit"),
        ({"action": "cancel", "limit": 5000, "all": True}, "limit"),
        ({"action": "cancel", "limit": 2}, "all"),
        ({"action": "cancel", "ids": ["job_1"], "limit": 2}, "limit"),
        ({"action": "cancel", "ids": ["job_1"], "before": "2026-01-01T00:00:00Z"}, "before"),
        ({"action": "cancel", "before": "yesterday"}, "before"),
        ({"action": "cancel", "all": True, "reason": "x"}, "reason"),
        ({"action": "resume", "all": True, "pause_until": "2099-01-01T00:00:00Z"}, "pause_until"),
        ({"action": "pause", "filter": {"status": "completed"}}, "filter.status"),
    ],
)
def test_an_invalid_bulk_selection_is_refused_by_field(api: Api, body: dict[str, Any], path: str) -> None:
    reply = api.call("POST", "/bulk", body, "operator")

    assert reply.status == 400
    assert path in [detail["path"] for detail in reply.json["error"]["details"]]
