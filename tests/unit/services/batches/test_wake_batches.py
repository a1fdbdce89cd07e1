"""The schedule of batches: every open batch that nobody advances is woken, and none too often."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import pytest

from chalicelib.domain.batches import batch as batch_rules
from chalicelib.domain.batches.batch import MAX_WAKE_INTERVAL, NOT_STARTED, RECHECK_MS, Batch, BatchAction
from chalicelib.domain.errors import Throttled
from chalicelib.domain.ids import batch_id, time_digits
from chalicelib.domain.jobs.bulk_operation import BulkAction
from chalicelib.domain.units import DAY_MS
from chalicelib.services.batches.wake_batches import READ_SIZE, wake_stalled_batches
from tests.kit.failing_store import refusing
from tests.kit.records import batch as batch_record
from tests.kit.world import World

MINUTE_MS = 60_000
WORK_MS = 40_000


def put_batch(world: World, **changes: Any) -> Batch:
    now = world.clock.now()
    values = {"id": world.container.new_batch_id(), "created_at": now, "updated_at": now, "locked_until": 0, "actions": ()}
    made = batch_record(**(values | changes))
    world.container.batches.create(made)
    return made


def wake(world: World) -> int:
    return wake_stalled_batches(world.container, world.clock.now() + WORK_MS)


def woken(world: World) -> Counter[str]:
    return Counter(message.body for message in world.container.queues.messages["tasks"])


def test_every_open_batch_is_woken_in_one_run() -> None:
    """However many there are; one that another caller advances is not."""
    world = World()
    made = [put_batch(world) for _ in range(12 * READ_SIZE)]
    put_batch(world, locked_until=world.clock.now() + 1)

    assert wake(world) == len(made)

    assert set(woken(world).values()) == {1}


def test_every_open_batch_is_reached_by_runs_that_have_no_time_for_all() -> None:
    """Each run begins somewhere else, so the newest ones are not left out for ever."""
    world = World()
    ids = [batch_id(f"{time_digits(world.clock.now() - day * DAY_MS)}{'0' * 16}") for day in range(60)]
    for one in ids:
        put_batch(world, id=one)
    starts = itertools.cycle(step / 20 for step in range(20))
    vars(world.container)["random"] = lambda: next(starts)
    real = world.container.batches.stalled

    reached: list[set[str]] = []

    def slow(now: int, after: str | None, limit: int) -> Any:
        world.clock.advance(10)
        page, following = real(now, after, min(limit, 3))
        reached[-1] |= {batch.id for batch in page}
        return page, following

    world.container.batches.stalled = slow  # type: ignore[method-assign]
    for _ in range(20):
        reached.append(set())
        wake(world)

    assert max(map(len, reached)) == 12
    assert set().union(*reached) == set(ids)


def test_an_idle_batch_is_woken_at_growing_intervals() -> None:
    """So that a deep task queue does not fill with copies of messages that wait in it."""
    world = World()
    put_batch(world, recheck_at=world.clock.now() + 10**9)

    runs = []
    for minute in range(320):
        runs += [minute] * wake(world)
        world.clock.advance(60)

    gaps = [after - before for before, after in itertools.pairwise(runs)]
    assert runs[:2] == [0, 1]
    assert max(gaps) == MAX_WAKE_INTERVAL == 16
    assert len(runs) < 20 + 8


def test_idle_batches_are_spread_over_the_minutes() -> None:
    world = World()
    for _ in range(320):
        put_batch(world, updated_at=world.clock.now() - 30 * MINUTE_MS, recheck_at=world.clock.now() + 10**9)

    counts = []
    for _ in range(MAX_WAKE_INTERVAL):
        counts.append(wake(world))
        world.clock.advance(60)

    assert sum(counts) == 320
    assert max(counts) < 3 * 320 / MAX_WAKE_INTERVAL


@pytest.mark.parametrize("moment", ["locked_until", "next_at", "recheck_at", "not_before"])
def test_a_batch_is_woken_at_once_when_it_can_go_on_again(moment: str) -> None:
    """Whatever it waited for, and however long it was idle before."""
    world = World()
    now = world.clock.now()
    at = now + 60 * MINUTE_MS
    action = BatchAction(bulk_id="bulk_1", action=BulkAction.CANCEL, states=NOT_STARTED, not_before=at)
    changes: dict[str, Any] = {"actions": (action,)} if moment == "not_before" else {moment: at}
    made = put_batch(world, **({"recheck_at": now + 10**9} | changes))

    assert batch_rules.is_to_be_woken(made, at)
    assert batch_rules.is_to_be_woken(made, at + MINUTE_MS)


def test_a_batch_that_was_never_recounted_is_woken_for_its_first_recount() -> None:
    world = World()
    made = put_batch(world)

    assert batch_rules.is_to_be_woken(made, made.created_at + RECHECK_MS)


def test_a_batch_that_cannot_be_enqueued_does_not_stop_the_others() -> None:
    world = World()
    for _ in range(5):
        put_batch(world)

    with refusing(world.container.queues, "send_task"):
        assert wake(world) == 4
    with refusing(world.container.batches, "stalled", 2, error=Throttled):
        assert wake(world) == 0

    assert Counter(fact for fact, _ in world.log_lines)["stalled_batches_not_enqueued"] == 3
