"""The sweep of lines: a step that fails stops no other."""

from __future__ import annotations

import pytest

from chalicelib.domain.errors import Throttled
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.queues.causes import BUCKETS, MISSING_KEY, bucket_of
from chalicelib.domain.queues.lanes import SCHEDULE
from chalicelib.ports import Line
from chalicelib.services.maintenance.context import SweepResult
from chalicelib.services.maintenance.sweep_lines import sweep_lines
from tests.kit.failing_store import refusing
from tests.kit.world import World


def held_job() -> tuple[World, Job]:
    """A job that waits for an OpenAI key, and whose scheduler was never woken."""
    world = World()
    world.provider.has_key = False
    job = world.submit()
    world.deliver("normal")
    assert world.job(job).cause == MISSING_KEY
    world.container.queues.messages[SCHEDULE].clear()
    world.container.log_lines = []
    return world, world.job(job)


def is_late(world: World, job: Job) -> None:
    world.clock.advance((job.expires_at - world.clock.now()) / 1000)


def failed_steps(world: World) -> list[object]:
    return [fields.get("what") for fact, fields in world.container.log_lines or () if fact == "sweep_step_failed"]


@pytest.mark.parametrize("error", [Throttled, ValueError])
@pytest.mark.parametrize(("method", "step"), [("rows", "lines"), ("shard", "scheduler")])
def test_late_jobs_end_although_the_lines_cannot_be_read_or_a_shard_not_be_woken(error: type[Exception], method: str, step: str) -> None:
    world, job = held_job()
    is_late(world, job)

    with refusing(world.container.lines, method, 100, error):
        done = sweep_lines(world.container, world.clock.now() + 40_000)

    assert done == {SweepResult.EXPIRED: 1}
    assert world.job(job).status is Status.EXPIRED
    assert set(failed_steps(world)) == {step}


def test_lines_that_can_be_read_are_served_although_others_cannot() -> None:
    world, _ = held_job()
    real = world.container.lines.rows

    def rows(bucket: int) -> list[Line]:
        if bucket != bucket_of(MISSING_KEY):
            raise Throttled
        return real(bucket)

    world.container.lines.rows = rows  # type: ignore[method-assign]
    done = sweep_lines(world.container, world.clock.now() + 40_000)

    assert done == {SweepResult.SCHEDULER_WOKEN: 1}
    assert failed_steps(world) == ["lines"] * (BUCKETS - 1)


def test_a_shard_is_woken_although_the_late_jobs_cannot_be_read() -> None:
    world, _ = held_job()

    with refusing(world.container.jobs, "due", 1, ValueError):
        done = sweep_lines(world.container, world.clock.now() + 40_000)

    assert (done, failed_steps(world)) == ({SweepResult.SCHEDULER_WOKEN: 1}, ["in_line"])
