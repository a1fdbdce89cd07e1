"""Jobs that depend on other jobs, and ends of parents that no consumer has processed yet."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from chalicelib.consumers.release_dependents import release_dependents
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.jobs.transitions import END_CHECK_DELAY_MS
from tests.kit.world import World


class Killed(BaseException):
    """The process is killed. No `except Exception` catches it."""


def child_of(world: World, *parents: Job, **fields: Any) -> Job:
    """Submit a job that depends on these parents."""
    return world.submit("A child.", depends_on={parent.id: parent.id for parent in parents}, **fields)


def write_end(world: World, job: Job, status: Status = Status.COMPLETED) -> Job:
    """Write the terminal record of a job, without a record of the change stream. Return it."""
    seen = world.job(job)
    due_at = world.clock.now() + END_CHECK_DELAY_MS if seen.notifies or seen.has_dependents else None
    ended = replace(seen, status=status, version=seen.version + 1, due_at=due_at, finished_at=world.clock.now(), attempt=1, length=0)
    world.container.jobs.records[job.id] = ended
    return ended


def consume_changes(world: World, *jobs: Job) -> None:
    """Run the consumer that releases dependents, with one change for each job."""
    release_dependents(world.container, [(job.id, None, world.job(job)) for job in jobs])
