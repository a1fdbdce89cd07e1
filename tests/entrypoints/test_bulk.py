"""Bulk operations through `app.py`."""

from __future__ import annotations

from typing import Any

import pytest

from chalicelib.domain.auth.identity import Key, Role
from chalicelib.domain.errors import HeadraceError
from chalicelib.domain.jobs.job import Status
from chalicelib.services.auth.authenticate import secret_hash
from chalicelib.services.jobs import bulk_operations
from chalicelib.services.jobs.wake_bulk_operations import STALLED_MS
from tests.kit.batches import tasks
from tests.kit.http import Api, Reply, unreachable
from tests.kit.work import sweep, work


@pytest.fixture(autouse=True)
def _region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "us-east-1")


def bulk(api: Api, body: Any, token: str = "operator", **headers: str) -> Reply:
    return api.call("POST", "/bulk", body, token, **headers)


def read_bulk(api: Api, bulk_id: str, token: str = "operator") -> Any:
    return api.call("GET", f"/bulk/{bulk_id}", token=token).json


def statuses(api: Api, ids: list[str]) -> set[str]:
    return {api.job(job_id).status.value for job_id in ids}


def test_cancel_all_cancels_every_unfinished_job(api: Api) -> None:
    queued, waiting = [api.submit() for _ in range(3)], [api.submit(delay=600)]
    completed = api.submit(priority="urgent")
    work(api, "urgent")

    answer = bulk(api, {"action": "cancel", "all": True}).json

    assert (answer["status"], answer["done"], answer["created_by"]) == ("completed", 4, "olga")
    assert statuses(api, queued + waiting) == {"cancelled"}
    assert api.job(completed).status is Status.COMPLETED
    assert read_bulk(api, answer["bulk_id"])["done"] == 4


def test_set_priority_moves_only_filtered_jobs_to_another_lane(api: Api) -> None:
    tagged, other = [api.submit(tags=["night"]) for _ in range(2)], api.submit()

    answer = bulk(api, {"action": "set_priority", "priority": "low", "filter": {"tag": "night"}}).json

    assert (answer["done"], answer["priority"], answer["filter"]) == (2, "low", {"tag": "night"})
    assert {api.job(job_id).lane for job_id in tagged} == {"low"}
    assert api.job(other).lane == "normal"
    work(api)
    assert statuses(api, tagged) == {"queued"}  # the wake-ups in the old lane have an outdated generation
    work(api, "low")
    assert statuses(api, tagged) == {"completed"}


def test_ended_jobs_can_be_deleted_by_status_or_by_id(api: Api) -> None:
    cancelled = [api.submit() for _ in range(2)]
    for job_id in cancelled:
        api.call("POST", f"/jobs/{job_id}/cancel")
    running, done = api.submit(priority="low"), api.submit(priority="high")
    work(api, "high")

    assert bulk(api, {"action": "delete", "filter": {"status": "cancelled"}}).json["done"] == 2
    named = bulk(api, {"action": "delete", "ids": [done, running]}).json

    assert (named["done"], named["problems"]) == (1, [{"job_id": running, "code": "job_not_deletable"}])
    assert list(api.container.jobs.records) == [running]


def test_a_large_bulk_operation_continues_after_the_request(api: Api) -> None:
    ids = [api.submit() for _ in range(bulk_operations.INLINE_MAX_JOBS + 60)]

    reply = bulk(api, {"action": "cancel", "all": True})

    assert (reply.status, reply.json["status"]) == (202, "running")
    assert reply.json["done"] >= bulk_operations.INLINE_MAX_JOBS
    assert "queued" in statuses(api, ids)
    tasks(api)
    assert (read_bulk(api, reply.json["bulk_id"])["status"], statuses(api, ids)) == ("completed", {"cancelled"})
    assert read_bulk(api, reply.json["bulk_id"])["done"] == len(ids)


