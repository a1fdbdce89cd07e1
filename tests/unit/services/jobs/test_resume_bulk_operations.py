"""The schedule of bulk operations: each unfinished one takes turns, whatever the others do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chalicelib.domain.errors import Throttled
from chalicelib.domain.jobs.bulk_operation import BulkAction, BulkOperation, BulkPage
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.services.jobs.resume_bulk_operations import ERROR_BACKOFF_MS, READ_SIZE, resume_unfinished
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


def test_more_operations_than_one_page_of_the_index_all_take_a_turn() -> None:
    world = World()
    bulks = [put_bulk(world, number, failed_jobs(world, 1)) for number in range(READ_SIZE + 30)]

    assert resume(world) == len(bulks)

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


def test_an_operation_that_was_not_reached_comes_first_in_the_next_run() -> None:
    """The one that was advanced last comes last."""
    world = World()
    bulks = [put_bulk(world, number, failed_jobs(world, 60)) for number in range(6)]
    take_time(world, 10.0)

    resume(world, 25_000)
    assert [bool(stored(world, bulk).version - bulk.version) for bulk in bulks] == [True] * 3 + [False] * 3
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
