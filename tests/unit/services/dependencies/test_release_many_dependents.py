"""Thousands of dependents of one parent are released within minutes, each once, despite crashes.

(protocol rule 22: a dependent is released only from waiting)
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from chalicelib.consumers.release_dependents import (
    ENQUEUE_MS,
    PAGE_SIZE,
    TIME_BUDGET_MS,
    RemainingDependents,
    release_dependents,
    release_remaining,
)
from chalicelib.domain.errors import Throttled
from chalicelib.domain.jobs import transitions
from chalicelib.domain.jobs.job import DEPENDENCIES, Job, Status
from chalicelib.domain.queues.lanes import TASKS
from chalicelib.domain.queues.wakeup import WakeUp
from tests.kit.dependencies import Killed, child_of, consume_changes, write_end
from tests.kit.failing_store import refusing
from tests.kit.world import World

MANY = 3_000
TASK_MS = 90_000  # the time of a task message; the function has two minutes


def parent_with_children(size: int, status: Status = Status.COMPLETED) -> tuple[World, Job, list[Job]]:
    """A parent whose end the change stream has not reported yet, and its waiting children."""
    world = World()
    parent = world.submit()
    children = [child_of(world, parent) for _ in range(size)]
    return world, write_end(world, parent, status), children


def run_release_tasks(world: World) -> list[RemainingDependents]:
    """Run each message of the queue `tasks` in its own invocation, until none is left.

    Return what the messages asked for.
    """
    done = []
    while received := world.container.queues.receive(TASKS):
        for message in received:
            remaining = RemainingDependents.from_message(json.loads(message.body))
            assert remaining is not None
            done.append(remaining)
            release_remaining(world.container, remaining, world.clock.now() + TASK_MS)
            world.container.queues.acknowledge(TASKS, [message.receipt])
    return done


def slow_down(world: World, seconds: float) -> None:
    """Let the release of each child take this long."""
    mark_parents_ended = world.container.dependencies.mark_parents_ended

    def delayed(*args: Any, **named: Any) -> Any:
        world.clock.advance(seconds)
        return mark_parents_ended(*args, **named)

    world.container.dependencies.mark_parents_ended = delayed  # type: ignore[method-assign]


def count_states(world: World, children: list[Job]) -> Counter[tuple[Status, int]]:
    return Counter((world.job(child).status, world.job(child).generation) for child in children)


def wake_up_counts(world: World) -> Counter[str]:
    messages = [WakeUp.from_json(message.body) for message in world.container.queues.messages["normal"]]
    return Counter(one.job_id for one in messages if one.generation == 2)


def test_three_thousand_dependents_are_released_within_three_minutes() -> None:
    """The stream consumer releases one page; task messages release the rest."""
    world, parent, children = parent_with_children(MANY)
    slow_down(world, 0.05)
    started = world.clock.now()

    consume_changes(world, parent)
    streamed = world.clock.now()
    messages = run_release_tasks(world)

    assert streamed - started <= TIME_BUDGET_MS
    assert world.clock.now() - started < 180_000
    assert len(messages) == 2
    assert count_states(world, children) == {(Status.QUEUED, 2): MANY}
    assert wake_up_counts(world) == {child.id: 1 for child in children}


@pytest.mark.parametrize(
    "port", ["dependencies.children", "jobs.get_many", "dependencies.mark_parents_ended", "jobs.replace", "queues.send"]
)
@pytest.mark.parametrize("after", [False, True])
def test_a_crash_while_releasing_many_dependents_releases_each_once(port: str, after: bool) -> None:
    """The redelivered message continues; the sweeper may have to release the child in progress."""
    world, parent, children = parent_with_children(MANY)
    consume_changes(world, parent)
    [message] = world.container.queues.receive(TASKS)
    remaining = RemainingDependents.from_message(json.loads(message.body))
    assert remaining is not None
    name, method = port.split(".")
    calls, at, real = 0, 7 if method in ("children", "get_many") else 1_234, getattr(getattr(world.container, name), method)

    def crash(*args: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls != at:
            return real(*args, **named)
        if after:
            real(*args, **named)
        raise Killed

    setattr(getattr(world.container, name), method, crash)
    with pytest.raises(Killed):
        release_remaining(world.container, remaining, world.clock.now() + TASK_MS)
    setattr(getattr(world.container, name), method, real)
    assert 0 < count_states(world, children)[Status.QUEUED, 2] < MANY

    release_remaining(world.container, remaining, world.clock.now() + TASK_MS)

    sent = wake_up_counts(world)
    assert max(sent.values()) == 1
    assert len(sent) >= MANY - 1, "only the child in progress at the crash may lack its wake-up"
    world.sweep(after=130)
    world.sweep(after=130)
    assert count_states(world, children) == {(Status.QUEUED, 2): MANY}
    assert len(wake_up_counts(world)) == MANY


def test_the_sweeper_releases_dependents_when_no_task_message_was_sent() -> None:
    world, parent, children = parent_with_children(PAGE_SIZE + 50)
    with refusing(world.container.queues, "send_task"):
        consume_changes(world, parent)

    assert count_states(world, children) == {(Status.QUEUED, 2): PAGE_SIZE, (Status.WAITING, 1): 50}
    assert "release_dependents_failed" in [fact for fact, _ in world.log_lines]
    world.sweep(after=130)

    assert count_states(world, children) == {(Status.QUEUED, 2): PAGE_SIZE + 50}


def test_a_throttled_release_task_is_redelivered_and_completes() -> None:
    world, parent, children = parent_with_children(PAGE_SIZE + 50)
    consume_changes(world, parent)
    with refusing(world.container.dependencies, "children", 10**6), pytest.raises(Throttled):
        run_release_tasks(world)

    world.clock.advance(3_600)
    run_release_tasks(world)

    assert count_states(world, children) == {(Status.QUEUED, 2): PAGE_SIZE + 50}


def test_a_duplicate_release_task_sends_no_second_wake_up() -> None:
    world, parent, children = parent_with_children(PAGE_SIZE * 3)
    consume_changes(world, parent)
    [message] = world.container.queues.receive(TASKS)
    remaining = RemainingDependents.from_message(json.loads(message.body))
    assert remaining is not None

    for _ in range(2):
        release_remaining(world.container, remaining, world.clock.now() + TASK_MS)

    assert wake_up_counts(world) == {child.id: 1 for child in children}


@pytest.mark.parametrize("status", [Status.FAILED, Status.CANCELLED])
def test_many_dependents_of_a_failed_parent_are_all_cancelled(status: Status) -> None:
    world, parent, children = parent_with_children(PAGE_SIZE * 2 + 1, status)

    consume_changes(world, parent)
    run_release_tasks(world)

    assert count_states(world, children) == {(Status.CANCELLED, 1): PAGE_SIZE * 2 + 1}


def test_remaining_dependents_stay_waiting_when_the_parent_is_restarted() -> None:
    """The parent's current job record is read for each page."""
    world, parent, children = parent_with_children(PAGE_SIZE + 50, Status.FAILED)
    consume_changes(world, parent)
    again = transitions.restart(parent, world.clock.now(), 10**8, 10**8)
    assert again is not None
    world.container.jobs.records[parent.id] = again

    run_release_tasks(world)

    assert count_states(world, children) == {(Status.CANCELLED, 1): PAGE_SIZE, (Status.WAITING, 1): 50}
    assert {world.job(child).reason for child in children if world.job(child).status is Status.WAITING} == {DEPENDENCIES}


