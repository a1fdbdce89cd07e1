"""The shards of a tenant: who sets them, when they are used, and that lists go on."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from chalicelib.domain.jobs.job import Status
from chalicelib.domain.limits.tenant_limits import MAX_INDEX_SHARDS
from chalicelib.domain.queues.lanes import READY
from chalicelib.domain.queues.wakeup import WakeUp
from chalicelib.services.maintenance.sweep_lines import sweep_lines
from tests.entrypoints.conftest import Api
from tests.kit import batches
from tests.kit.failing_store import refusing
from tests.kit.records import job


def grow(api: Api, shards: Any, token: str | None = "stage_admin") -> Any:
    return api.call("PUT", "/limits/tenants/acme", {"shards": shards}, token)


def submit(api: Api, jobs: int) -> list[str]:
    """Submit jobs a second apart. Return their ids, newest first."""
    ids = []
    for _ in range(jobs):
        api.container.clock.advance(1)
        ids.append(api.submit())
    return ids[::-1]


def page(api: Api, limit: int, cursor: str | None = None, **filters: str) -> tuple[list[str], str | None]:
    query = "".join(f"&{name}={value}" for name, value in {**filters, **({"cursor": cursor} if cursor else {})}.items())
    answer = api.call("GET", f"/jobs?limit={limit}{query}", token="operator").json
    return [one["job_id"] for one in answer["data"]], answer["next_cursor"]


def all_pages(api: Api, limit: int, cursor: str | None = None, **filters: str) -> list[str]:
    found, cursor = page(api, limit, cursor, **filters)
    while cursor:
        more, cursor = page(api, limit, cursor, **filters)
        found += more
    return found


def test_shards_that_are_set_are_shown(api: Api) -> None:
    assert api.call("GET", "/limits", token="viewer").json["limits"]["shards"] == 1

    answer = grow(api, 4)

    assert (answer.status, answer.json["shards"]) == (200, 4)
    assert api.call("GET", "/limits", token="viewer").json["limits"]["shards"] == 4
    assert [one["shards"] for one in api.call("GET", "/limits", token="stage_admin").json["tenants"]] == [4]


@pytest.mark.parametrize("shards", [1, 2, 6])
def test_shards_that_are_fewer_or_no_power_of_two_are_refused_with_both_numbers(api: Api, shards: int) -> None:
    grow(api, 4)

    refused = grow(api, shards)

    [detail] = refused.json["error"]["details"]
    assert (refused.status, detail["path"]) == (400, "shards")
    assert detail["message"] == f"must be a power of two from 4, which the tenant has now, to {MAX_INDEX_SHARDS}; it is {shards}"
    assert api.call("GET", "/limits").json["limits"]["shards"] == 4


@pytest.mark.parametrize("shards", [0, -1, 17, 32, 2.5, "2", None])
def test_shards_that_no_tenant_can_have_are_refused(api: Api, shards: Any) -> None:
    refused = grow(api, shards)

    assert (refused.status, refused.json["error"]["details"][0]["path"]) == (400, "shards")
    assert api.container.tenant_limits.all() == []


@pytest.mark.parametrize(("token", "status"), [(None, 401), ("viewer", 403), ("user", 403), ("operator", 403), ("admin", 403)])
def test_only_admins_of_all_tenants_set_shards(api: Api, token: str | None, status: int) -> None:
    assert grow(api, 2, token).status == status
    assert api.container.tenant_limits.all() == []


def test_jobs_are_written_to_new_shards_two_minutes_after_they_are_set(api: Api) -> None:
    before = submit(api, 2)
    grow(api, 4)
    at_once = submit(api, 2)
    api.container.clock.advance(116)
    until_then = submit(api, 1)
    api.container.clock.advance(2)
    after = submit(api, 8)

    assert [api.job(job_id).shards for job_id in (*before, *at_once, *until_then)] == [1] * 5
    assert [api.job(job_id).shards for job_id in after] == [4] * 8
    assert all_pages(api, 3) == [*after, *until_then, *at_once, *before]


@pytest.mark.parametrize("filters", [{}, {"status": "queued"}, {"user": "alice"}])
def test_cursor_from_before_the_growth_goes_on_without_a_gap_or_a_repetition(api: Api, filters: dict[str, str]) -> None:
    before = submit(api, 9)
    first, cursor = page(api, 4, **filters)
    grow(api, 16)
    api.container.clock.advance(120)
    after = submit(api, 9)

    assert first + all_pages(api, 4, cursor, **filters) == before
    assert all_pages(api, 4, **filters) == after + before


def test_bulk_actions_reach_the_jobs_of_all_shards(api: Api) -> None:
    grow(api, 8)
    api.container.clock.advance(120)
    jobs = submit(api, 20)

    answer = api.call("POST", "/bulk", {"action": "cancel", "filter": {"status": "queued"}}, "operator")

    assert answer.status in (200, 202), answer.text
    assert {api.job(job_id).status for job_id in jobs} == {Status.CANCELLED}
    assert set(all_pages(api, 7, status="cancelled")) == set(jobs)


def test_jobs_of_all_shards_that_wait_for_a_slot_are_sent_by_the_sweep(api: Api) -> None:
    grow(api, 4)
    ids = set()
    for number in range(12):
        made = job(tenant="acme", status=Status.HELD, reason="tenant_concurrency", cause="slots:t:acme", shards=4, queued_at=number)
        api.container.jobs.create(made)
        ids.add(made.id)
    api.container.lines.touch("slots:t:acme", "acme", api.container.clock.now())

    sweep_lines(api.container, api.container.clock.now() + 40_000)

    assert {WakeUp.from_json(message.body).job_id for message in api.container.queues.receive(READY.name, 100)} == ids


def test_lists_of_a_tenant_with_one_shard_cost_one_small_read_in_ten_seconds(api: Api) -> None:
    """The names of the tenants with limits, for all tenants; nothing is read for the tenant itself."""
    submit(api, 5)
    api.container.clock.advance(60)
    calls: Counter[str] = Counter()
    store, jobs = api.container.tenant_limits, api.container.jobs
    for port, name in ((store, "tenants"), (store, "get"), (jobs, "page"), (jobs, "get_many")):
        real = getattr(port, name)
        vars(port)[name] = lambda *args, _real=real, _name=name, **named: calls.update([_name]) or _real(*args, **named)

    for _ in range(5):
        assert len(page(api, 10)[0]) == 5
        api.container.clock.advance(1)

    assert calls == {"tenants": 1, "page": 5, "get_many": 5}


def test_lists_are_complete_while_the_limits_cannot_be_read(api: Api) -> None:
    grow(api, 8)
    api.container.clock.advance(120)
    jobs = submit(api, 10)
    api.container.clock.advance(300)

    with refusing(api.container.tenant_limits, "get", 99), refusing(api.container.tenant_limits, "tenants", 99):
        assert all_pages(api, 4) == jobs


def test_rows_of_batches_are_spread_over_the_shards(api: Api) -> None:
    grow(api, 4)
    api.container.clock.advance(120)
    batch_id = batches.submit(api, 12)
    batches.tasks(api)

    records = [record for record in api.container.jobs.records.values() if record.batch_id == batch_id]
    assert [record.shards for record in records] == [4] * 12
    assert len(all_pages(api, 5, batch=batch_id)) == 12
    assert len(set(all_pages(api, 5))) == 12
