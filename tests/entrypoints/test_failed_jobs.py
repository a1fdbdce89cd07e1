"""Failed jobs through `app.py`: listing, retries, deletion, and the redrive of dead letters."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from chalicelib.domain.auth.identity import Key, Role
from chalicelib.domain.failures import ProviderQuotaExhausted, StreamCut
from chalicelib.domain.jobs.job import Job, JobError, Status
from chalicelib.domain.queues.wakeup import WakeUp
from chalicelib.services.auth.authenticate import secret_hash
from chalicelib.services.jobs.wake_bulk_operations import STALLED_MS
from tests.kit.batches import tasks
from tests.kit.http import Api, Reply, unreachable
from tests.kit.provider import Script
from tests.kit.work import sweep, work

ERROR = JobError(code="stream_cut", error_class="stream", retryable=True, message="The stream was cut.", suggestion="Wait.", attempt=1)


@pytest.fixture(autouse=True)
def _region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "us-east-1")


@pytest.fixture
def failed(api: Api) -> str:
    """A job whose only attempt failed for good, with stored text, a result and a cancel request."""
    api.container.provider.scripts[:] = [Script(deltas=("Half ", "a text"), error=ProviderQuotaExhausted())]
    job_id = api.submit()
    work(api)
    api.container.subscriptions.request_cancel(job_id, 1, 10**10)
    assert api.job(job_id).status is Status.FAILED
    return job_id


def fail_jobs(api: Api, count: int, **changes: Any) -> list[str]:
    """Create failed jobs and return their ids, the oldest first."""
    ids = []
    for number in range(count):
        job_id = api.submit()
        now = api.container.clock.now()
        ended: dict[str, Any] = {
            "status": Status.FAILED,
            "error": ERROR,
            "due_at": None,
            "finished_at": now + number,
            "ttl": now // 1000 + 600,
        }
        api.container.jobs.records[job_id] = replace(api.job(job_id), **(ended | changes))
        ids.append(job_id)
    api.container.queues.messages["normal"].clear()
    return ids


def retry(api: Api, body: Any, token: str = "operator", **headers: str) -> Reply:
    return api.call("POST", "/failed-jobs/retry", body, token, **headers)


def statuses(api: Api) -> list[str]:
    return [job.status.value for job in api.container.jobs.records.values()]


# ---- the list


def test_the_list_shows_the_error_of_each_failed_job(api: Api, failed: str) -> None:
    api.submit()

    page = api.call("GET", "/failed-jobs", token="operator").json

    [row] = page["data"]
    assert (row["job_id"], row["error"]["code"], row["error"]["class"]) == (failed, "provider_quota_exhausted", "quota")
    assert row["error"]["message"]
    assert row["error"]["suggestion"]
    assert page["dead_letters"] is None


@pytest.mark.parametrize("token", ["operator", "admin", "stranger"])
def test_dead_letters_are_counted_only_for_keys_of_all_tenants(api: Api, failed: str, token: str) -> None:
    """The queues are shared, so the counts tell about the other tenants."""
    assert api.call("GET", "/failed-jobs", token=token).json["dead_letters"] is None
    counted = api.call("GET", "/failed-jobs?tenant=acme", token="stage_admin").json
    assert ([row["job_id"] for row in counted["data"]], counted["dead_letters"]) == (
        [failed],
        {"urgent": 0, "high": 0, "normal": 0, "low": 0, "work": 0, "ready": 0},
    )


def test_the_list_is_filtered_and_paginated(api: Api) -> None:
    ids = fail_jobs(api, 3)
    fail_jobs(api, 1, error=replace(ERROR, code="timeout"))

    first = api.call("GET", "/failed-jobs?error_code=stream_cut&limit=2", token="operator").json
    rest = api.call("GET", f"/failed-jobs?error_code=stream_cut&limit=2&cursor={first['next_cursor']}", token="operator").json

    assert [row["job_id"] for page in (first, rest) for row in page["data"]] == ids[::-1]
    assert rest["dead_letters"] is None


@pytest.mark.parametrize(
    ("query", "path"), [("status=failed", "status"), ("priority=low", "priority"), ("since=noon", "since"), ("x=1", "x")]
)
def test_an_invalid_filter_is_named_in_the_error(api: Api, query: str, path: str) -> None:
    reply = api.call("GET", f"/failed-jobs?{query}", token="operator")

    assert (reply.status, reply.json["error"]["details"][0]["path"]) == (400, path)


def test_the_list_is_returned_when_dead_letters_cannot_be_counted(api: Api, failed: str) -> None:
    api.container.queues.dead_letters = unreachable(api.container.queues.dead_letters)  # type: ignore[method-assign]

    page = api.call("GET", "/failed-jobs?tenant=acme", token="stage_admin").json

    assert (len(page["data"]), page["dead_letters"]) == (1, None)


def test_the_list_is_limited_to_the_tenant_of_the_key(api: Api, failed: str) -> None:
    """A key of all tenants sees the tenant named in the request."""
    key = Key(id="key_all", hash=secret_hash("hr_all"), tenant="house", user="hal", role=Role.ADMIN, created_at=1, all_tenants=True)
    api.container.api_keys.put_key(key)

    assert api.call("GET", "/failed-jobs", token="stranger").json["data"] == []
    assert api.call("GET", "/failed-jobs?tenant=acme", token="stranger").status == 403
    assert [row["job_id"] for row in api.call("GET", "/failed-jobs?tenant=acme", token="all").json["data"]] == [failed]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/failed-jobs", None),
        ("POST", "/failed-jobs/retry", {"all": True}),
        ("DELETE", "/failed-jobs?all=true", None),
        ("DELETE", "/failed-jobs/{job}", None),
        ("POST", "/failed-jobs/redrive", {}),
        ("POST", "/bulk", {"action": "delete", "all": True}),
        ("GET", "/bulk/bulk_1", None),
    ],
)
def test_users_and_viewers_may_not_use_failed_job_and_bulk_routes(api: Api, failed: str, method: str, path: str, body: Any) -> None:
    for token in ("user", "viewer"):
        assert api.call(method, path.format(job=failed), body, token).status == 403
    assert api.job(failed).status is Status.FAILED


@pytest.mark.parametrize("token", ["operator", "admin"])
def test_a_key_of_one_tenant_may_not_redrive(api: Api, token: str) -> None:
    """Queues are shared by all tenants."""
    assert api.call("POST", "/failed-jobs/redrive", {}, token).status == 403


@pytest.mark.parametrize(("method", "path"), [("PUT", "/failed-jobs"), ("GET", "/failed-jobs/retry"), ("PATCH", "/bulk")])
def test_unsupported_methods_return_405(api: Api, method: str, path: str) -> None:
    assert api.call(method, path, {}, "admin").status == 405


# ---- retry


def test_retry_all_restarts_every_failed_job(api: Api) -> None:
    ids = fail_jobs(api, 30)
    running = api.submit()

    reply = retry(api, {"all": True})

    answer = reply.json
    assert (reply.status, answer["status"], answer["matched"], answer["done"], answer["skipped"]) == (200, "completed", 30, 30, 0)
    assert {api.job(job_id).run for job_id in ids} == {2}
    assert api.job(running).run == 1
    assert len(api.container.queues.messages["normal"]) == 31


def test_retry_all_restarts_only_jobs_matching_the_filters(api: Api) -> None:
    cut, timed_out = fail_jobs(api, 2), fail_jobs(api, 2, error=replace(ERROR, code="timeout"))

    assert retry(api, {"all": True, "error_code": "timeout"}).json["done"] == 2

    assert [api.job(job_id).status for job_id in cut] == [Status.FAILED] * 2
    assert [api.job(job_id).status for job_id in timed_out] == [Status.QUEUED] * 2


def test_retry_by_id_reports_the_jobs_not_restarted_as_problems(api: Api, failed: str) -> None:
    """Another tenant's job is reported exactly like a job that does not exist."""
    queued, foreign, missing = api.submit(), api.submit("stranger"), f"job_{9:026}"

    answer = retry(api, {"ids": [failed, queued, foreign, missing, failed]}).json

    assert (answer["matched"], answer["done"], answer["skipped"], answer["not_found"]) == (2, 1, 1, 2)
    assert {(one["job_id"], one["code"]) for one in answer["problems"]} == {
        (queued, "job_not_retryable"),
        (foreign, "job_not_found"),
        (missing, "job_not_found"),
    }
    assert api.job(foreign).run == 1