def test_a_release_task_without_time_left_still_makes_progress() -> None:
    """Otherwise task messages could enqueue each other forever."""
    world, parent, children = parent_with_children(250)
    slow_down(world, 1.0)

    runs = 0
    world.container.queues.send_task(TASKS, RemainingDependents(parent.tenant, parent.id).to_json(), parent.tenant)
    while received := world.container.queues.receive(TASKS):
        remaining = RemainingDependents.from_message(json.loads(received[0].body))
        assert remaining is not None
        release_remaining(world.container, remaining, world.clock.now())
        world.container.queues.acknowledge(TASKS, [received[0].receipt])
        runs += 1

    assert runs == 13
    assert count_states(world, children) == {(Status.QUEUED, 2): 250}


def test_parents_beyond_the_time_budget_are_passed_on_to_task_messages() -> None:
    """A parent without dependents gets no task message."""
    world, parent, children = parent_with_children(60)
    slow_down(world, 1.0)
    second, alone = write_end(world, world.submit()), write_end(world, world.submit())
    child = world.submit("x", depends_on={"a": parent.id, "b": world.submit().id})
    world.container.dependencies.link(child.id, {"a": second.id}, run_anyway=False, ttl=10**9)

    release_dependents(world.container, [(job.id, None, job) for job in (parent, second, alone)])

    waiting = [RemainingDependents.from_message(json.loads(message.body)) for message in world.container.queues.messages[TASKS]]
    last = children[TIME_BUDGET_MS // 1000 - 1]
    assert waiting == [RemainingDependents(parent.tenant, parent.id, last.id), RemainingDependents(second.tenant, second.id)]


def test_parents_that_are_not_reached_in_time_are_left_to_the_sweeper() -> None:
    world, parent, children = parent_with_children(30)
    second = world.submit()
    child = child_of(world, second)
    second, mark_parents_ended = write_end(world, second), world.container.dependencies.mark_parents_ended
    slow_down(world, (TIME_BUDGET_MS + ENQUEUE_MS) / 1000)

    release_dependents(world.container, [(job.id, None, job) for job in (parent, second)])

    assert not world.container.queues.messages[TASKS]
    assert count_states(world, [*children, child]) == {(Status.QUEUED, 2): 1, (Status.WAITING, 1): 30}
    world.container.dependencies.mark_parents_ended = mark_parents_ended  # type: ignore[method-assign]
    world.sweep(after=130)
    assert count_states(world, [*children, child]) == {(Status.QUEUED, 2): 31}


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"job_id": "job_" + "0" * 26},
        {"tenant": "acme", "job_id": "x"},
        {"tenant": "acme", "job_id": "job_" + "0" * 26, "after": ""},
        {"tenant": "acme", "job_id": "job_" + "0" * 26, "after": "~"},
        {"tenant": "acme", "job_id": ["job_" + "0" * 26]},
        {"tenant": 1, "job_id": "job_" + "0" * 26},
    ],
)
def test_a_malformed_release_task_message_parses_to_none(message: dict[str, Any]) -> None:
    assert RemainingDependents.from_message(message) is None
