"""Retrying a job by hand: its content is kept as long as the new run needs it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chalicelib.domain.errors import JobNotRetryable
from chalicelib.domain.jobs.bulk_operation import BulkAction, BulkPage
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.jobs.transitions import spec_ttl
from chalicelib.services.jobs.advance_bulk import advance_bulk
from chalicelib.services.jobs.bulk_turns import request_turn
from chalicelib.services.jobs.retry_job import retry_job
from tests.kit.failing_store import refusing
from tests.kit.records import bulk_operation
from tests.kit.world import World

DAY = 86_400


def failed(world: World, status: Status = Status.FAILED) -> Job:
    job = world.submit()
    world.container.jobs.records[job.id] = replace(job, status=status, finished_at=world.clock.now(), due_at=None)
    return world.job(job)


@pytest.mark.parametrize("status", [Status.FAILED, Status.EXPIRED, Status.CANCELLED, Status.INCOMPLETE])
def test_the_content_of_a_job_retried_late_is_kept_for_its_new_run(status: Status) -> None:
    """It would be deleted the next day, when the job may still be queued."""
    world = World()
    job = failed(world, status)
    kept = world.container.job_specs.kept_until
    world.clock.advance(30 * DAY)
    assert kept[job.id] < world.clock.now() // 1000 + 2 * DAY

    retried = retry_job(world.container, job)

    assert retried.status is Status.QUEUED
    assert kept[job.id] == spec_ttl(retried) >= retried.expires_at // 1000 + 30 * DAY


def test_the_content_is_kept_before_the_new_run_exists() -> None:
    """A process that dies in between leaves content that is kept too long, not a run without content."""
    world = World()
    job = failed(world)
    world.clock.advance(30 * DAY)

    with refusing(world.container.job_specs, "extend_ttl"), pytest.raises(Exception, match="throttling"):
        retry_job(world.container, job)

    assert world.job(job).status is Status.FAILED


def test_a_job_whose_content_is_deleted_during_the_retry_is_not_queued() -> None:
    """TTL deletes it between the read and the extension."""
    world = World()
    job = failed(world)
    world.clock.advance(30 * DAY)
    real = world.container.job_specs.get
    world.container.job_specs.get = lambda job_id: (real(job_id), world.container.job_specs.delete(job_id))[0]  # type: ignore[method-assign]

    with pytest.raises(JobNotRetryable, match="no longer kept"):
        retry_job(world.container, job)

    assert world.job(job).status is Status.FAILED


def test_a_bulk_retry_keeps_the_content_of_each_job() -> None:
    """Also for the rows of a batch, whose retry is the same operation."""
    world = World()
    jobs = [failed(world) for _ in range(3)]
    world.clock.advance(30 * DAY)
    bulk = bulk_operation(action=BulkAction.RETRY, ids=tuple(job.id for job in jobs), page=BulkPage(), lane=None, locked_until=0)
    world.container.bulk_operations.create(bulk)

    request_turn(world.container, bulk)
    advance_bulk(world.container, bulk.tenant, bulk.id, bulk.version, world.clock.now() + 40_000)

    assert {world.job(job).status for job in jobs} == {Status.QUEUED}
    for job in jobs:
        assert world.container.job_specs.kept_until[job.id] == spec_ttl(world.job(job))


def test_a_job_that_starts_early_needs_no_longer_content() -> None:
    """Its run is the same and expires when it would have."""
    world = World()
    job = world.submit()
    held = replace(job, status=Status.HELD, reason="circuit_open", resume_at=world.clock.now() + 60_000, generation=2)
    world.container.jobs.records[job.id] = held

    with refusing(world.container.job_specs, "extend_ttl", 9):
        assert retry_job(world.container, held).status is Status.QUEUED