def test_retry_all_restarts_a_job_failing_again_only_once(api: Api) -> None:
    """The scan starts at the newest job, so a job failing again is listed behind the cursor."""
    ids = fail_jobs(api, 60)
    real = api.container.queues.send

    def fail_at_once(lane: str, wake_up: WakeUp, tenant: str, delay: int = 0) -> None:
        real(lane, wake_up, tenant, delay)
        job, now = api.job(wake_up.job_id), api.container.clock.now() + 1_000
        failed = replace(job, status=Status.FAILED, due_at=None, finished_at=now, ttl=now // 1000 + 600, version=job.version + 1)
        api.container.jobs.records[wake_up.job_id] = failed

    api.container.queues.send = fail_at_once  # type: ignore[method-assign]

    answer = retry(api, {"all": True}).json

    assert (answer["status"], answer["done"]) == ("completed", 60)
    assert {api.job(job_id).run for job_id in ids} == {2}


def test_a_repeated_idempotency_key_returns_the_same_bulk_operation(api: Api) -> None:
    ids = fail_jobs(api, 2)
    first = retry(api, {"all": True}, idempotency_key="k1")
    later = fail_jobs(api, 1)

    again = retry(api, {"all": True}, idempotency_key="k1")
    other = retry(api, {"ids": ids}, idempotency_key="k1")

    assert again.json["bulk_id"] == first.json["bulk_id"]
    assert again.headers["idempotent-replayed"] == "true"
    assert (other.status, other.json["error"]["code"]) == (409, "idempotency_conflict")
    assert api.job(later[0]).status is Status.FAILED


def test_a_repeated_request_creates_a_bulk_operation_lost_before_storage(api: Api) -> None:
    fail_jobs(api, 2)
    real = api.container.bulk_operations.create
    api.container.bulk_operations.create = unreachable(real, 1)  # type: ignore[method-assign]

    assert retry(api, {"all": True}, idempotency_key="k1").status == 503
    again = retry(api, {"all": True}, idempotency_key="k1")

    assert (again.status, again.json["done"]) == (200, 2)


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "all"),
        ({"all": False}, "all"),
        ({"error_code": "timeout"}, "all"),
        ({"ids": []}, "ids"),
        ({"ids": ["job_1"], "all": True}, "ids"),
        ({"ids": ["job_1"], "type": "general"}, "ids"),
        ({"all": True, "since": "noon"}, "since"),
        ({"all": True, "status": "cancelled"}, "status"),
        ({"all": 1}, "all"),
    ],
)
def test_an_invalid_retry_request_returns_400_and_changes_nothing(api: Api, failed: str, body: Any, path: str) -> None:
    reply = retry(api, body)

    assert reply.status == 400
    assert path in {detail["path"] for detail in reply.json["error"]["details"]}
    assert api.job(failed).status is Status.FAILED


