"""Each dependent is released once, by its submission, the change stream or the sweeper.

(protocol rule 22: a dependent is released only from waiting)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from chalicelib.consumers.release_dependents import release_dependents
from chalicelib.domain.errors import Throttled
from chalicelib.domain.jobs import transitions
from chalicelib.domain.jobs.dependencies import RUN_ANYWAY
from chalicelib.domain.jobs.edits import JobEdit
from chalicelib.domain.jobs.job import DEPENDENCIES, START_LATER, Job, Status
from chalicelib.domain.queues.wakeup import WakeUp
from chalicelib.services.jobs.cancel_job import cancel_job
from chalicelib.services.jobs.delete_job import delete_job
from chalicelib.services.jobs.edit_job import edit_job
from chalicelib.services.jobs.retry_job import retry_job
from tests.kit.dependencies import Killed, child_of, consume_changes, write_end
from tests.kit.failing_store import refusing
from tests.kit.hooked_port import Hooked
from tests.kit.provider import Script
from tests.kit.world import World

HOUR = 3_600.0
ENDS = [Status.INCOMPLETE, Status.FAILED, Status.CANCELLED, Status.EXPIRED]


def wake_ups(world: World, job: Job) -> list[int]:
    """Return the generations in the wake-ups that were sent for a job."""
    woken = [WakeUp.from_json(message.body) for messages in world.container.queues.messages.values() for message in messages]
    return [one.generation for one in woken if one.job_id == job.id]


def state_of(world: World, job: Job) -> tuple[Status, str | None]:
    return world.job(job).status, world.job(job).reason


# ---- release after the parents have ended


def test_a_child_waits_until_its_last_parent_has_completed() -> None:
    world = World()
    a, b = world.submit("a"), world.submit("b")
    child = child_of(world, a, b)

    assert state_of(world, child) == (Status.WAITING, DEPENDENCIES)
    write_end(world, a)
    consume_changes(world, a)
    assert state_of(world, child) == (Status.WAITING, DEPENDENCIES)
    write_end(world, b)
    consume_changes(world, b)

    assert state_of(world, child) == (Status.QUEUED, None)
    assert wake_ups(world, child) == [2]


def test_a_child_of_a_completed_parent_is_queued_at_submission() -> None:
    world = World()
    parent = write_end(world, world.submit())

    child = child_of(world, parent)

    assert (child.status, wake_ups(world, child)) == (Status.QUEUED, [2])


@pytest.mark.parametrize("status", ENDS)
def test_a_parent_that_does_not_complete_cancels_its_child(status: Status) -> None:
    """The child stays cancelled when the other parent completes later."""
    world = World()
    a, b = world.submit("a"), world.submit("b")
    child = child_of(world, a, b)

    write_end(world, a, status)
    consume_changes(world, a)

    after = world.job(child)
    assert (after.status, after.error and after.error.code) == (Status.CANCELLED, "dependency_failed")
    assert after.error is not None
    assert f"{a.id}, which is {status.value}" in after.error.message
    write_end(world, b)
    consume_changes(world, b)
    assert world.job(child) == after


@pytest.mark.parametrize("status", [Status.COMPLETED, *ENDS])
def test_a_run_anyway_child_is_released_however_its_parents_end(status: Status) -> None:
    world = World()
    a, b = world.submit("a"), world.submit("b")
    child = child_of(world, a, b, on_parent_failure=RUN_ANYWAY)

    write_end(world, a, status)
    consume_changes(world, a)
    assert state_of(world, child) == (Status.WAITING, DEPENDENCIES)
    write_end(world, b)
    consume_changes(world, b)

    assert (world.job(child).status, wake_ups(world, child)) == (Status.QUEUED, [2])


@pytest.mark.parametrize("by", ["change stream", "sweeper"])
def test_a_failure_in_a_diamond_cancels_only_the_jobs_that_depend_on_it(by: str) -> None:
    """One more job depends on the cancelled one with `run_anyway` and is released."""
    world = World()
    top = world.submit("top")
    left, right = child_of(world, top), child_of(world, top)
    bottom = child_of(world, left, right)
    tail = child_of(world, bottom, on_parent_failure=RUN_ANYWAY)

    def process_ends(*jobs: Job) -> None:
        if by == "change stream":
            consume_changes(world, *jobs)
        else:
            world.sweep(after=2 * HOUR)

    write_end(world, top)
    process_ends(top)
    write_end(world, left, Status.FAILED)
    process_ends(left)
    process_ends(bottom)

    assert [world.job(job).status for job in (right, bottom, tail)] == [Status.QUEUED, Status.CANCELLED, Status.QUEUED]
    assert wake_ups(world, bottom) == []


def test_a_released_child_runs_with_its_parents_output_in_the_prompt() -> None:
    world = World(Script(deltas=("42",)), Script(deltas=("A child's ", "answer")))
    parent = world.submit("What is six times seven?")
    child = world.submit("Explain {{parents.a.output}}.", depends_on={"a": parent.id})

    world.deliver()
    consume_changes(world, parent)
    world.deliver()

    assert world.job(child).status is Status.COMPLETED
    assert [request.prompt for request in world.provider.requests] == ["What is six times seven?", "Explain 42."]


# ---- released once, despite duplicates and crashes


def test_repeated_stream_records_release_a_child_only_once() -> None:
    """Records repeat one by one and together; one parent's end never counts for another."""
    world = World()
    a, b = world.submit("a"), world.submit("b")
    child = child_of(world, a, b)
    write_end(world, a)

    consume_changes(world, a, a)
    consume_changes(world, a)

    assert state_of(world, child) == (Status.WAITING, DEPENDENCIES)
    write_end(world, b)
    consume_changes(world, a, b, b, a)
    consume_changes(world, b)
    assert (world.job(child).generation, wake_ups(world, child)) == (2, [2])


