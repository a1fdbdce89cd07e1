"""The schedule of bulk operations: it wakes those that nobody advances, whatever the others do."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import Any

import pytest

from chalicelib.domain.errors import Throttled
from chalicelib.domain.jobs.bulk_operation import LOCK_MS, BulkAction, BulkKey, BulkOperation, BulkPage
from chalicelib.domain.jobs.job import Status
from chalicelib.domain.queues.lanes import JOB_QUEUES, TASKS
from chalicelib.services.jobs.bulk_turns import AT_ONCE, request_turn
from chalicelib.services.jobs.wake_bulk_operations import LOADED_AT_ONCE, READ_SIZE, STALLED_MS, wake_stalled_bulk_operations
from tests.kit.failing_store import refusing
from tests.kit.records import bulk_operation
from tests.kit.world import World

WORK_MS = 40_000


def failed_jobs(world: World, number: int) -> list[str]:
    ids = []
    for one in range(number):
        job = world.submit(f"prompt {one}")
        world.container.jobs.records[job.id] = replace(job, status=Status.FAILED, finished_at=world.clock.now(), due_at=None)
        ids.append(job.id)
    for lane in JOB_QUEUES:
        world.container.queues.messages[lane] = []
    return ids


def put_bulk(world: World, number: int, ids: list[str], **changes: Any) -> BulkOperation:
    """Store an operation that nobody processes, the one of a lower number before."""
    at = world.clock.now() - 3_600_000 + number
    values: dict[str, Any] = {"id": f"bulk_{number:026d}", "action": BulkAction.RETRY, "lane": None, "ids": tuple(ids), "filters": {}}
    values |= {"page": BulkPage(), "locked_until": 0, "matched": 0, "problems": (), "created_at": at, "updated_at": at}
    made = bulk_operation(**(values | changes))
    world.container.bulk_operations.create(made)
    return made


def stored(world: World, bulk: BulkOperation) -> BulkOperation:
    return world.container.bulk_operations.rows[bulk.id]


def take_time(world: World, seconds: float) -> None:
    """Let each write of an operation take so many seconds."""
    real = world.container.bulk_operations.replace

    def call(seen: Any, new: Any) -> None:
        world.clock.advance(seconds)
        real(seen, new)

    world.container.bulk_operations.replace = call  # type: ignore[method-assign]


def wake(world: World, milliseconds: int = WORK_MS) -> list[str]:
    """Run the schedule. Return the operations that it has sent messages for, in their order."""
    queue = world.container.queues.messages[TASKS]
    queue.clear()
    woken = wake_stalled_bulk_operations(world.container, world.clock.now() + milliseconds)
    sent = [json.loads(message.body) for message in queue]
    assert woken == len(sent)
    for message in sent:
        assert message["version"] == world.container.bulk_operations.rows[message["bulk_id"]].version
    return [message["bulk_id"] for message in sent]


def key_of(bulk: BulkOperation) -> BulkKey:
    return BulkKey(bulk.tenant, bulk.id, bulk.created_at)


def loaded_ids(world: World) -> list[list[str]]:
    """Record which operations each call loads."""
    loads: list[list[str]] = []
    real = world.container.bulk_operations.load_unfinished

    def load(keys: Any, now: int) -> list[BulkOperation]:
        loads.append([key.id for key in keys])
        return real(keys, now)

    world.container.bulk_operations.load_unfinished = load  # type: ignore[method-assign]
    return loads


@pytest.mark.parametrize(("age", "woken"), [(STALLED_MS - 1, False), (STALLED_MS, True)])
@pytest.mark.parametrize("asked", [False, True])
def test_an_operation_is_woken_once_it_has_not_moved_for_two_minutes(age: int, woken: bool, asked: bool) -> None:
    """Whether its message was lost, or its request died before it asked for a turn."""
    world = World()
    bulk = put_bulk(world, 1, ["job_1"], updated_at=world.clock.now() - age)
    if asked:
        request_turn(world.container, bulk)

    assert wake(world) == ([bulk.id] if woken else [])
    assert [key.id for key in world.container.bulk_operations.order.values()] == ([bulk.id] if woken or asked else [])


def test_an_operation_that_is_put_off_is_not_woken_before_its_time() -> None:
    world = World()
    bulk = put_bulk(world, 1, ["job_1"], locked_until=world.clock.now() + 1)

    assert wake(world) == []
    world.clock.advance(0.001)
    assert wake(world) == [bulk.id]


def test_operations_that_wait_for_their_turn_are_neither_woken_nor_loaded() -> None:
    world = World()
    bulks = [put_bulk(world, number, ["job_1"]) for number in range(50)]
    for bulk in bulks:
        request_turn(world.container, bulk)
    loads = loaded_ids(world)

    assert wake(world) == [bulk.id for bulk in bulks[:AT_ONCE]]
    assert loads == [[bulk.id for bulk in bulks[:AT_ONCE]]]


def test_operations_of_an_earlier_version_get_into_the_order_of_their_tenant() -> None:
    """It has no turns, and none of them is lost. A message for one that has no turn would do nothing."""
    world = World()
    bulks = [put_bulk(world, number, ["job_1"]) for number in range(30)]

    assert {bulk.id for bulk in bulks[:AT_ONCE]} <= set(wake(world))
    assert wake(world) == [bulk.id for bulk in bulks[:AT_ONCE]]
    assert sorted(world.container.bulk_operations.order) == [bulk.id for bulk in bulks]


@pytest.mark.parametrize("left_by", ["an end", "a roll-back", "a postponement"])
def test_a_turn_that_its_process_did_not_give_up_goes_to_the_next(left_by: str) -> None:
    """It died after its last write, or the record is of another version of the code."""
    world = World()
    now = world.clock.now()
    bulks = [put_bulk(world, number, ["job_1"]) for number in range(4)]
    for bulk in bulks:
        request_turn(world.container, bulk)
    for bulk in bulks[:2]:
        if left_by == "a roll-back":
            world.container.bulk_operations.rows.pop(bulk.id)
        else:
            changes = {"finished_at": now} if left_by == "an end" else {"locked_until": now + LOCK_MS + 1}
            world.container.bulk_operations.rows[bulk.id] = replace(bulk, **changes)  # type: ignore[arg-type]

    assert wake(world) == [bulk.id for bulk in bulks[2:]]
    assert sorted(world.container.bulk_operations.order) == [bulk.id for bulk in bulks[2:]]


def test_more_operations_than_one_page_of_the_index_are_loaded_few_at_a_time() -> None:
    world = World()
    loads = loaded_ids(world)
    bulks = [put_bulk(world, number, ["job_1"], tenant=f"t{number}") for number in range(READ_SIZE + 30)]

    assert sorted(wake(world)) == [bulk.id for bulk in bulks]
    assert max(len(load) for load in loads) == LOADED_AT_ONCE


def test_a_thousand_operations_of_a_tenant_do_not_hold_up_that_of_another() -> None:
    """Whether it is older than them or younger: tenants take turns."""
    world = World()
    flood = [put_bulk(world, number, ["job_1"], tenant="flood") for number in range(1, 1_001)]
    others = [put_bulk(world, number, ["job_1"], tenant=tenant) for number, tenant in ((0, "older"), (2_000, "younger"))]
    real = world.container.bulk_operations.request_turn

    def slow(key: BulkKey) -> None:
        world.clock.advance(0.4)
        real(key)

    world.container.bulk_operations.request_turn = slow  # type: ignore[method-assign]
    woken = wake(world)

    assert {bulk.id for bulk in others} < set(woken)
    assert sum(bulk.id in world.container.bulk_operations.order for bulk in flood) < 150


def test_operations_that_a_run_does_not_reach_are_reached_by_others() -> None:
    """Each run begins at one that is drawn by lot."""
    world = World()
    starts = itertools.cycle(step / 4 for step in range(4))
    vars(world.container)["random"] = lambda: next(starts)
    bulks = [put_bulk(world, number, ["job_1"]) for number in range(4 * LOADED_AT_ONCE)]
    real = world.container.bulk_operations.load_unfinished

    def slow(keys: Any, now: int) -> list[BulkOperation]:
        world.clock.advance(20)
        return real(keys, now)

    world.container.bulk_operations.load_unfinished = slow  # type: ignore[method-assign]
    wake(world)
    assert len(world.container.bulk_operations.order) < len(bulks)
    for _ in range(5):
        world.clock.advance(60)
        wake(world)

    assert len(world.container.bulk_operations.order) == len(bulks)


def test_reading_the_index_takes_only_a_part_of_the_time() -> None:
    """However many rows there are, those that were read are woken."""
    world = World()
    bulk = put_bulk(world, 1, ["job_1"])
    real = world.container.bulk_operations.unfinished

    def endless(_after: str | None, limit: int) -> Any:
        world.clock.advance(3)
        return real(None, limit)[0], "there is more"

    world.container.bulk_operations.unfinished = endless  # type: ignore[method-assign,assignment]

    assert bulk.id in wake(world)


@pytest.mark.parametrize("error", [Throttled, ValueError])
def test_an_operation_that_cannot_be_woken_stops_no_other(error: type[Exception]) -> None:
    world = World()
    bulks = [put_bulk(world, number, ["job_1"], tenant=f"t{number}") for number in range(2 * LOADED_AT_ONCE)]

    with refusing(world.container.queues, "send_task", error=error):
        assert len(wake(world)) == len(bulks) - 1

    assert "bulk_operation_not_woken" in {fact for fact, _ in world.log_lines}


@pytest.mark.parametrize(("method", "woken"), [("unfinished", 0), ("turns", LOADED_AT_ONCE + 4), ("load_unfinished", 5)])
def test_what_cannot_be_read_waits_for_the_next_run(method: str, woken: int) -> None:
    """The others are woken."""
    world = World()
    bulks = [put_bulk(world, number, ["job_1"], tenant=f"t{number}") for number in range(LOADED_AT_ONCE + 5)]

    with refusing(world.container.bulk_operations, method, error=Throttled):
        assert len(wake(world)) == woken

    assert [fact for fact, _ in world.log_lines if fact == "bulk_operations_not_read"] == ["bulk_operations_not_read"]
    assert len(wake(world)) == len(bulks)


def test_a_turn_that_cannot_be_given_up_is_logged_and_stops_no_other() -> None:
    world = World()
    ended, other = put_bulk(world, 1, []), put_bulk(world, 2, [], tenant="other")
    request_turn(world.container, ended)
    world.container.bulk_operations.rows[ended.id] = replace(ended, finished_at=world.clock.now())
    put_bulk(world, 3, [])

    with refusing(world.container.bulk_operations, "give_up_turn", error=Throttled):
        assert other.id in wake(world)


def test_very_many_operations_that_are_put_off_do_not_hide_a_healthy_one() -> None:
    world = World()
    for number in range(60):
        put_bulk(world, number, [], locked_until=world.clock.now() + 600_000)
    healthy = put_bulk(world, 99, ["job_1"])

    assert wake(world) == [healthy.id]
