"""The schedule of bulk operations: each unfinished one takes turns, whatever the others do."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from chalicelib.domain.errors import Throttled
from chalicelib.domain.jobs.bulk_operation import BulkAction, BulkOperation, BulkPage
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.services.jobs.resume_bulk_operations import ERROR_BACKOFF_MS, LOADED_AT_ONCE, READ_SIZE, resume_unfinished
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
    for lane in world.container.queues.messages:
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


def resume(world: World, milliseconds: int = WORK_MS) -> int:
    return resume_unfinished(world.container, world.clock.now() + milliseconds)


def take_time(world: World, seconds: float) -> None:
    """Let each write of an operation take so many seconds."""
    real = world.container.bulk_operations.replace

    def call(seen: Any, new: Any) -> None:
        world.clock.advance(seconds)
        real(seen, new)

    world.container.bulk_operations.replace = call


def test_a_long_operation_does_not_hold_up_a_younger_one() -> None:
    """They take turns of a page. The long one needs more pages than the run has time for."""
    world = World()
    long = put_bulk(world, 1, failed_jobs(world, 400))
    short = put_bulk(world, 2, failed_jobs(world, 30))
    take_time(world, 3.0)

    resume(world)

    assert stored(world, short).finished_at is not None
    assert stored(world, short).done == 30
    assert 0 < stored(world, long).done < 400


def draw_starts(world: World, number: int) -> None:
    """Let the runs begin at `number` positions, one after another."""
    starts = itertools.cycle(step / number for step in range(number))
    vars(world.container)["random"] = lambda: next(starts)


def loaded_at_once(world: World) -> list[int]:
    """Record how many operations each call loads."""
    sizes: list[int] = []
    real = world.container.bulk_operations.load_unfinished

    def load(keys: Any, now: int) -> list[BulkOperation]:
        found = real(keys, now)
        sizes.append(len(found))
        return found

    world.container.bulk_operations.load_unfinished = load  # type: ignore[method-assign]
    return sizes


def test_more_operations_than_one_page_of_the_index_are_loaded_few_at_a_time() -> None:
    """And all take a turn."""
    world = World()
    sizes, ids = loaded_at_once(world), failed_jobs(world, 1)
    bulks = [put_bulk(world, number, ids) for number in range(READ_SIZE + 30)]

    assert resume(world) == len(bulks)

    assert all(stored(world, bulk).finished_at is not None for bulk in bulks)
    assert max(sizes) == LOADED_AT_ONCE


def test_a_thousand_operations_of_a_tenant_do_not_hold_up_that_of_another() -> None:
    """Whether it is older than them or younger: tenants take turns."""
    world = World()
    ids = failed_jobs(world, 200)
    flood = [put_bulk(world, number, ids, tenant="flood") for number in range(1, 1_001)]
    others = [put_bulk(world, number, ids[:60], tenant=tenant) for number, tenant in ((0, "older"), (2_000, "younger"))]
    take_time(world, 0.4)

    resume(world)

    assert all(stored(world, bulk).finished_at is not None for bulk in others)
    advanced = sum(stored(world, bulk).version > 1 for bulk in flood)
    assert 0 < advanced < 100


def test_a_tenant_gets_the_time_that_no_other_needs() -> None:
    """An operation has another turn after those of its tenant, though the run itself has locked it."""
    world = World()
    bulks = [put_bulk(world, number, failed_jobs(world, 60)) for number in range(2)]

    resume(world)

    assert [stored(world, bulk).done for bulk in bulks] == [60, 60]


def test_reading_the_index_takes_only_a_part_of_the_time() -> None:
    """However many rows there are, those that were read have their turns."""
    world = World()
    bulk = put_bulk(world, 1, failed_jobs(world, 30))
    real = world.container.bulk_operations.unfinished

    def endless(_after: str | None, limit: int) -> Any:
        world.clock.advance(3)
        return real(None, limit)[0], "there is more"

    world.container.bulk_operations.unfinished = endless  # type: ignore[method-assign,assignment]
    resume(world)

    assert stored(world, bulk).finished_at is not None


@pytest.mark.parametrize("error", [Throttled, ValueError])
def test_an_operation_that_fails_stops_no_other(error: type[Exception]) -> None:
    world = World()
    bulks = [put_bulk(world, number, failed_jobs(world, 1)) for number in range(2 * LOADED_AT_ONCE)]

    with refusing(world.container.bulk_operations, "replace", error=error):
        resume(world)

    assert sum(stored(world, bulk).finished_at is not None for bulk in bulks) == len(bulks) - 1


def test_operations_that_cannot_be_loaded_wait_for_the_next_run() -> None:
    """The others have their turns."""
    world = World()
    bulks = [put_bulk(world, number, failed_jobs(world, 1)) for number in range(LOADED_AT_ONCE + 5)]

    with refusing(world.container.bulk_operations, "load_unfinished"):
        assert resume(world) == 5

    assert [fact for fact, _ in world.log_lines if fact == "bulk_operations_not_read"] == ["bulk_operations_not_read"]
    assert resume(world) == LOADED_AT_ONCE
    assert all(stored(world, bulk).finished_at is not None for bulk in bulks)


def test_failing_operations_at_the_head_of_the_index_do_not_hide_others() -> None:
    """Each is tried once and then put off, so that the next run does not begin with it."""
    world = World()
    broken = [put_bulk(world, number, [], filters={"status": "flying"}) for number in range(60)]
    healthy = put_bulk(world, 99, failed_jobs(world, 5))

    resume(world)

    assert stored(world, healthy).done == 5
    assert {stored(world, bulk).locked_until for bulk in broken} == {world.clock.now() + ERROR_BACKOFF_MS}
    assert resume(world) == 0
    world.clock.advance(ERROR_BACKOFF_MS / 1000)
    assert resume(world) == 60


def test_operations_that_a_run_does_not_reach_are_reached_by_others() -> None:
    """Each run begins at an operation that is drawn by lot."""
    world = World()
    draw_starts(world, 4)
    bulks = [put_bulk(world, number, failed_jobs(world, 60)) for number in range(6)]
    take_time(world, 10.0)

    resume(world, 25_000)
    assert sum(stored(world, bulk).version > bulk.version for bulk in bulks) == 3
    for _ in range(3):
        world.clock.advance(60)
        resume(world, 25_000)

    assert [bool(stored(world, bulk).version - bulk.version) for bulk in bulks] == [True] * 6


def test_an_operation_whose_store_does_not_answer_is_repeated_by_the_next_run() -> None:
    world = World()
    bulk = put_bulk(world, 1, failed_jobs(world, 3))

    with refusing(world.container.bulk_operations, "replace"):
        resume(world)
    assert stored(world, bulk) == bulk
    resume(world)

    assert stored(world, bulk).done == 3


def test_an_index_that_cannot_be_read_is_logged_and_raises_nothing() -> None:
    world = World()
    with refusing(world.container.bulk_operations, "unfinished", error=Throttled):
        assert resume(world) == 0

    assert [fact for fact, _ in world.log_lines if fact.startswith("bulk")] == ["bulk_operations_not_read"]


def test_two_runs_at_once_apply_each_page_once() -> None:
    """Whoever loses the swap leaves the operation to the other."""
    world = World()
    ids = failed_jobs(world, 60)
    bulk = put_bulk(world, 1, ids)
    real = world.container.bulk_operations.replace
    nested: list[int] = []

    def replace_during_another_run(seen: Any, new: Any) -> None:
        if not nested:
            nested.append(0)
            nested[0] = resume(world)
        real(seen, new)

    world.container.bulk_operations.replace = replace_during_another_run
    resume(world)

    assert nested == [1]
    assert (stored(world, bulk).done, stored(world, bulk).matched) == (60, 60)
    jobs: list[Job] = [world.container.jobs.records[job_id] for job_id in ids]
    assert {(job.status, job.run, job.generation) for job in jobs} == {(Status.QUEUED, 2, 2)}


@pytest.mark.parametrize("locked", [True, False])
def test_an_operation_that_another_caller_processes_is_left_alone(locked: bool) -> None:
    world = World()
    bulk = put_bulk(world, 1, failed_jobs(world, 3), locked_until=world.clock.now() + 1 if locked else world.clock.now())

    assert resume(world) == (0 if locked else 1)
    assert stored(world, bulk).done == (0 if locked else 3)