def test_an_outdated_failure_record_of_a_restarted_parent_is_ignored() -> None:
    """The current job record decides, not the image in the stream record."""
    world = World()
    parent = world.submit()
    failed = write_end(world, parent, Status.FAILED)
    again = transitions.restart(failed, world.clock.now(), 10**8, 10**8)
    assert again is not None
    world.container.jobs.records[parent.id] = again
    child = child_of(world, parent)

    release_dependents(world.container, [(parent.id, None, failed)])

    assert state_of(world, child) == (Status.WAITING, DEPENDENCIES)
    write_end(world, parent)
    consume_changes(world, parent)
    assert world.job(child).status is Status.QUEUED


@contextmanager
def hooked(world: World, before: Callable[[str], None], after: Callable[[str], None] = lambda _: None) -> Iterator[None]:
    """Call `before` and `after` at each store call of a submission.

    Store calls that the hooks make themselves are not hooked.
    """
    real = world.container

    def unhooked(hook: Callable[[str], None]) -> Callable[[str], None]:
        def call(name: str) -> None:
            wrapped, world.container = world.container, real
            try:
                hook(name)
            finally:
                world.container = wrapped

        return call

    names = ("job_specs", "jobs", "dependencies", "queues")
    ports = {name: Hooked(name, getattr(real, name), unhooked(before), unhooked(after)) for name in names}
    world.container = real.with_changes(**ports)
    try:
        yield
    finally:
        world.container = real


def calls_of_a_submission() -> int:
    world = World()
    parents, calls = [world.submit("a"), world.submit("b")], []
    with hooked(world, calls.append):
        child_of(world, *parents)
    return len(calls)


class Calls:
    """End each parent before the store call with its number; `streamed` reports the end at once."""

    def __init__(self, world: World, numbers: dict[Job, int], *, streamed: bool) -> None:
        self._world, self._left, self._streamed, self._number = world, dict(numbers), streamed, 0

    def before(self, _: str) -> None:
        for parent in [parent for parent, number in self._left.items() if number == self._number]:
            self._end(parent, Status.COMPLETED)
        self._number += 1

    def end_the_rest(self, status: Status) -> None:
        for parent in list(self._left):
            self._end(parent, status)

    def _end(self, parent: Job, status: Status) -> None:
        del self._left[parent]
        write_end(self._world, parent, status)
        if self._streamed:
            consume_changes(self._world, parent)


CALLS = calls_of_a_submission()
ALL_NUMBERS = [(first, second) for first in range(CALLS + 1) for second in range(CALLS + 1)]