def test_a_dry_run_counts_and_changes_nothing(api: Api) -> None:
    fail_jobs(api, 130)

    answer = retry(api, {"all": True, "dry_run": True}).json

    assert (answer["matched"], answer["more"], answer["dry_run"]) == (130, False, True)
    assert statuses(api) == ["failed"] * 130
    assert api.container.bulk_operations.rows == {}


def test_retry_all_never_reaches_jobs_of_another_tenant(api: Api, failed: str) -> None:
    assert retry(api, {"all": True, "tenant": "acme"}, "stranger").status == 403
    assert retry(api, {"all": True, "tenant": "acme", "dry_run": True}, "stranger").status == 403
    assert retry(api, {"all": True}, "stranger").json["matched"] == 0
    assert api.job(failed).status is Status.FAILED


# ---- delete


def test_deleting_a_failed_job_removes_all_of_its_data(api: Api, failed: str) -> None:
    assert len(api.container.job_data.rows(failed)) >= 3

    reply = api.call("DELETE", f"/failed-jobs/{failed}", token="operator")

    assert (reply.status, reply.json) == (200, {"success": True, "job_id": failed, "deleted": True})
    assert api.container.job_data.rows(failed) == []
    assert failed not in api.container.jobs.records
    assert api.call("DELETE", f"/failed-jobs/{failed}", token="operator").status == 404
    assert api.call("GET", f"/jobs/{failed}").status == 404


@pytest.mark.parametrize("suffix", ["", "/status", "/progress", "/text", "/result", "/attempts", "/stream", "/progress-history"])
def test_a_job_with_an_unfinished_deletion_is_hidden_from_all_routes(api: Api, failed: str, suffix: str) -> None:
    """The record is marked before any data is removed; a second request finishes the deletion."""
    api.container.job_data.delete_all = unreachable(api.container.job_data.delete_all, 1)  # type: ignore[method-assign]

    reply = api.call("DELETE", f"/failed-jobs/{failed}", token="operator")
    assert (reply.status, reply.json["deleted"]) == (202, False)

    assert api.call("GET", f"/jobs/{failed}{suffix}").status == 404
    assert api.call("POST", f"/jobs/{failed}/retry").status == 404
    assert api.call("GET", "/failed-jobs", token="operator").json["data"] == []
    assert api.call("DELETE", f"/failed-jobs/{failed}", token="operator").json["deleted"] is True
    assert api.container.job_data.rows(failed) == []