def test_a_bulk_operation_resumes_after_a_store_outage(api: Api) -> None:
    ids = [api.submit() for _ in range(5)]
    api.container.jobs.replace = unreachable(api.container.jobs.replace, 3)  # type: ignore[method-assign]

    reply = bulk(api, {"action": "cancel", "all": True})
    assert (reply.status, reply.json["done"]) == (202, 0)  # two jobs are cancelled, but not counted yet
    tasks(api)

    ended = read_bulk(api, reply.json["bulk_id"])
    assert (ended["status"], ended["done"], ended["matched"]) == ("completed", 5, 5)
    assert statuses(api, ids) == {"cancelled"}


def test_a_bulk_operation_whose_message_is_lost_is_woken_by_the_schedule(api: Api) -> None:
    ids = [api.submit() for _ in range(bulk_operations.INLINE_MAX_JOBS + 1)]
    bulk_id = bulk(api, {"action": "cancel", "all": True}).json["bulk_id"]
    api.container.queues.messages["tasks"].clear()

    sweep(api, after=STALLED_MS / 1000)
    assert read_bulk(api, bulk_id)["status"] == "running"
    tasks(api)

    assert (read_bulk(api, bulk_id)["status"], read_bulk(api, bulk_id)["done"]) == ("completed", len(ids))


def test_a_job_with_an_internal_error_does_not_stop_a_bulk_operation(api: Api) -> None:
    ids = [api.submit() for _ in range(3)]
    real = api.container.jobs.replace

    def fail_on_second_job(seen: Any, new: Any) -> None:
        if seen.id == ids[1]:
            raise RuntimeError("a bug")
        real(seen, new)

    api.container.jobs.replace = fail_on_second_job  # type: ignore[method-assign]

    answer = bulk(api, {"action": "cancel", "ids": ids}).json

    assert (answer["done"], answer["failed"], answer["problems"]) == (2, 1, [{"job_id": ids[1], "code": "internal_error"}])


def test_a_broken_bulk_operation_does_not_stop_the_next(api: Api) -> None:
    ids = [[api.submit()], [api.submit()]]
    failing = unreachable(api.container.jobs.replace, 1, 2)
    real, api.container.jobs.replace = api.container.jobs.replace, failing  # type: ignore[method-assign]
    for job_ids in ids:
        assert bulk(api, {"action": "cancel", "ids": job_ids}).status == 202
    api.container.jobs.replace = real  # type: ignore[method-assign]
    first = min(api.container.bulk_operations.rows)
    replace_operation = api.container.bulk_operations.replace

    def broken(seen: Any, new: Any) -> None:
        if seen.id == first:
            raise HeadraceError("broken")
        replace_operation(seen, new)

    api.container.bulk_operations.replace = broken  # type: ignore[method-assign]
    tasks(api)

    assert api.job(ids[1][0]).status is Status.CANCELLED
    assert [row.finished_at is None for row in api.container.bulk_operations.rows.values()] == [True, False]


def test_a_repeated_idempotency_key_returns_the_same_bulk_operation(api: Api) -> None:
    api.submit()
    body = {"action": "cancel", "all": True}
    first = bulk(api, body, idempotency_key="k")
    later = api.submit()

    again = bulk(api, body, idempotency_key="k")

    assert (again.json["bulk_id"], again.headers["idempotent-replayed"]) == (first.json["bulk_id"], "true")
    assert api.job(later).status is Status.QUEUED
    assert bulk(api, {**body, "all": True, "filter": {"type": "general"}}, idempotency_key="k").status == 409


def test_a_bulk_operation_never_reaches_jobs_of_another_tenant(api: Api) -> None:
    ours, theirs = api.submit(), api.submit("stranger")

    assert bulk(api, {"action": "cancel", "all": True}, "stranger").json["done"] == 1
    assert bulk(api, {"action": "cancel", "ids": [ours]}, "stranger").json["not_found"] == 1
    assert bulk(api, {"action": "cancel", "filter": {"tenant": "acme", "type": "general"}}, "stranger").status == 403

    assert api.job(theirs).status is Status.CANCELLED
    assert api.job(ours).status is Status.QUEUED
    dry_run = bulk(api, {"action": "cancel", "all": True, "dry_run": True}, "stranger").json
    assert dry_run["matched"] == 0