@pytest.mark.parametrize("streamed", ["at once", "later", "never"])
@pytest.mark.parametrize("run_anyway", [False, True])
def test_parents_that_end_during_submission_release_the_child_once(streamed: str, run_anyway: bool) -> None:
    """Each parent ends before any call; the stream reports the end at once, later or never."""
    for numbers in ALL_NUMBERS:
        world = World()
        parents = [world.submit("a"), world.submit("b")]
        calls = Calls(world, dict(zip(parents, numbers, strict=True)), streamed=streamed == "at once")
        with hooked(world, calls.before):
            child = child_of(world, *parents, on_parent_failure=RUN_ANYWAY if run_anyway else "cancel")
        calls.end_the_rest(Status.FAILED if run_anyway else Status.COMPLETED)
        if streamed == "later":
            consume_changes(world, *parents)
        if streamed == "never":
            world.sweep(after=130)

        assert (world.job(child).status, world.job(child).generation) == (Status.QUEUED, 2), numbers
        assert set(wake_ups(world, child)) == {2}, numbers


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", range(CALLS))
def test_a_child_is_released_once_wherever_its_submission_crashes(number: int, when: str) -> None:
    """A submission that crashed before it wrote the job record leaves no job."""
    world = World()
    a, b = world.submit("a"), world.submit("b")
    calls = 0

    def count(_: str) -> None:
        nonlocal calls
        calls += 1
        if calls == number + 1:
            raise Killed

    with hooked(world, *((count,) if when == "before" else (lambda _: None, count))), pytest.raises(Killed):
        child_of(world, a, b)
    created = [job for job in world.container.jobs.records.values() if job.reason == DEPENDENCIES]

    world.sweep(after=130)
    for parent in (a, b):
        write_end(world, parent)
        consume_changes(world, parent)

    assert [(world.job(job).status, world.job(job).generation) for job in created] == [(Status.QUEUED, 2)] * len(created)
    assert [wake_ups(world, job) for job in created] == [[2]] * len(created)
    assert len(world.container.jobs.records) == 2 + len(created)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    "port", ["dependencies.link", "jobs.get_many", "dependencies.mark_parents_ended", "dependencies.get", "queues.send"]
)
def test_a_store_failure_during_submission_only_delays_the_release(port: str, after: bool) -> None:
    """The submission is accepted, and the sweeper continues where it stopped."""
    world = World()
    parent = write_end(world, world.submit())
    name, method = port.split(".")

    with refusing(getattr(world.container, name), method, after=after):
        child = child_of(world, parent)
    world.sweep(after=130)
    world.sweep(after=130)

    assert (world.job(child).status, world.job(child).generation) == (Status.QUEUED, 2)
    assert wake_ups(world, child)


def test_a_repeated_idempotent_submission_releases_the_waiting_child() -> None:
    world = World()
    parent = world.submit()
    write_end(world, parent)
    with refusing(world.container.dependencies, "get"):
        child = world.submit("again", key="k", depends_on={"a": parent.id})
    assert child.status is Status.WAITING

    again = world.submit("again", key="k", depends_on={"a": parent.id})

    assert (again.id, world.job(child).status) == (child.id, Status.QUEUED)


# ---- release by the sweeper


def test_the_sweeper_releases_a_child_without_the_change_stream() -> None:
    world = World()
    a, b = world.submit("a"), world.submit("b")
    child = child_of(world, a, b)
    write_end(world, a)
    assert world.sweep(after=130)["checked"] == 1
    assert world.container.dependencies.records[child.id].open == {b.id}

    write_end(world, b)
    assert world.sweep(after=300)["released"] == 1

    assert (world.job(child).status, wake_ups(world, child)) == (Status.QUEUED, [2])


def test_a_deleted_parent_counts_as_a_failed_parent() -> None:
    """Its dependency edges are deleted with it, so only the sweeper can notice."""
    for run_anyway, status in ((False, Status.CANCELLED), (True, Status.QUEUED)):
        world = World()
        parent = world.submit()
        child = child_of(world, parent, on_parent_failure=RUN_ANYWAY if run_anyway else "cancel")
        write_end(world, parent)
        delete_job(world.container, world.job(parent))

        world.sweep(after=130)

        assert world.job(child).status is status
        if not run_anyway:
            error = world.job(child).error
            assert error is not None
            assert "which is deleted" in error.message


def test_the_sweeper_rechecks_unfinished_parents_at_growing_intervals() -> None:
    world = World()
    parent = world.submit()
    child = child_of(world, parent, expires_in=10 * 86_400.0)
    gaps = []
    for _ in range(10):
        world.container.jobs.records[parent.id] = replace(world.job(parent), due_at=10**15, expires_at=10**15)
        before = world.job(child).due_at or 0
        world.clock.advance((before - world.clock.now()) / 1000 + 1)
        world.sweep()
        gaps.append((world.job(child).due_at or 0) - before)

    assert gaps == sorted(gaps)
    assert 3_500_000 < gaps[-1] <= 3_700_000
    assert state_of(world, child) == (Status.WAITING, DEPENDENCIES)


def test_a_waiting_child_expires_although_its_parent_is_unfinished() -> None:
    world = World()
    parent = world.submit()
    child = child_of(world, parent, expires_in=HOUR)
    world.container.jobs.records[parent.id] = replace(world.job(parent), due_at=10**15, expires_at=10**15)

    world.sweep(after=HOUR + 1)

    assert world.job(child).status is Status.EXPIRED


def test_a_failed_dependency_check_does_not_block_other_children() -> None:
    world = World()
    parents = [world.submit("a"), world.submit("b")]
    children = [child_of(world, parent) for parent in parents]
    for parent in parents:
        write_end(world, parent)

    with refusing(world.container.dependencies, "get"):
        world.sweep(after=130)
    assert sorted(world.job(child).status for child in children) == [Status.QUEUED, Status.WAITING]
    world.sweep(after=130)

    assert [world.job(child).status for child in children] == [Status.QUEUED, Status.QUEUED]