@pytest.mark.parametrize("lost", [False, True])
def test_an_interrupted_deletion_is_finished_by_its_message_or_after_the_sweep(api: Api, failed: str, *, lost: bool) -> None:
    api.container.job_data.delete_all = unreachable(api.container.job_data.delete_all, 1)  # type: ignore[method-assign]
    bulk_id = api.call("DELETE", f"/failed-jobs/{failed}", token="operator").json["bulk_id"]
    if lost:
        api.container.queues.messages["tasks"].clear()
        sweep(api, after=STALLED_MS / 1000)

    tasks(api)

    assert (api.container.jobs.records, api.container.job_data.rows(failed)) == ({}, [])
    assert api.call("GET", f"/bulk/{bulk_id}", token="operator").json["done"] == 1


def test_a_job_of_another_tenant_or_not_failed_cannot_be_deleted(api: Api, failed: str) -> None:
    running = api.submit()

    assert api.call("DELETE", f"/failed-jobs/{failed}", token="stranger").status == 404
    assert api.call("DELETE", "/failed-jobs/nonsense", token="operator").status == 404
    refused = api.call("DELETE", f"/failed-jobs/{running}", token="operator")

    assert (refused.status, refused.json["error"]["code"]) == (409, "job_not_deletable")
    assert {failed, running} <= set(api.container.jobs.records)


def test_the_idempotency_key_of_a_deleted_job_returns_409(api: Api) -> None:
    api.container.provider.scripts[:] = [Script(error=ProviderQuotaExhausted())]
    body = {"prompt": "x"}
    job_id = api.call("POST", "/jobs", body, idempotency_key="k").json["job_id"]
    work(api)
    api.call("DELETE", f"/failed-jobs/{job_id}", token="operator")

    reply = api.call("POST", "/jobs", body, idempotency_key="k")

    assert (reply.status, reply.json["error"]["code"]) == (409, "idempotency_conflict")


def test_the_dedupe_key_of_a_deleted_job_can_be_reused(api: Api) -> None:
    api.container.provider.scripts[:] = [Script(error=ProviderQuotaExhausted()), Script()]
    job_id = api.submit(dedupe_key="d")
    work(api)
    api.call("DELETE", f"/failed-jobs/{job_id}", token="operator")

    assert api.submit(dedupe_key="d") != job_id


def test_a_purge_deletes_all_failed_jobs_and_nothing_else(api: Api) -> None:
    fail_jobs(api, 30)
    completed = api.submit()
    work(api)

    assert api.call("DELETE", "/failed-jobs?all=true&dry_run=true", token="operator").json["matched"] == 30
    assert api.call("DELETE", "/failed-jobs?all=true", token="operator").json["done"] == 30

    assert list(api.container.jobs.records) == [completed]


@pytest.mark.parametrize("query", ["", "?all=false", "?type=general", "?all=yes", "?ids=job_1", "?all=true&status=completed"])
def test_a_purge_with_an_unclear_selection_returns_400(api: Api, failed: str, query: str) -> None:
    assert api.call("DELETE", f"/failed-jobs{query}", token="operator").status == 400
    assert failed in api.container.jobs.records


# ---- redrive


def add_dead_letter(api: Api, job: Job | str, generation: int = 1, lane: str = "normal") -> None:
    """Move a wake-up to the dead-letter queue, as SQS does after too many receives."""
    api.container.queues.give_up(lane, WakeUp(job if isinstance(job, str) else job.id, generation).to_json())


def wake_ups(api: Api, lane: str = "normal") -> list[dict[str, Any]]:
    """The wake-ups in the queue of a lane."""
    return [json.loads(message.body) for message in api.container.queues.messages[lane]]


