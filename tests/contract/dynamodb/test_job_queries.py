"""Listing jobs, newest first, in pages."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chalicelib.domain.jobs.job import Job, Status
from chalicelib.ports import JobQuery
from tests.kit.records import NOW, job, new_id


def all_pages(stores: Any, query: JobQuery) -> list[str]:
    """Return the ids of all pages of a listing."""
    found: list[str] = []
    before = query.before
    while True:
        ids, before = stores.jobs.page(replace(query, before=before))
        assert len(ids) <= query.limit
        found += ids
        if before is None:
            return found


def tenant_with(stores: Any, count: int, **changes: Any) -> tuple[str, list[Job]]:
    """Create a new tenant with jobs a second apart. Return it and the jobs, newest first."""
    tenant = new_id()
    jobs = [job(tenant=tenant, created_at=NOW + 1000 * number, **changes) for number in range(count)]
    for each in jobs:
        stores.jobs.create(each)
    return tenant, jobs[::-1]


@pytest.mark.parametrize("limit", [1, 3, 7, 100])
def test_pages_return_each_job_once_newest_first(stores: Any, limit: int) -> None:
    """This holds for any page size, and no job of another tenant is returned."""
    tenant, jobs = tenant_with(stores, 7)
    tenant_with(stores, 2)

    assert all_pages(stores, JobQuery(tenant=tenant, limit=limit)) == [each.id for each in jobs]


def test_full_last_page_has_no_cursor(stores: Any) -> None:
    tenant, jobs = tenant_with(stores, 4)

    first, before = stores.jobs.page(JobQuery(tenant=tenant, limit=2))
    second, end = stores.jobs.page(JobQuery(tenant=tenant, limit=2, before=before))

    assert (first, second) == ([jobs[0].id, jobs[1].id], [jobs[2].id, jobs[3].id])
    assert before == jobs[1].id
    assert end is None


def test_since_is_inclusive_and_until_is_exclusive(stores: Any) -> None:
    """Bounds that exclude each other return nothing."""
    tenant, jobs = tenant_with(stores, 5)
    newest_first = [each.id for each in jobs]

    assert all_pages(stores, JobQuery(tenant=tenant, since=NOW + 1000, until=NOW + 3000, limit=1)) == newest_first[2:4]
    assert all_pages(stores, JobQuery(tenant=tenant, since=NOW + 3000)) == newest_first[:2]
    assert all_pages(stores, JobQuery(tenant=tenant, until=NOW + 2000)) == newest_first[3:]
    assert all_pages(stores, JobQuery(tenant=tenant, since=NOW + 3000, until=NOW + 1000)) == []


def test_the_smaller_of_before_and_until_applies(stores: Any) -> None:
    tenant, jobs = tenant_with(stores, 5)

    assert all_pages(stores, JobQuery(tenant=tenant, until=NOW + 4000, before=jobs[2].id)) == [jobs[3].id, jobs[4].id]
    assert all_pages(stores, JobQuery(tenant=tenant, until=NOW + 1000, before=jobs[2].id)) == [jobs[4].id]


def test_jobs_of_a_user_are_listed_within_the_tenant(stores: Any) -> None:
    """A user of the same name in another tenant is another user."""
    tenant, jobs = tenant_with(stores, 3, user="ben")
    stores.jobs.create(job(tenant=tenant, user="ann"))
    tenant_with(stores, 1, user="ben")

    assert all_pages(stores, JobQuery(tenant=tenant, user="ben", limit=2)) == [each.id for each in jobs]


def test_jobs_are_filtered_by_status(stores: Any) -> None:
    """Queued and processing jobs share an index partition, and completed jobs are in none."""
    tenant, jobs = tenant_with(stores, 9)
    states = [Status.QUEUED, Status.PROCESSING, Status.COMPLETED] * 3
    for each, state in zip(jobs, states, strict=True):
        ended = {"due_at": None, "finished_at": NOW + 60_000} if state.is_terminal else {}
        stores.jobs.replace(each, replace(each, version=2, status=state, **ended))

    for state in (Status.QUEUED, Status.PROCESSING, Status.COMPLETED):
        expected = [each.id for each, its in zip(jobs, states, strict=True) if its is state]
        assert all_pages(stores, JobQuery(tenant=tenant, state=state, limit=2)) == expected
        assert all_pages(stores, JobQuery(tenant=tenant, user="ann", state=state, limit=2)) == expected
    assert all_pages(stores, JobQuery(tenant=tenant, state=Status.HELD)) == []


@pytest.mark.parametrize("state", [Status.FAILED, Status.CANCELLED, Status.EXPIRED, Status.INCOMPLETE])
def test_unsuccessful_jobs_are_listed_by_end_time(stores: Any, state: Status) -> None:
    """The latest failure comes first; `since` and `until` still bound the creation."""
    tenant, jobs = tenant_with(stores, 4)
    for minutes, each in enumerate(jobs):
        stores.jobs.replace(each, replace(each, version=2, status=state, due_at=None, finished_at=NOW + 60_000 * (minutes + 1)))
    latest_first = [each.id for each in reversed(jobs)]

    assert all_pages(stores, JobQuery(tenant=tenant, state=state, limit=3)) == latest_first
    assert all_pages(stores, JobQuery(tenant=tenant, state=state, limit=1)) == latest_first
    assert all_pages(stores, JobQuery(tenant=tenant, state=state, since=NOW + 1000, until=NOW + 3000, limit=1)) == latest_first[1:3]


@pytest.mark.parametrize("state", [Status.RETRYING, Status.WAITING, Status.HELD])
def test_job_leaves_the_list_of_its_old_status(stores: Any, state: Status) -> None:
    tenant, jobs = tenant_with(stores, 3)
    for each in jobs:
        stores.jobs.replace(each, replace(each, version=2, status=state))

    assert all_pages(stores, JobQuery(tenant=tenant, state=state, limit=2)) == [each.id for each in jobs]
    assert all_pages(stores, JobQuery(tenant=tenant, state=Status.QUEUED)) == []


@pytest.mark.parametrize("before", ["!", "zzz", "\x00", "é" * 10, "x" * 5000, "\ud800"])
def test_invalid_cursor_is_no_error(stores: Any, before: str) -> None:
    """It leads to some page or to an empty one."""
    tenant, jobs = tenant_with(stores, 1)

    ids, _ = stores.jobs.page(JobQuery(tenant=tenant, before=before))

    assert set(ids) <= {jobs[0].id}