def test_dependency_records_live_as_long_as_a_job_with_an_extended_expiry() -> None:
    """Otherwise the dependency record would be deleted before the child expires."""
    world = World()
    child = child_of(world, world.submit(), expires_in=HOUR)
    before = world.container.dependencies.records[child.id].linked_until

    edit_job(world.container, world.job(child), JobEdit(expires_at=world.clock.now() + 20 * 86_400_000))
    world.sweep(after=130)

    assert world.container.dependencies.records[child.id].linked_until == before + 20 * 86_400 - 3_600


# ---- many parents and many changes


def test_a_child_of_a_hundred_parents_waits_for_the_last_one() -> None:
    world = World()
    parents = [world.submit(str(number)) for number in range(100)]
    child = child_of(world, *parents)
    for parent in parents:
        write_end(world, parent)

    consume_changes(world, *parents[:99])
    assert state_of(world, child) == (Status.WAITING, DEPENDENCIES)
    consume_changes(world, *parents)

    assert (world.job(child).status, wake_ups(world, child)) == (Status.QUEUED, [2])


def test_a_failing_release_does_not_block_other_children() -> None:
    """A throttled query for a parent's children is retried."""
    world = World()
    a, b = world.submit("a"), world.submit("b")
    first, second, third = child_of(world, a), child_of(world, a), child_of(world, b)
    for parent in (a, b):
        write_end(world, parent)

    with refusing(world.container.dependencies, "mark_parents_ended", 1, ValueError):
        consume_changes(world, a)
    with refusing(world.container.dependencies, "children", 1, Throttled):
        consume_changes(world, b)

    assert [world.job(child).status for child in (first, second, third)] == [Status.WAITING, Status.QUEUED, Status.QUEUED]
    with refusing(world.container.dependencies, "children", 1, ValueError):
        consume_changes(world, a, b)
    consume_changes(world, a)
    assert world.job(first).status is Status.QUEUED


def test_an_ended_job_without_dependents_costs_one_query() -> None:
    world = World()
    parent = world.submit()
    change = (parent.id, parent, write_end(world, parent))

    with refusing(world.container.dependencies, "children", 0) as asked, refusing(world.container.jobs, "get", 0) as read:
        release_dependents(world.container, [change])

    assert (asked, read) == ([1], [0])


def test_changes_other_than_a_job_end_query_no_dependents() -> None:
    """Unreadable records and the deletion of an ended job are among them."""
    world = World()
    queued = world.submit()
    done = write_end(world, queued)
    deleted = transitions.mark_deleted(done, world.clock.now())

    with refusing(world.container.dependencies, "children", 10**6) as asked:
        release_dependents(world.container, [("x", None, None), (queued.id, None, queued), (done.id, done, deleted)])

    assert asked == [0]


# ---- with other features


def test_a_released_child_with_run_at_then_waits_for_its_start_time() -> None:
    world = World()
    parent = world.submit()
    at = world.clock.now() + 600_000
    child = child_of(world, parent, run_at=at)
    assert state_of(world, child) == (Status.WAITING, DEPENDENCIES)
    write_end(world, parent)

    consume_changes(world, parent)

    assert state_of(world, child) == (Status.WAITING, START_LATER)
    [message] = [one for one in world.container.queues.messages["normal"] if child.id in one.body]
    assert message.visible_at == at


def test_a_child_cancelled_while_waiting_stays_cancelled() -> None:
    world = World()
    parent = world.submit()
    child = child_of(world, parent)

    cancelled = cancel_job(world.container, child)
    write_end(world, parent)
    consume_changes(world, parent)

    assert cancelled.status is Status.CANCELLED
    assert world.job(child) == cancelled


def test_a_retried_parent_does_not_revive_its_cancelled_child() -> None:
    """A caller who wants the child retries it separately."""
    world = World()
    parent = world.submit()
    child = child_of(world, parent)
    write_end(world, parent, Status.FAILED)
    consume_changes(world, parent)

    retry_job(world.container, world.job(parent))
    write_end(world, parent)
    consume_changes(world, parent)
    assert world.job(child).status is Status.CANCELLED
    retry_job(world.container, world.job(child))
    world.deliver()

    assert world.job(child).status is Status.COMPLETED


def test_a_deleted_child_leaves_no_data_and_no_dependency_edges() -> None:
    world = World()
    parent = world.submit()
    child = child_of(world, parent)
    cancel_job(world.container, child)

    delete_job(world.container, world.job(child))
    write_end(world, parent)
    consume_changes(world, parent)

    assert world.container.job_data.rows(child.id) == []
    assert world.container.dependencies.children(parent.id) == []