def test_a_redrive_follows_the_job_record_and_not_the_dead_letter(api: Api, failed: str) -> None:
    """Waiting jobs are woken with their current generation, ended jobs dropped, garbage kept."""
    waiting = api.submit()
    api.container.queues.messages["normal"].clear()
    api.container.jobs.records[waiting] = replace(api.job(waiting), generation=4)
    for job_id in (waiting, failed, f"job_{7:026}"):
        add_dead_letter(api, job_id)
    api.container.queues.send_to_dead_letter("normal", "garbage", "The message is not JSON.")

    answer = api.call("POST", "/failed-jobs/redrive", {}, "stage_admin").json

    assert (answer["redriven"], answer["dropped"], answer["kept"], answer["more"]) == (1, 2, 1, False)
    assert answer["lanes"]["normal"] == {"redriven": 1, "dropped": 2, "kept": 1}
    assert answer["lanes"]["low"] == {"redriven": 0, "dropped": 0, "kept": 0}
    assert wake_ups(api) == [{"job_id": waiting, "generation": 4}]
    assert [message.body for message, _ in api.container.queues.dead["normal"]] == ["garbage"]


def test_a_redriven_job_runs_once_and_in_its_own_lane(api: Api) -> None:
    job_id = api.submit(priority="high")
    api.container.queues.messages["high"].clear()
    for _ in range(3):
        add_dead_letter(api, job_id, lane="low")

    assert api.call("POST", "/failed-jobs/redrive", {"lane": "low"}, "stage_admin").json["redriven"] == 3
    assert len(wake_ups(api, "high")) == 1
    work(api, "high")

    assert (api.job(job_id).status, api.job(job_id).attempt) == (Status.COMPLETED, 1)


@pytest.mark.parametrize("dead_in", ["work", "low"])
def test_a_redriven_task_is_woken_in_the_queue_of_tasks(api: Api, dead_in: str) -> None:
    """Also one that an older version sent to a lane."""
    job_id = api.submit("operator", prompt=None, job_type="data_cleanup", input={"dry_run": True}, priority="low")
    api.container.queues.messages["work"].clear()
    add_dead_letter(api, job_id, lane=dead_in)

    answer = api.call("POST", "/failed-jobs/redrive", {"lane": dead_in}, "stage_admin").json
    work(api, "work")

    assert answer["lanes"] == {dead_in: {"redriven": 1, "dropped": 0, "kept": 0}}
    assert api.job(job_id).status is Status.COMPLETED


def test_a_dead_letter_stays_when_its_wake_up_cannot_be_sent(api: Api) -> None:
    job_id = api.submit()
    add_dead_letter(api, job_id)
    api.container.queues.send = unreachable(api.container.queues.send, 1)  # type: ignore[method-assign]

    assert api.call("POST", "/failed-jobs/redrive", {}, "stage_admin").status == 503
    api.container.clock.advance(61)

    assert api.call("POST", "/failed-jobs/redrive", {}, "stage_admin").json["redriven"] == 1


def test_a_redrive_handles_100_dead_letters_and_reports_more(api: Api) -> None:
    for number in range(130):
        add_dead_letter(api, f"job_{number:026}")

    first = api.call("POST", "/failed-jobs/redrive", {"lane": "normal"}, "stage_admin").json
    second = api.call("POST", "/failed-jobs/redrive", {"lane": "normal"}, "stage_admin").json

    assert (first["dropped"], first["more"], second["dropped"], second["more"]) == (100, True, 30, False)


@pytest.mark.parametrize("body", [{"lane": "slow"}, {"lanes": []}])
def test_an_invalid_redrive_request_returns_400(api: Api, body: Any) -> None:
    assert api.call("POST", "/failed-jobs/redrive", body, "stage_admin").status == 400


# ---- wasted cost


def test_attempt_records_show_the_wasted_cost(api: Api) -> None:
    api.container.provider.scripts[:] = [Script(deltas=("lost",), error=StreamCut()), Script()]
    job_id = api.submit()
    work(api)
    while_retrying = api.call("GET", f"/jobs/{job_id}/attempts").json
    api.container.clock.advance(60)
    work(api)

    attempts = api.call("GET", f"/jobs/{job_id}/attempts").json

    assert [row["wasted"] for row in while_retrying["data"]] == [True]
    assert [row["wasted"] for row in attempts["data"]] == [True, False]
    costs = [float(row["cost"]) for row in attempts["data"]]
    assert float(attempts["total_cost"]) == pytest.approx(sum(costs))
    assert float(attempts["wasted_cost"]) == pytest.approx(costs[0])


def test_every_attempt_of_a_failed_job_counts_as_wasted(api: Api, failed: str) -> None:
    attempts = api.call("GET", f"/jobs/{failed}/attempts").json

    assert [row["wasted"] for row in attempts["data"]] == [True]
    assert attempts["wasted_cost"] == attempts["total_cost"]
