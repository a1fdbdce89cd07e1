"""Subscribers of a batch get its progress. A slow socket delays neither counters nor batch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chalicelib.consumers.count_jobs import count_job_changes
from chalicelib.domain.batches.counters import counter_key
from chalicelib.domain.ids import job_id_of_row
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.queues.lanes import TASKS
from chalicelib.services.batches.broadcast_progress import TIME_BUDGET_MS
from tests.kit.batch_records import batch
from tests.kit.failing_store import refusing
from tests.kit.jobs import job
from tests.kit.world import ALICE, World

HANG = 4.0  # seconds that a post without an answer takes
ROWS = 30


def batch_with_subscribers(world: World, connections: int, **changes: Any) -> list[tuple[str, Job | None, Job | None]]:
    """Create a batch with this many subscribers. Return the changes in which its rows end."""
    record = batch(user=ALICE.user, total=ROWS, released=ROWS, wave_end=ROWS, created_at=world.clock.now(), **changes)
    world.container.batches.create(record)
    ended = [job(id=job_id_of_row(record.id, row), batch_id=record.id, status=Status.COMPLETED, finished_at=1) for row in range(ROWS)]
    for number in range(connections):
        world.watch(replace(ended[0], id=record.id), f"c{number}")
    return [(one.id, None, one) for one in ended]


def completed_count(world: World, batch_id: str) -> int:
    return world.container.counters.counters.get(counter_key(batch_id), {}).get("completed", 0)


def test_hanging_sockets_do_not_delay_counting_or_the_batch() -> None:
    """Rows are counted and the batch task is enqueued before the first frame is sent."""
    world = World()
    changes = batch_with_subscribers(world, 10)
    started, batch_id = world.clock.now(), batch().id

    def hang(*_: Any) -> None:
        assert completed_count(world, batch_id) == ROWS
        assert len(world.container.queues.messages[TASKS]) == 1
        world.clock.advance(HANG)

    world.container.sockets.post = hang  # type: ignore[method-assign]
    count_job_changes(world.container, changes)

    assert world.clock.now() - started <= TIME_BUDGET_MS + HANG * 1000


def test_each_subscriber_gets_the_batch_progress_before_the_row_frames() -> None:
    world = World()

    count_job_changes(world.container, batch_with_subscribers(world, 2))

    for connection in ("c0", "c1"):
        frames = world.frames(connection)
        assert [frame["event"] for frame in frames] == ["batch_progress", *["batch_item"] * ROWS]
        assert frames[0]["counts"]["completed"] == ROWS
        assert [frame["row"] for frame in frames[1:]] == list(range(ROWS))


def test_a_batch_without_subscribers_costs_one_query() -> None:
    world = World()
    changes = batch_with_subscribers(world, 0)

    with refusing(world.container.subscriptions, "for_job", 0) as asked, refusing(world.container.sockets, "post", 0) as posted:
        count_job_changes(world.container, changes)

    assert (asked, posted) == ([1], [0])


def test_an_expired_connection_gets_no_batch_frames() -> None:
    world = World()
    changes = batch_with_subscribers(world, 1)
    world.clock.advance(3 * 3_600)

    count_job_changes(world.container, changes)

    assert world.frames("c0") == []


@pytest.mark.parametrize("error", [RuntimeError, KeyError])
def test_an_error_at_one_socket_is_logged_and_does_not_block_others(error: type[Exception]) -> None:
    world = World()
    changes = batch_with_subscribers(world, 2)

    with refusing(world.container.sockets, "post", 1, error):
        count_job_changes(world.container, changes)

    assert "batch_broadcast_failed" in [fact for fact, _ in world.log_lines]
    assert [bool(world.frames(one)) for one in ("c0", "c1")] == [False, True]
