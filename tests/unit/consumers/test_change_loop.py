"""A batch of the change stream: order within a job, budgets, and what happens to what fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from chalicelib.consumers.change_loop import TIME_BUDGET_MS, Change, DeadLetterFailed, for_each_change
from chalicelib.domain.errors import Throttled
from chalicelib.domain.jobs.job import Job
from tests.kit.failing_store import refusing
from tests.kit.jobs import job
from tests.kit.world import World


def change(number: int, version: int = 1) -> Change:
    record = job(id=f"job_{number:026}", version=version)
    return record.id, None, record


def unreadable(number: int) -> Change:
    return f"job_{number:026}", None, None


def process(world: World, changes: list[Change], handle: Callable[[Job | None, Job], None] = lambda _before, _after: None) -> None:
    for_each_change(world.container, "tests", changes, handle, log_unreadable=True)


def dead_letters(world: World) -> list[tuple[str, str]]:
    return world.container.queues.dead_lettered["stream"]


def logged(world: World, fact: str) -> list[dict[str, Any]]:
    return [fields for name, fields in world.log_lines if name == fact]


def test_changes_of_a_job_are_handled_in_order_and_jobs_in_groups() -> None:
    world, seen, groups = World(), list[tuple[str, int]](), list[int]()

    def spying(call: Any, each: Any) -> list[Any]:
        arguments = list(each)
        groups.append(len(arguments))
        return [call(one) for one in reversed(arguments)]  # threads give no order

    changes = [change(1), change(2), change(1, 2), change(3), change(2, 2), change(1, 3)]
    ctx = world.container.with_changes(parallel_map=spying)
    for_each_change(ctx, "tests", changes, lambda _before, after: seen.append((after.id[-1], after.version)))

    assert groups == [3]
    assert [version for each, version in seen if each == "1"] == [1, 2, 3]
    assert [version for each, version in seen if each == "2"] == [1, 2]
    assert len(seen) == 6


def test_a_change_whose_store_stays_down_is_left_and_not_dead_lettered() -> None:
    """Its consumer has a second source; the other change is handled."""
    world, handled = World(), list[str]()

    def handle(_before: Job | None, after: Job) -> None:
        if after.id.endswith("1"):
            raise Throttled
        handled.append(after.id)

    process(world, [change(1), change(2)], handle)

    assert (len(handled), dead_letters(world)) == (1, [])
    assert logged(world, "change_deferred")[0]["job_id"] == change(1)[0]
    assert logged(world, "changes_left") == [{"consumer": "tests", "changes": 1}]


def test_a_throttled_change_is_retried_for_a_moment() -> None:
    world, tries = World(), [0]

    def handle(_before: Job | None, _after: Job) -> None:
        tries[0] += 1
        if tries[0] < 3:
            raise Throttled

    process(world, [change(1)], handle)

    assert tries == [3]
    assert world.loop.moment < 1
    assert not logged(world, "changes_left")


def test_a_change_that_always_fails_is_dead_lettered_at_once() -> None:
    world = World()

    def handle(_before: Job | None, _after: Job) -> None:
        raise ValueError

    process(world, [change(1)], handle)

    assert dead_letters(world) == [(change(1)[0], "tests: ValueError")]
    assert world.loop.moment == 0


def test_changes_of_a_batch_share_one_time_budget_and_the_rest_is_left() -> None:
    """No change is started later, so the function's timeout is not met."""
    world, started = World(), list[int]()

    def handle(_before: Job | None, _after: Job) -> None:
        started.append(world.clock.now())
        world.clock.advance(4)

    begin = world.clock.now()
    process(world, [change(number) for number in range(100)], handle)

    assert max(started) < begin + TIME_BUDGET_MS
    assert logged(world, "changes_left") == [{"consumer": "tests", "changes": 100 - len(started)}]
    assert dead_letters(world) == []


def always_failing(_before: Job | None, after: Job) -> None:
    if after.id == change(1)[0]:
        raise ValueError


def test_an_unreadable_change_is_logged_once_and_stops_no_other() -> None:
    """Whoever can read the record handles its next change; a dead letter would be of no use."""
    world, handled = World(), list[str]()
    changes = [unreadable(1), change(2)]

    process(world, changes, lambda _before, after: handled.append(after.id))
    for_each_change(world.container, "others", changes, lambda _before, after: handled.append(after.id))

    assert handled == [change(2)[0]] * 2
    assert logged(world, "change_unreadable") == [{"job_id": unreadable(1)[0]}]
    assert dead_letters(world) == []


def test_a_change_that_always_fails_is_dead_lettered_after_a_retry_of_the_queue() -> None:
    world = World()

    with refusing(world.container.queues, "send_to_dead_letter", 3):
        process(world, [change(1), change(2)], always_failing)

    assert dead_letters(world) == [(change(1)[0], "tests: ValueError")]


def test_a_change_that_cannot_be_dead_lettered_is_delivered_again() -> None:
    """The other change is handled first."""
    world, handled = World(), list[str]()
    changes = [change(1), change(2)]

    def handle(before: Job | None, after: Job) -> None:
        always_failing(before, after)
        handled.append(after.id)

    with refusing(world.container.queues, "send_to_dead_letter", 4), pytest.raises(DeadLetterFailed, match="1 changes"):
        process(world, changes, handle)
    assert (len(handled), dead_letters(world)) == (1, [])

    process(world, changes, handle)
    assert dead_letters(world) == [(change(1)[0], "tests: ValueError")]


def test_a_failed_change_for_whose_dead_letter_no_time_is_left_is_delivered_again() -> None:
    """Nothing else would find it."""
    world = World()

    def slow(_before: Job | None, _after: Job) -> None:
        world.clock.advance(TIME_BUDGET_MS / 1000)
        raise ValueError

    with pytest.raises(DeadLetterFailed):
        process(world, [change(1)], slow)
    assert dead_letters(world) == []
