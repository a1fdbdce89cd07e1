"""Edited jobs in virtual time: a moved start, another lane, another expiry, new metadata."""

from __future__ import annotations

import pytest

from chalicelib.domain.errors import InvalidRequest, JobNotChangeable, PreconditionFailed, StaleVersion
from chalicelib.domain.jobs.edits import JobEdit
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.jobs.transitions import expire
from chalicelib.domain.units import Ms
from chalicelib.services.jobs.edit_job import edit_job
from chalicelib.services.update_job import update_job
from tests.kit.world import World

SWEEP_EVERY = 60


def run_until_started(world: World, job: Job, until: Ms) -> Ms | None:
    """Deliver messages as they become visible and sweep every minute, at most until `until`.

    Return when the job started, None if it did not.
    """
    swept = world.clock.now()
    while world.clock.now() < until and world.job(job).started_at is None:
        if world.clock.now() - swept >= SWEEP_EVERY * 1000:
            world.sweep()
            swept = world.clock.now()
        for lane in ("high", "normal", "low"):
            world.deliver(lane)
        world.clock.advance(1)
    return world.job(job).started_at


def delayed_job(world: World, seconds: float) -> Job:
    return world.submit(run_at=world.clock.now() + round(seconds * 1000))


@pytest.mark.parametrize("seconds", [3, 60, 899, 901, 4_000])
def test_a_delayed_job_starts_within_five_seconds_of_its_time(seconds: int) -> None:
    """Short delays use the queue's message delay; longer ones depend on the sweeper's wake-up."""
    world = World()
    at = world.clock.now() + seconds * 1000

    started = run_until_started(world, delayed_job(world, seconds), at + 120_000)

    assert started is not None
    assert at <= started <= at + 5_000


@pytest.mark.parametrize("first", [30, 600, 5_000])
@pytest.mark.parametrize("second", [20, 300, 880, 905, 3_000, 6_000])
def test_a_rescheduled_job_starts_within_five_seconds_of_its_new_time(first: int, second: int) -> None:
    """The wake-up for the old time is still in flight and must not start the job early."""
    world = World()
    job = delayed_job(world, first)
    at = world.clock.now() + second * 1000

    edit_job(world.container, job, JobEdit(run_at=at))
    started = run_until_started(world, job, at + 120_000)

    assert started is not None
    assert at <= started <= at + 5_000
    assert world.job(job).attempt == 1


def test_a_job_rescheduled_several_times_runs_once_at_its_last_time() -> None:
    world = World()
    job, now = delayed_job(world, 60), world.clock.now()

    for seconds in (600, 30, 1_200, 90):
        job = edit_job(world.container, job, JobEdit(run_at=now + seconds * 1000))
    started = run_until_started(world, job, now + 300_000)
    world.clock.advance(1_500)
    world.deliver()

    assert started is not None
    assert now + 90_000 <= started <= now + 95_000
    assert (world.job(job).status, world.job(job).attempt) == (Status.COMPLETED, 1)


def test_setting_run_at_to_now_starts_a_delayed_job_at_once() -> None:
    world = World()
    job = delayed_job(world, 3_600)

    edit_job(world.container, job, JobEdit(run_at=world.clock.now()))
    world.deliver()

    assert world.job(job).status is Status.COMPLETED


def test_a_job_moved_to_a_slower_lane_runs_only_in_that_lane() -> None:
    world = World()
    job = world.submit()

    edit_job(world.container, job, JobEdit(lane="low"))
    world.deliver("normal")
    assert world.job(job).status is Status.QUEUED
    world.deliver("low")

    assert world.job(job).status is Status.COMPLETED


def test_a_job_moved_to_a_faster_lane_runs_once_despite_two_wake_ups() -> None:
    world = World()
    job = world.submit()

    edit_job(world.container, job, JobEdit(lane="high"))
    world.deliver("high")
    world.deliver("normal")

    assert (world.job(job).status, world.job(job).attempt) == (Status.COMPLETED, 1)


def test_a_wake_up_lost_after_a_lane_change_is_sent_again_by_the_sweeper() -> None:
    world = World()
    job = world.submit()
    moved = edit_job(world.container, job, JobEdit(lane="low"))
    world.container.queues.messages["low"].clear()

    started = run_until_started(world, moved, world.clock.now() + 300_000)

    assert started is not None


# ---- expiry


def test_an_extended_expiry_wins_over_a_sweep_that_read_the_old_record() -> None:
    """The sweeper's replace fails with `StaleVersion`, so its decision to expire is dropped."""
    world = World()
    job = world.submit(expires_in=10.0)
    world.clock.advance(5)
    read_by_the_sweeper = world.job(job)

    extended = edit_job(world.container, job, JobEdit(expires_at=world.clock.now() + 3_600_000))
    world.clock.advance(60)
    expired = expire(read_by_the_sweeper, world.clock.now())
    with pytest.raises(StaleVersion):
        world.container.jobs.replace(read_by_the_sweeper, expired)
    world.sweep()

    assert world.job(job) == extended
    world.deliver()
    assert world.job(job).status is Status.COMPLETED


def test_extending_the_expiry_of_an_expired_job_is_refused() -> None:
    world = World()
    job = world.submit(expires_in=1.0)
    update_job(world.container.jobs, job, lambda seen: expire(seen, world.clock.now()))

    with pytest.raises(JobNotChangeable, match="expired"):
        edit_job(world.container, job, JobEdit(expires_at=world.clock.now() + 3_600_000))


def test_extending_the_expiry_extends_the_retention_of_the_job_spec() -> None:
    world = World()
    job = world.submit()
    before = world.container.job_specs.kept_until[job.id]

    edit_job(world.container, job, JobEdit(expires_at=world.clock.now() + 20 * 86_400_000))

    assert world.container.job_specs.kept_until[job.id] == before + 19 * 86_400


@pytest.mark.parametrize("seconds", [0, 3_600, 3_600 + 31 * 86_400])
def test_an_expiry_before_run_at_or_beyond_the_maximum_is_refused(seconds: int) -> None:
    world = World()
    job = delayed_job(world, 3_600)

    with pytest.raises(InvalidRequest):
        edit_job(world.container, job, JobEdit(expires_at=world.clock.now() + seconds * 1000))


# ---- metadata


def test_a_metadata_edit_with_an_outdated_version_is_refused() -> None:
    world = World()
    job = world.submit()

    edit_job(world.container, job, JobEdit(changes_spec=True), {"n": 1}, {job.version})
    with pytest.raises(PreconditionFailed):
        edit_job(world.container, job, JobEdit(changes_spec=True), {"n": 2}, {job.version})

    spec = world.container.job_specs.get(job.id)
    assert spec is not None
    assert spec.metadata == {"n": 1}
