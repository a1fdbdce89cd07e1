"""Lists and lines of a tenant whose jobs are in several shards of the indexes, on the twin and on moto."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from zlib import crc32

import pytest

from chalicelib.adapters.aws import client as aws
from chalicelib.adapters.dynamodb.jobs.records import DynamoJobs
from chalicelib.adapters.dynamodb.lines import DynamoLines
from chalicelib.adapters.stores import DynamoStores
from chalicelib.bootstrap import Container
from chalicelib.domain.jobs.index_keys import place_in_line
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.limits.tenant_limits import TenantLimits
from chalicelib.ports import JobQuery
from chalicelib.settings import Settings
from infra.naming import table_name
from tests.kit.dynamodb import counted_requests
from tests.kit.records import NOW, job, new_id

CAUSE = "rate:gpt-4o"
IN_LINE = {"status": Status.HELD, "reason": "rate_limited", "cause": CAUSE}


def grow(stores: Any, tenant: str, shards: int) -> None:
    seen = stores.tenant_limits.get(tenant) or TenantLimits(tenant=tenant)
    stores.tenant_limits.replace(seen, replace(seen, version=seen.version + 1, shards=shards))


def create(stores: Any, tenant: str, count: int, shards: int, start: int = 0, **fields: Any) -> list[Job]:
    """Create jobs a second apart, from `start`. Return them, newest first."""
    made = []
    for number in range(start, start + count):
        at = NOW + 1000 * number
        made.append(job(tenant=tenant, created_at=at, shards=shards, **{"queued_at": at, **fields}))
        stores.jobs.create(made[-1])
    return made[::-1]


def ids_of(jobs: list[Job]) -> list[str]:
    return [each.id for each in jobs]


def pages(stores: Any, query: JobQuery) -> Iterator[list[str]]:
    before = query.before
    while True:
        ids, before = stores.jobs.page(replace(query, before=before))
        yield ids
        if before is None:
            return


def listed(stores: Any, **query: Any) -> list[str]:
    return [job_id for page in pages(stores, JobQuery(**query)) for job_id in page]


def test_lists_have_the_jobs_of_all_shards_in_order(stores: Any) -> None:
    """Whatever each job was submitted with, and in pages of any size."""
    tenant = new_id()
    grow(stores, tenant, 8)
    jobs = [*create(stores, tenant, 20, 8, 40), *create(stores, tenant, 20, 4, 20), *create(stores, tenant, 20, 1)]

    for limit in (1, 7, 59, 60, 100):
        assert listed(stores, tenant=tenant, limit=limit) == ids_of(jobs)
        assert listed(stores, tenant=tenant, user="ann", limit=limit) == ids_of(jobs)
        assert listed(stores, tenant=tenant, state=Status.QUEUED, limit=limit) == ids_of(jobs)
    assert listed(stores, tenant=tenant, since=NOW + 5_000, until=NOW + 45_000, limit=9) == ids_of(jobs)[15:55]
    assert listed(stores, tenant=tenant, user="ben") == listed(stores, tenant=tenant, state=Status.HELD) == []


def test_list_by_end_has_the_jobs_of_all_shards_in_order(stores: Any) -> None:
    tenant = new_id()
    grow(stores, tenant, 4)
    jobs = create(stores, tenant, 12, 4)
    for number, each in enumerate(jobs):
        stores.jobs.replace(each, replace(each, version=2, status=Status.FAILED, due_at=None, finished_at=NOW + 60_000 + number))

    for limit in (1, 5, 12):
        assert listed(stores, tenant=tenant, state=Status.FAILED, limit=limit) == ids_of(jobs[::-1])
    assert listed(stores, tenant=tenant, state=Status.QUEUED) == []


def test_a_shard_with_nearly_all_jobs_is_read_to_its_end(stores: Any) -> None:
    """Each shard is asked for its share first, which is not enough here."""
    tenant = new_id()
    grow(stores, tenant, 4)
    made = [job(tenant=tenant, shards=4, created_at=NOW + number, queued_at=NOW + number, **IN_LINE) for number in range(200)]
    jobs = [each for each in made if crc32(each.id.encode()) % 4 == 2]
    jobs += [next(each for each in made if crc32(each.id.encode()) % 4 == 1)]
    jobs.sort(key=lambda each: each.id)
    for each in jobs:
        stores.jobs.create(each)

    assert len(jobs) > 20
    assert listed(stores, tenant=tenant, limit=len(jobs)) == ids_of(jobs[::-1])
    assert [held.job_id for held in stores.lines.held(CAUSE, tenant, len(jobs) - 1)] == ids_of(jobs[:-1])


@pytest.mark.parametrize("state", [None, Status.QUEUED])
@pytest.mark.parametrize("limit", [1, 4, 9])
def test_cursor_from_before_the_growth_goes_on_without_a_gap_or_a_repetition(stores: Any, state: str | None, limit: int) -> None:
    tenant = new_id()
    old = create(stores, tenant, 10, 1)
    first, before = stores.jobs.page(JobQuery(tenant=tenant, state=state, limit=limit))
    for shards, start in ((2, 20), (16, 30)):
        grow(stores, tenant, shards)
        create(stores, tenant, 5, shards, start)

    rest = listed(stores, tenant=tenant, state=state, limit=limit, before=before)

    assert first + rest == ids_of(old)
    assert len(listed(stores, tenant=tenant, state=state, limit=limit)) == 20


def test_lines_have_the_jobs_of_all_shards_in_order(stores: Any) -> None:
    """The better lane comes first, then the older job."""
    tenant = new_id()
    grow(stores, tenant, 4)
    normal = [*create(stores, tenant, 10, 4, 10, **IN_LINE), *create(stores, tenant, 10, 1, **IN_LINE)][::-1]
    urgent = create(stores, tenant, 4, 4, 30, lane="urgent", **IN_LINE)[::-1]
    jobs = [*urgent, *normal]
    held, count = stores.lines.held, stores.lines.count

    for limit in (1, 6, 24, 100):
        found: list[str] = []
        while page := held(CAUSE, tenant, limit, found[-1] if found else None):
            found += [each.place for each in page]
            assert len(page) <= limit
        assert found == [place_in_line(each) for each in jobs]
    assert [count(CAUSE, tenant, limit) for limit in (*range(1, 25), 100)] == [*range(1, 25), 24]
    assert [count(CAUSE, tenant, 100, lane=lane) for lane in ("urgent", "normal", "low")] == [4, 20, 0]
    assert [count(CAUSE, tenant, 100, before=place_in_line(each)) for each in jobs] == list(range(24))


def test_lines_by_user_have_the_jobs_of_all_shards_in_order(stores: Any) -> None:
    tenant = new_id()
    grow(stores, tenant, 4)
    jobs = [
        each
        for start, user in ((0, "ann"), (20, "ben"))
        for each in create(stores, tenant, 10, 4, start, user=user, line_by_user=True, **IN_LINE)
    ]
    places = sorted(place_in_line(each) for each in jobs)

    found: list[str] = []
    while page := stores.lines.held(CAUSE, tenant, 6, found[-1] if found else None, by_user=True):
        found += [each.place for each in page]
    assert found == places
    assert stores.lines.held(CAUSE, tenant, 6) == []
    assert [stores.lines.count(CAUSE, tenant, limit, by_user=True) for limit in (3, 13, 100)] == [3, 13, 20]
    before = [stores.lines.count(CAUSE, tenant, 100, before=place, by_user=True) for place in places]
    assert before == [*range(10), *range(10)]  # of the same user


def test_job_keeps_its_shard_through_every_change(stores: Any) -> None:
    """Also when its tenant has more shards by then."""
    tenant = new_id()
    grow(stores, tenant, 4)
    jobs = create(stores, tenant, 12, 4)
    grow(stores, tenant, 16)
    for each in jobs:
        held = replace(each, version=2, **IN_LINE)
        stores.jobs.replace(each, held)
        assert stores.jobs.get(each.id).shards == 4
    assert listed(stores, tenant=tenant, state=Status.HELD, limit=5) == ids_of(jobs)
    assert stores.lines.count(CAUSE, tenant, 100) == 12
    for each in jobs:
        held = replace(each, version=2, **IN_LINE)
        stores.jobs.replace(held, replace(each, version=3, status=Status.COMPLETED, due_at=None, finished_at=NOW + 60_000))

    assert stores.lines.count(CAUSE, tenant, 100) == 0
    assert listed(stores, tenant=tenant, state=Status.HELD) == listed(stores, tenant=tenant, state=Status.QUEUED) == []
    assert listed(stores, tenant=tenant, state=Status.COMPLETED, limit=5) == ids_of(jobs)


def stored(job_id: str) -> dict[str, Any]:
    item: dict[str, Any] = aws.client("dynamodb").get_item(TableName=table_name("dev", "jobs"), Key={"id": {"S": job_id}})["Item"]
    return {name: next(iter(value.values())) for name, value in item.items()}


@pytest.mark.usefixtures("dynamo_stores")
def test_the_first_shard_has_the_keys_of_a_tenant_without_shards_and_the_others_a_suffix() -> None:
    jobs = DynamoJobs("dev", lambda _tenant: 4)
    names = ("g_t", "g_u", "g_s", "g_l")
    alone = job(tenant="acme", **IN_LINE)
    jobs.create(alone)
    today = [stored(alone.id)[name] for name in names]
    seen = set()
    for number in range(40):
        made = job(tenant="acme", created_at=NOW + number, shards=4, **IN_LINE)
        jobs.create(made)
        shard = crc32(made.id.encode()) % 4
        seen.add(shard)
        assert [stored(made.id)[name] for name in names] == [f"{key}#{shard}" if shard else key for key in today]

    assert today[:3] == ["acme#0", "acme#ann", "acme#held"]
    assert "sh" not in stored(alone.id)
    assert seen == {0, 1, 2, 3}


@pytest.mark.parametrize("shards", [1, 2, 16])
@pytest.mark.usefixtures("dynamo_stores")
def test_a_list_and_a_line_cost_a_request_for_each_shard(shards: int) -> None:
    """So a tenant with one shard makes the requests that it made before there were any."""
    jobs, lines = DynamoJobs("dev", lambda _tenant: shards), DynamoLines("dev", lambda _tenant: shards)
    tenant = new_id()
    for number in range(30):
        jobs.create(job(tenant=tenant, created_at=NOW + number, queued_at=NOW + number, shards=shards, **IN_LINE))
    calls = (
        lambda: jobs.page(JobQuery(tenant=tenant, limit=10)),
        lambda: jobs.page(JobQuery(tenant=tenant, limit=10, state=Status.HELD)),
        lambda: jobs.page(JobQuery(tenant=tenant, limit=10, user="ann")),
        lambda: lines.held(CAUSE, tenant, 10),
        lambda: lines.count(CAUSE, tenant, 1_000),
    )
    for call in calls:
        with counted_requests() as requests:
            call()
        assert set(requests) == {"Query"}
        assert requests["Query"] == 1 if shards == 1 else shards <= requests["Query"] <= shards + 2


def test_the_container_asks_for_the_shards_of_a_tenant_once_in_a_while(dynamo_stores: DynamoStores) -> None:
    """With one shard a page and the head of a line cost one query each, as without shards."""
    container = Container(Settings(stage=dynamo_stores.stage))
    few, many = new_id(), new_id()
    grow(dynamo_stores, many, 4)
    for tenant, shards in ((few, 1), (many, 4)):
        create(dynamo_stores, tenant, 12, shards, **IN_LINE)

    def read(tenant: str) -> dict[str, int]:
        with counted_requests() as requests:
            assert len(container.jobs.page(JobQuery(tenant=tenant))[0]) == 12
            assert len(container.lines.held(CAUSE, tenant, 12)) == 12
            assert container.lines.count(CAUSE, tenant, 100) == 12
        return dict(requests)

    assert read(few) == {"GetItem": 1, "Query": 3}  # the names of the tenants that have limits
    assert read(few) == {"Query": 3}
    assert read(many)["GetItem"] == 1
    assert set(read(many)) == {"Query"}


def test_job_that_an_older_version_has_changed_is_found_once(dynamo_stores: DynamoStores) -> None:
    """It knows no shards, so it writes the keys of the first one, which is always read."""
    tenant = new_id()
    grow(dynamo_stores, tenant, 4)
    [made] = [each for each in create(dynamo_stores, tenant, 8, 4) if crc32(each.id.encode()) % 4 == 3][:1]
    aws.client("dynamodb").update_item(
        TableName=table_name("dev", "jobs"),
        Key={"id": {"S": made.id}},
        UpdateExpression="SET #status = :status, g_s = :state",
        ExpressionAttributeNames={"#status": "status"},
        ExpressionAttributeValues={":status": {"S": "retrying"}, ":state": {"S": f"{tenant}#retrying"}},
    )

    assert listed(dynamo_stores, tenant=tenant, state=Status.RETRYING) == [made.id]
    assert len(listed(dynamo_stores, tenant=tenant)) == 8
    seen = dynamo_stores.jobs.get(made.id)
    assert seen is not None
    dynamo_stores.jobs.replace(seen, replace(seen, version=2, status=Status.QUEUED))
    assert listed(dynamo_stores, tenant=tenant, state=Status.RETRYING) == []
    assert made.id in listed(dynamo_stores, tenant=tenant, state=Status.QUEUED)
