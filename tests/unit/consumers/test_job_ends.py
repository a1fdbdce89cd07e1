"""The end of a job is its own outbox: it is due until its deliveries are stored and its dependents released."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chalicelib.consumers.job_changes import process_job_changes
from chalicelib.consumers.overdue_ends import EndResult, serve_overdue_ends
from chalicelib.domain.errors import Throttled
from chalicelib.domain.jobs import transitions
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.jobs.transitions import END_CHECK_DELAY_MS
from chalicelib.services.jobs.delete_job import delete_job
from chalicelib.services.jobs.retry_job import retry_job
from tests.kit.deliveries import HOOK, deliver, only_delivery, payload
from tests.kit.failing_store import refusing
from tests.kit.world import World

MINUTE = 60_000


def cancelled(world: World, **fields: Any) -> tuple[Job, Job]:
    """Submit a job with a webhook and cancel it. Return its record before and after."""
    job = world.submit(**{"webhook_url": HOOK, **fields})
    after = transitions.cancel(job, world.clock.now())
    assert after is not None
    world.container.jobs.replace(job, after)
    return job, after


def serve_overdue(world: World, seconds: float = END_CHECK_DELAY_MS / 1000) -> dict[EndResult, int]:
    world.clock.advance(seconds)
    return serve_overdue_ends(world.container, world.clock.now() + MINUTE)


def owners(world: World) -> list[str]:
    return sorted(delivery.owner for delivery in world.container.deliveries.rows.values())


def test_an_end_with_recipients_is_due_until_its_deliveries_are_stored() -> None:
    world = World()
    before, after = cancelled(world)
    assert after.is_end_due

    process_job_changes(world.container, [(after.id, before, after)])

    assert world.job(after) == replace(after, due_at=None)
    assert only_delivery(world).owner == after.id
    assert serve_overdue(world) == {}


def test_an_end_without_recipients_and_dependents_is_not_due() -> None:
    _, after = cancelled(World(), webhook_url=None)

    assert not after.is_end_due


def test_the_sweep_notifies_of_an_end_that_the_change_stream_never_saw() -> None:
    world = World()
    _, after = cancelled(world)
    assert serve_overdue(world, seconds=0) == {}

    assert serve_overdue(world) == {EndResult.SERVED: 1}

    assert not world.job(after).is_end_due
    deliver(world)
    assert payload(world.container.webhook_client.requests[0])["type"] == "job.cancelled"


@pytest.mark.parametrize(("port", "method"), [("job_specs", "get"), ("deliveries", "create"), ("jobs", "set_end_due")])
def test_ten_seconds_of_throttling_delay_a_notification_and_do_not_lose_it(port: str, method: str) -> None:
    """Nothing becomes a dead letter, and the other changes of the batch go on."""
    world = World()
    (before, after), (other_before, other) = cancelled(world), cancelled(world)
    end, call = world.clock.now() + 10_000, getattr(getattr(world.container, port), method)

    def throttled(*args: Any) -> Any:
        about = getattr(args[0], "owner", None) or getattr(args[0], "id", args[0])
        if about == after.id and world.clock.now() < end:
            raise Throttled
        return call(*args)

    setattr(getattr(world.container, port), method, throttled)
    process_job_changes(world.container, [(after.id, before, after), (other.id, other_before, other)])
    assert not world.job(other).is_end_due
    assert world.job(after).is_end_due

    serve_overdue(world)

    assert owners(world) == sorted([after.id, other.id])
    assert not world.job(after).is_end_due
    assert not world.container.queues.dead_lettered["stream"]


def test_an_end_that_always_fails_is_postponed_and_stops_no_other() -> None:
    world = World()
    (_, broken), (_, other) = cancelled(world), cancelled(world)
    get = world.container.job_specs.get

    def get_or_fail(job_id: str) -> Any:
        if job_id == broken.id:
            raise ValueError
        return get(job_id)

    world.container.job_specs.get = get_or_fail  # type: ignore[method-assign]

    assert serve_overdue(world) == {EndResult.SERVED: 1, EndResult.FAILED: 1}
    assert serve_overdue(world) == {}
    assert owners(world) == [other.id]
    assert serve_overdue(world, seconds=600) == {EndResult.FAILED: 1}
    world.container.job_specs.get = get  # type: ignore[method-assign]
    assert serve_overdue(world, seconds=600) == {EndResult.SERVED: 1}


def test_the_sweep_ends_with_its_time_and_goes_on_with_the_next() -> None:
    world = World()
    for _ in range(100):
        cancelled(world)
    world.clock.advance(60)
    create = world.container.deliveries.create

    def slow(delivery: Any) -> Any:
        world.clock.advance(0.5)
        return create(delivery)

    world.container.deliveries.create = slow  # type: ignore[method-assign]
    done = serve_overdue_ends(world.container, world.clock.now() + 15_000)
    assert done == {EndResult.SERVED: 40}

    assert serve_overdue(world) == {EndResult.SERVED: 60}
    assert len(owners(world)) == 100


def test_more_ends_than_a_page_are_notified_of_in_one_sweep() -> None:
    world = World()
    for _ in range(1_000):
        cancelled(world)

    assert serve_overdue(world) == {EndResult.SERVED: 1_000}


def test_the_sweep_ends_when_the_store_cannot_postpone() -> None:
    world = World()
    cancelled(world)

    with refusing(world.container.deliveries, "create", 10), refusing(world.container.jobs, "set_end_due", 10):
        assert serve_overdue(world) == {EndResult.FAILED: 1}

    assert serve_overdue(world) == {EndResult.SERVED: 1}


def test_a_retry_notifies_of_the_end_before_it_starts_the_next_run() -> None:
    """After the restart the record no longer says how the run before it ended."""
    world = World()
    before, after = cancelled(world)

    again = retry_job(world.container, after)

    assert (again.status, again.run, owners(world)) == (Status.QUEUED, 2, [after.id])
    assert world.container.jobs.due(again.lane, world.clock.now() + 10**6, 10) == [again.id]
    process_job_changes(world.container, [(after.id, before, after)])  # the change stream comes later
    assert owners(world) == [after.id]
    assert world.job(again) == again


def test_a_retry_is_refused_while_its_last_end_cannot_be_notified_of() -> None:
    world = World()
    _, after = cancelled(world)

    with refusing(world.container.deliveries, "create", 1), pytest.raises(Throttled):
        retry_job(world.container, after)

    assert world.job(after) == after
    assert retry_job(world.container, after).status is Status.QUEUED


def test_a_deletion_notifies_of_the_end_before_it_removes_the_recipients() -> None:
    world = World()
    _, after = cancelled(world)

    delete_job(world.container, after)

    assert world.container.jobs.get(after.id) is None
    assert owners(world) == [after.id]


def test_both_runs_of_a_job_are_notified_of_without_the_change_stream() -> None:
    world = World()
    _, after = cancelled(world)
    again = retry_job(world.container, after)
    ended = transitions.cancel(again, world.clock.now())
    assert ended is not None
    world.container.jobs.replace(again, ended)

    serve_overdue(world)
    deliver(world)

    runs = [payload(request)["data"]["run"] for request in world.container.webhook_client.requests]  # type: ignore[index]
    assert sorted(runs) == [1, 2]


def family(world: World, **fields: Any) -> tuple[Job, Job, Job]:
    """Submit a parent and a child that runs after it, and cancel the parent. Return both, and the parent before its end."""
    parent = world.submit(webhook_url=None, **fields)
    child = world.submit("{{parents.first.output}}", depends_on={"first": parent.id}, on_parent_failure="run_anyway")
    before = world.job(parent)
    after = transitions.cancel(before, world.clock.now())
    assert after is not None
    world.container.jobs.replace(before, after)
    return before, after, child


def test_a_parent_knows_that_it_has_dependents() -> None:
    world = World()
    before, after, _ = family(world)

    assert before.has_dependents
    assert after.is_end_due


def test_the_second_dependent_of_a_parent_costs_no_write_of_it() -> None:
    world = World()
    parent = world.submit()
    for _ in range(2):
        world.submit("{{parents.first.output}}", depends_on={"first": parent.id})

    assert world.job(parent).version == parent.version + 1


def test_a_parent_that_has_ended_is_not_changed_by_a_new_dependent() -> None:
    world = World()
    _, parent = cancelled(world, webhook_url=None)

    child = world.submit("{{parents.first.output}}", depends_on={"first": parent.id}, on_parent_failure="run_anyway")

    assert world.job(parent) == parent
    assert child.status is Status.QUEUED


def test_the_change_stream_releases_dependents_and_then_the_end_is_not_due() -> None:
    world = World()
    before, after, child = family(world)

    process_job_changes(world.container, [(after.id, before, after)])

    assert world.job(child).status is Status.QUEUED
    assert world.job(after) == replace(after, due_at=None)


def test_the_sweep_releases_the_dependents_of_an_end_that_the_change_stream_never_saw() -> None:
    """Without it a child that has waited for an hour would be looked at again only after another one."""
    world = World()
    _, after, child = family(world)

    assert serve_overdue(world) == {EndResult.SERVED: 1}

    assert world.job(child).status is Status.QUEUED
    assert not world.job(after).is_end_due


def test_an_end_stays_due_while_a_dependent_cannot_be_released() -> None:
    world = World()
    before, after, child = family(world)

    with refusing(world.container.dependencies, "mark_parents_ended", 100):
        process_job_changes(world.container, [(after.id, before, after)])
        assert serve_overdue(world) == {EndResult.FAILED: 1}
    assert world.job(child).status is Status.WAITING

    assert serve_overdue(world) == {EndResult.SERVED: 1}
    assert world.job(child).status is Status.QUEUED


def test_an_end_stays_due_while_its_recipients_cannot_be_notified_although_its_dependents_are_released() -> None:
    world = World()
    parent = world.submit(webhook_url=HOOK)
    child = world.submit("{{parents.first.output}}", depends_on={"first": parent.id}, on_parent_failure="run_anyway")
    before = world.job(parent)
    after = transitions.cancel(before, world.clock.now())
    assert after is not None
    world.container.jobs.replace(before, after)

    with refusing(world.container.deliveries, "create", 100):
        process_job_changes(world.container, [(after.id, before, after)])

    assert world.job(child).status is Status.QUEUED
    assert world.job(after).is_end_due
    assert serve_overdue(world) == {EndResult.SERVED: 1}
    assert owners(world) == [after.id]
