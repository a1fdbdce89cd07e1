"""How far the workers have read a queue for each tenant, and which jobs therefore only wait."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chalicelib.domain.jobs.backlog import UNMARKED_MS, Backlog, newest, watermarks
from chalicelib.domain.jobs.job import Status
from chalicelib.domain.jobs.transitions import QUEUED_CHECK_DELAY_MS
from tests.kit.jobs import NOW, job


def test_watermark_of_a_tenant_is_the_earliest_ready_time_of_its_jobs() -> None:
    """A delayed job counts from the time at which its delay ends."""
    delayed = replace(job(queued_at=NOW - 900_000), resume_at=NOW + 5)
    jobs = [job(queued_at=NOW + 9), delayed, job(queued_at=NOW + 7), job(tenant="other", queued_at=NOW + 1)]

    assert watermarks(jobs) == {"acme": NOW + 5, "other": NOW + 1}
    assert watermarks([]) == {}


def test_the_newest_report_of_each_tenant_counts() -> None:
    assert newest([{"a": 1, "b": 9}, {"a": 3}, {}]) == {"a": 3, "b": 9}


@pytest.mark.parametrize(("queued_at", "waits"), [(NOW - 501, False), (NOW - 500, True), (NOW - 499, True)])
def test_a_job_waits_if_it_was_queued_after_the_watermark_of_its_tenant(queued_at: int, waits: bool) -> None:
    """Whatever those of other tenants are."""
    backlog = Backlog(is_deep=True, marks={"acme": NOW - 500, "other": NOW - 1, "third": NOW - 900})

    assert backlog.waits(job(queued_at=queued_at), NOW) is waits


@pytest.mark.parametrize(("waited", "waits"), [(UNMARKED_MS - 1, True), (UNMARKED_MS, False)])
def test_a_job_of_a_tenant_without_a_watermark_waits_for_a_quarter_of_an_hour(waited: int, waits: bool) -> None:
    backlog = Backlog(is_deep=True, marks={"other": NOW})

    assert backlog.waits(job(queued_at=NOW - waited), NOW) is waits


def test_watermark_of_the_previous_version_holds_for_tenants_without_their_own() -> None:
    backlog = Backlog(is_deep=True, marks={"other": NOW - 900}, of_all=NOW - 500)

    assert [backlog.waits(job(queued_at=NOW - age), NOW) for age in (501, 499)] == [False, True]
    assert backlog.waits(job(tenant="other", queued_at=NOW - 501), NOW)


@pytest.mark.parametrize(("deep", "status"), [(False, Status.QUEUED), (True, Status.PROCESSING)])
def test_nothing_waits_in_an_empty_queue_and_no_running_job_does(deep: bool, status: Status) -> None:
    backlog = Backlog(is_deep=deep, marks={"acme": NOW - 500})

    assert not backlog.waits(job(queued_at=NOW, status=status), NOW)


def test_a_job_that_has_expired_does_not_wait() -> None:
    late = job(queued_at=NOW, expires_at=NOW + 5)

    assert [Backlog(is_deep=True, marks={"acme": NOW - 500}).waits(late, at) for at in (NOW + 4, NOW + 5)] == [True, False]


def test_jobs_that_only_wait_are_not_read() -> None:
    """All that are due later than the oldest job that might be checked; it is due two minutes after it was queued."""
    later = NOW + 10**9

    assert Backlog().due_until(later, NOW) == later
    assert Backlog(is_deep=True, marks={"a": NOW - 9, "b": NOW}).due_until(later, NOW) == NOW + QUEUED_CHECK_DELAY_MS - 1
    assert Backlog(is_deep=True, marks={"a": NOW - 9}, of_all=NOW - 3).due_until(later, NOW) == NOW - 3 + QUEUED_CHECK_DELAY_MS - 1
    assert Backlog(is_deep=True).due_until(later, NOW) == NOW - UNMARKED_MS + QUEUED_CHECK_DELAY_MS
    assert Backlog(is_deep=True, marks={"a": NOW}).due_until(NOW - 7, NOW) == NOW - 7
