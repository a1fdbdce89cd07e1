"""Let jobs go on once their parents have ended, each exactly once, whoever dies in between [22].

The child's rows are put before its head, its edges after it, and then the parents are looked at: a parent that ends later finds the edge,
one that ended before is found by the look. Who is left to be waited for is a set, so crossing a parent off twice does no harm; and the head
is released only from where it waits. What all of them miss is the sweep's, which decides afresh on the parents' heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from chalicelib.domain import transitions
from chalicelib.domain.body import Body
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.job import Job
from chalicelib.domain.parents import RUN_ANYWAY, Edge, Family, first_failed, has_ended, has_failed, status_of
from chalicelib.domain.transitions import KEEP_COMPLETED_DAYS
from chalicelib.domain.units import DAY_MS
from chalicelib.domain.wakeup import WakeUp
from chalicelib.ports import Clock, Dependencies, Jobs, Queues, Together
from chalicelib.usecases.advance import advance
from chalicelib.usecases.engine import Log


class Doorway(Protocol):
    """What letting jobs go needs from outside; whoever does it has more."""

    @property
    def clock(self) -> Clock: ...
    @property
    def log(self) -> Log: ...
    @property
    def jobs(self) -> Jobs: ...
    @property
    def dependencies(self) -> Dependencies: ...
    @property
    def queues(self) -> Queues: ...


@dataclass(frozen=True, kw_only=True)
class Doorkeeper:
    """A doorway through which many may go at once."""

    clock: Clock
    log: Log
    jobs: Jobs
    dependencies: Dependencies
    queues: Queues
    parallel_map: Together


def note_parents(door: Doorway, child: Job, body: Body) -> None:
    """Before the head of `child` is made: whom it waits for."""
    door.dependencies.put(child.id, body.depends_on, run_anyway=body.on_parent_failure == RUN_ANYWAY, ttl=_kept_until(child))


def look_at_parents(door: Doorway, child: Job) -> Job:
    """The head of a job that waits for its parents, after a look at what has become of them: as its creator does once the head is made, and
    the sweep from time to time.

    Raises:
        Unavailable: a store did not answer; repeat it.
    """
    if not transitions.waits_for_parents(child):
        return child
    family = door.dependencies.get(child.id)
    if family is None:
        door.log("nothing is kept of a job's parents", job_id=child.id, tenant=child.tenant)
        return child
    until = _kept_until(child)
    linked = family.linked_until >= until
    if not linked:
        door.dependencies.link(child.id, family.parents, run_anyway=family.run_anyway, ttl=until)
    parents = _heads(door, family)
    failed = None if family.run_anyway else first_failed(family.parents.values(), parents)
    if failed is not None:
        return _cancel(door, child, failed, parents.get(failed))
    left: int | None = len(family.open)
    ended = [parent for parent in family.open if has_ended(parents.get(parent))]
    if ended or not linked:
        left = door.dependencies.mark_parents_ended(child.id, ended, linked_until=None if linked else until)
    return _release(door, child) if left == 0 else child


def let_go(door: Doorway, parent: Job, edge: Edge, child: Job) -> Job:
    """The head of a child of `parent`, which has ended.

    Raises:
        Unavailable: a store did not answer; repeat it.
    """
    if not transitions.waits_for_parents(child):
        return child
    if has_failed(parent) and not edge.run_anyway:
        return _cancel(door, child, parent.id, parent)
    return _release(door, child) if door.dependencies.mark_parents_ended(child.id, [parent.id]) == 0 else child


def _heads(door: Doorway, family: Family) -> Mapping[str, Job]:
    """The parents that are there, read consistently: what ended before its edge was put is seen."""
    return {job.id: job for job in door.jobs.get_many(list(family.parents.values()), consistent=True) if not job.is_deleted}


def _cancel(door: Doorway, child: Job, parent: str, head: Job | None) -> Job:
    status = status_of(head)
    cancelled = advance(door.jobs, child, lambda seen: transitions.dependency_failed(seen, parent, status, door.clock.now()))
    return cancelled or door.jobs.get(child.id) or child


def _release(door: Doorway, child: Job) -> Job:
    """The wake-up follows the write's answer [9]; one that is lost is the sweep's."""
    released = advance(door.jobs, child, lambda seen: transitions.release(seen, door.clock.now()))
    if released is None:
        return door.jobs.get(child.id) or child
    try:
        delay = transitions.wake_delay(released, door.clock.now())
        if delay is not None:
            door.queues.send(released.lane, WakeUp(released.id, released.generation), released.tenant, delay)
    except Unavailable as exc:
        door.log("a wake-up was not sent", job_id=released.id, tenant=released.tenant, error=exc)
    return released


def _kept_until(child: Job) -> int:
    """As long as the body, in seconds."""
    return (child.expires_at + KEEP_COMPLETED_DAYS * DAY_MS) // 1000
