"""Thousands of children of one parent go within minutes, each exactly once, and whoever lets them go may die in between [22]."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from chalicelib.consumers.release_dependents import PAGE_SIZE, TIME_BUDGET_MS, RemainingDependents, release_dependents, release_remaining
from chalicelib.domain.errors import Throttled
from chalicelib.domain.jobs import transitions
from chalicelib.domain.jobs.job import DEPENDENCIES, Job, Status
from chalicelib.domain.queues.lanes import TASKS
from chalicelib.domain.queues.wakeup import WakeUp
from tests.kit.failing_store import refusing
from tests.kit.world import World
from tests.unit.services.dependencies.test_release_dependents import Killed, child_of, ended

MANY = 3_000
TASK_MS = 90_000  # of the function's two minutes


def family(size: int, status: Status = Status.COMPLETED) -> tuple[World, Job, list[Job]]:
    """A parent that has ended, which nobody was told, and its children."""
    world = World()
    parent = world.submit()
    children = [child_of(world, parent) for _ in range(size)]
    return world, ended(world, parent, status), children


def stream(world: World, parent: Job) -> None:
    release_dependents(world.container, [(parent.id, None, parent)])


def tasks(world: World) -> list[RemainingDependents]:
    """Deliver what waits in the queue `tasks`, each message to a function of its own, until none is left. The answer names them."""
    done = []
    while received := world.container.queues.receive(TASKS):
        for message in received:
            rest = RemainingDependents.from_message(json.loads(message.body))
            assert rest is not None
            done.append(rest)
            release_remaining(world.container, rest, world.clock.now() + TASK_MS)
            world.container.queues.acknowledge(TASKS, [message.receipt])
    return done


def slow(world: World, seconds: float) -> None:
    """Each child takes so long."""
    mark_parents_ended = world.container.dependencies.mark_parents_ended

    def slowly(*args: Any, **named: Any) -> Any:
        world.clock.advance(seconds)
        return mark_parents_ended(*args, **named)

    world.container.dependencies.mark_parents_ended = slowly  # type: ignore[method-assign]


def stand(world: World, children: list[Job]) -> Counter[tuple[Status, int]]:
    return Counter((world.job(child).status, world.job(child).generation) for child in children)


def woken(world: World) -> Counter[str]:
    messages = [WakeUp.from_json(message.body) for message in world.container.queues.messages["normal"]]
    return Counter(one.job_id for one in messages if one.generation == 2)


def test_three_thousand_dependents_are_released_within_three_minutes() -> None:
    """The stream consumer releases one page; task messages release the rest."""
    world, parent, children = family(MANY)
    slow(world, 0.05)
    began = world.clock.now()

    stream(world, parent)
    told = world.clock.now()
    passed_on = tasks(world)

    assert told - began <= TIME_BUDGET_MS
    assert world.clock.now() - began < 180_000
    assert len(passed_on) == 2
    assert stand(world, children) == {(Status.QUEUED, 2): MANY}
    assert woken(world) == {child.id: 1 for child in children}


@pytest.mark.parametrize(
    "port", ["dependencies.children", "jobs.get_many", "dependencies.mark_parents_ended", "jobs.replace", "queues.send"]
)
@pytest.mark.parametrize("after", [False, True])
def test_a_crash_while_releasing_many_dependents_releases_each_once(port: str, after: bool) -> None:
    """The redelivered message continues; the sweeper may have to release the child in progress."""
    world, parent, children = family(MANY)
    stream(world, parent)
    [message] = world.container.queues.receive(TASKS)
    rest = RemainingDependents.from_message(json.loads(message.body))
    assert rest is not None
    name, method = port.split(".")
    calls, at, real = 0, 7 if method in ("children", "get_many") else 1_234, getattr(getattr(world.container, name), method)

    def dies(*args: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls != at:
            return real(*args, **named)
        if after:
            real(*args, **named)
        raise Killed

    setattr(getattr(world.container, name), method, dies)
    with pytest.raises(Killed):
        release_remaining(world.container, rest, world.clock.now() + TASK_MS)
    setattr(getattr(world.container, name), method, real)
    assert 0 < stand(world, children)[Status.QUEUED, 2] < MANY

    release_remaining(world.container, rest, world.clock.now() + TASK_MS)

    went = woken(world)
    assert max(went.values()) == 1
    assert len(went) >= MANY - 1, "but for the one at which it died"
    world.sweep(after=130)
    world.sweep(after=130)
    assert stand(world, children) == {(Status.QUEUED, 2): MANY}
    assert len(woken(world)) == MANY


def test_the_sweeper_releases_dependents_when_no_task_message_was_sent() -> None:
    world, parent, children = family(PAGE_SIZE + 50)
    with refusing(world.container.queues, "send_task"):
        stream(world, parent)

    assert stand(world, children) == {(Status.QUEUED, 2): PAGE_SIZE, (Status.WAITING, 1): 50}
    assert "remaining_dependents_not_enqueued" in [fact for fact, _ in world.log_lines]
    world.sweep(after=130)

    assert stand(world, children) == {(Status.QUEUED, 2): PAGE_SIZE + 50}


def test_a_throttled_release_task_is_redelivered_and_completes() -> None:
    world, parent, children = family(PAGE_SIZE + 50)
    stream(world, parent)
    with refusing(world.container.dependencies, "children", 10**6), pytest.raises(Throttled):
        tasks(world)

    world.clock.advance(3_600)
    tasks(world)

    assert stand(world, children) == {(Status.QUEUED, 2): PAGE_SIZE + 50}


def test_a_duplicate_release_task_sends_no_second_wake_up() -> None:
    world, parent, children = family(PAGE_SIZE * 3)
    stream(world, parent)
    [message] = world.container.queues.receive(TASKS)
    rest = RemainingDependents.from_message(json.loads(message.body))
    assert rest is not None

    for _ in range(2):
        release_remaining(world.container, rest, world.clock.now() + TASK_MS)

    assert woken(world) == {child.id: 1 for child in children}


@pytest.mark.parametrize("status", [Status.FAILED, Status.CANCELLED])
def test_many_dependents_of_a_failed_parent_are_all_cancelled(status: Status) -> None:
    world, parent, children = family(PAGE_SIZE * 2 + 1, status)

    stream(world, parent)
    tasks(world)

    assert stand(world, children) == {(Status.CANCELLED, 1): PAGE_SIZE * 2 + 1}


def test_remaining_dependents_stay_waiting_when_the_parent_is_restarted() -> None:
    """The parent's current job record is read for each page."""
    world, parent, children = family(PAGE_SIZE + 50, Status.FAILED)
    stream(world, parent)
    again = transitions.restart(parent, world.clock.now(), 10**8, 10**8)
    assert again is not None
    world.container.jobs.heads[parent.id] = again

    tasks(world)

    assert stand(world, children) == {(Status.CANCELLED, 1): PAGE_SIZE, (Status.WAITING, 1): 50}
    assert {world.job(child).reason for child in children if world.job(child).status is Status.WAITING} == {DEPENDENCIES}