def test_an_unknown_or_foreign_bulk_operation_returns_404(api: Api) -> None:
    bulk_id = bulk(api, {"action": "cancel", "all": True}).json["bulk_id"]

    for token, name in (("stranger", bulk_id), ("operator", "bulk_none")):
        reply = api.call("GET", f"/bulk/{name}", token=token)
        assert (reply.status, reply.json["error"]["code"]) == (404, "bulk_not_found")


def test_a_key_of_all_tenants_selects_jobs_by_tenant_or_by_id(api: Api) -> None:
    key = Key(id="key_all", hash=secret_hash("hr_all"), tenant="house", user="hal", role=Role.ADMIN, created_at=1, all_tenants=True)
    api.container.api_keys.put_key(key)
    first, second = api.submit(), api.submit()

    assert bulk(api, {"action": "cancel", "ids": [first]}, "all").json["done"] == 1
    by_tenant = bulk(api, {"action": "cancel", "all": True, "filter": {"tenant": "acme"}}, "all").json

    assert by_tenant["done"] == 1
    assert statuses(api, [first, second]) == {"cancelled"}
    assert api.call("GET", f"/bulk/{by_tenant['bulk_id']}?tenant=acme", token="all").status == 200


@pytest.mark.parametrize(
    ("body", "paths"),
    [
        ({}, {"action", "all"}),
        ({"action": "cancel"}, {"all"}),
        ({"action": "cancel", "filter": {}}, {"all"}),
        ({"action": "cancel", "filter": {"tenant": "acme"}}, {"all"}),
        ({"action": "cancel", "ids": []}, {"ids", "all"}),
        ({"action": "cancel", "ids": ["job_1"], "all": True}, {"ids"}),
        ({"action": "cancel", "ids": ["job_1"], "filter": {"type": "general"}}, {"ids"}),
        ({"action": "set_priority", "all": True}, {"priority"}),
        ({"action": "retry", "all": True, "priority": "low"}, {"priority"}),
        ({"action": "retry", "filter": {"status": "completed"}}, {"filter.status"}),
        ({"action": "delete", "filter": {"status": "queued"}}, {"filter.status"}),
        ({"action": "cancel", "filter": {"status": "failed"}}, {"filter.status"}),
        ({"action": "cancel", "filter": {"since": "noon", "status": "lost", "x": 1}}, {"filter.since", "filter.status", "filter.x"}),
        ({"action": "cancel", "filter": []}, {"filter", "all"}),
        ({"action": "explode", "all": True}, {"action"}),
        ({"action": "cancel", "all": True, "ids": "job_1"}, {"ids"}),
    ],
)
def test_all_invalid_fields_are_reported_at_once(api: Api, body: Any, paths: set[str]) -> None:
    job_id = api.submit()

    reply = bulk(api, body)

    assert reply.status == 400
    assert {detail["path"] for detail in reply.json["error"]["details"]} == paths
    assert api.job(job_id).status is Status.QUEUED
    assert api.container.bulk_operations.rows == {}


def test_a_dry_run_by_id_counts_only_existing_jobs(api: Api) -> None:
    ids = [api.submit(), api.submit(), f"job_{99:026}"]

    assert bulk(api, {"action": "cancel", "ids": ids, "dry_run": True}).json["matched"] == 2


def test_a_dry_run_stops_counting_at_its_limit_and_reports_more(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_operations, "MAX_COUNTED", 150)
    for _ in range(250):
        api.submit()

    answer = bulk(api, {"action": "cancel", "filter": {"status": "queued"}, "dry_run": True}).json

    assert (answer["matched"], answer["more"]) == (200, True)
