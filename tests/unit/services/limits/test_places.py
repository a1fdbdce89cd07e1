"""Queued-jobs limits of a tenant: at submission, at a retry, at a change of lane, and for the rows of batches."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from chalicelib.domain.errors import QueueFull, SlotsFull
from chalicelib.domain.jobs.edits import JobEdit
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.limits.tenant_limits import TenantLimits
from chalicelib.services.jobs.cancel_job import cancel_job
from chalicelib.services.jobs.edit_job import edit_job
from chalicelib.services.jobs.retry_job import retry_job
from tests.kit.failing_store import refusing
from tests.kit.world import World


def limited(**queued: int) -> World:
    world = World()
    limits = TenantLimits(tenant="acme", version=1, queued=queued)
    world.container.tenant_limits.replace(replace(limits, version=0), limits)
    return world


def places(world: World) -> dict[str, int]:
    """The jobs that are counted, by lane or `total`."""
    counted = Counter[str]()
    for key, count in world.container.jobs.slots.items():
        counted[key.removeprefix("q:").partition("#")[0]] += count
    return dict(+counted)


def test_job_above_the_limit_of_its_lane_is_refused_with_the_numbers() -> None:
    world = limited(low=2)
    for _ in range(2):
        world.submit(priority="low")

    with pytest.raises(QueueFull, match="may have 2 unfinished jobs in the low lane, and has 2") as refused:
        world.submit(priority="low")

    assert refused.value.facts == {"lane": "low", "limit": 2, "open": 2}
    assert refused.value.retry_after == 30
    world.submit(priority="normal")  # has no limit
    assert places(world) == {"low": 2}


def test_total_counts_the_jobs_of_all_lanes() -> None:
    world = limited(total=2, low=9)
    world.submit(priority="low")
    world.submit(priority="urgent")

    with pytest.raises(QueueFull) as refused:
        world.submit(priority="normal")

    assert refused.value.facts == {"lane": None, "limit": 2, "open": 2}
    assert places(world) == {"total": 2, "low": 1}


def test_ended_job_makes_room() -> None:
    """However it ends."""
    world = limited(normal=2)
    completed, cancelled = world.submit(), world.submit(run_at=world.clock.now() + 10**6)
    world.deliver("normal")
    cancel_job(world.container, world.job(cancelled))

    assert world.job(completed).status is Status.COMPLETED
    assert places(world) == {}
    world.submit()
    world.submit()
    assert places(world) == {"normal": 2}


def test_job_keeps_its_place_while_it_waits_and_runs() -> None:
    world = limited(normal=1)
    job = world.submit()
    assert world.job(job).places == ("q:normal#acme#0",)
    seen: list[dict[str, int]] = []
    real = world.container.jobs.replace

    def noting(before: Job, after: Job, limits: Any = None) -> None:
        real(before, after, limits)
        seen.append(places(world))

    vars(world.container.jobs)["replace"] = noting
    world.deliver("normal")

    assert seen[0] == {"normal": 1}  # claimed
    assert seen[-1] == {}


def test_retry_of_an_ended_job_needs_a_place() -> None:
    world = limited(normal=1)
    first = world.submit()
    cancel_job(world.container, world.job(first))
    world.submit()

    with pytest.raises(QueueFull):
        retry_job(world.container, world.job(first))

    assert world.job(first).status is Status.CANCELLED
    assert places(world) == {"normal": 1}


def test_retry_takes_a_place_that_is_free() -> None:
    world = limited(normal=1)
    first = world.submit()
    cancel_job(world.container, world.job(first))

    again = retry_job(world.container, world.job(first))

    assert (again.status, again.places) == (Status.QUEUED, ("q:normal#acme#0",))
    assert places(world) == {"normal": 1}


def test_change_of_lane_moves_the_place_if_there_is_one() -> None:
    world = limited(low=1, high=1, total=9)
    job, other = world.submit(priority="low"), world.submit(priority="high")

    with pytest.raises(QueueFull):
        edit_job(world.container, world.job(job), JobEdit(lane="high"))
    assert world.job(job).lane == "low"
    cancel_job(world.container, world.job(other))
    moved = edit_job(world.container, world.job(job), JobEdit(lane="high"))

    assert moved.lane == "high"
    assert places(world) == {"high": 1, "total": 1}


def test_tenant_without_queued_limits_makes_no_request() -> None:
    world = World()
    with refusing(world.container.jobs, "slots_taken", 99) as asked:
        job = world.submit()

    assert (world.job(job).places, asked) == ((), [0])


def test_place_that_others_took_meanwhile_is_looked_for_again() -> None:
    world = limited(normal=40)  # in two shards
    real, tries = world.container.jobs.create, [0]

    def full(*args: Any, **named: Any) -> None:
        tries[0] += 1
        if tries[0] < 3:
            raise SlotsFull("q:normal#acme")
        real(*args, **named)

    vars(world.container.jobs)["create"] = full
    job = world.submit()

    assert world.job(job).status is Status.QUEUED
    assert places(world) == {"normal": 1}