def test_a_release_task_without_time_left_still_makes_progress() -> None:
    """Otherwise task messages could enqueue each other forever."""
    world, parent, children = family(250)
    slow(world, 1.0)

    rests = 0
    world.container.queues.send_task(TASKS, RemainingDependents(parent.tenant, parent.id).to_json(), parent.tenant)
    while received := world.container.queues.receive(TASKS):
        rest = RemainingDependents.from_message(json.loads(received[0].body))
        assert rest is not None
        release_remaining(world.container, rest, world.clock.now())
        world.container.queues.acknowledge(TASKS, [received[0].receipt])
        rests += 1

    assert rests == 13
    assert stand(world, children) == {(Status.QUEUED, 2): 250}


def test_parents_beyond_the_time_budget_are_passed_on_to_task_messages() -> None:
    """A parent without dependents gets no task message."""
    world, parent, children = family(60)
    slow(world, 1.0)
    second, alone = ended(world, world.submit()), ended(world, world.submit())
    child = world.submit("x", depends_on={"a": parent.id, "b": world.submit().id})
    world.container.dependencies.link(child.id, {"a": second.id}, run_anyway=False, ttl=10**9)

    release_dependents(world.container, [(job.id, None, job) for job in (parent, second, alone)])

    waiting = [RemainingDependents.from_message(json.loads(message.body)) for message in world.container.queues.messages[TASKS]]
    assert waiting == [RemainingDependents(parent.tenant, parent.id, children[19].id), RemainingDependents(second.tenant, second.id)]


@pytest.mark.parametrize(
    "asked",
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
def test_a_malformed_release_task_message_parses_to_none(asked: dict[str, Any]) -> None:
    assert RemainingDependents.from_message(asked) is None
