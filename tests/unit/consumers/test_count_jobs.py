"""Counting job changes: failing records, conflicts, throttling and repeated records."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from chalicelib.consumers.count_jobs import BROADCAST_UNTIL_MS, COUNT_UNTIL_MS, count_job_changes
from chalicelib.domain.batches.counters import counter_key
from chalicelib.domain.errors import StaleVersion, Throttled
from chalicelib.domain.ids import job_id_of_row
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.metrics.counters import CountMark
from chalicelib.ports import MarkUpdate
from chalicelib.ports.counters import WRITERS
from chalicelib.services.metrics import count_jobs as counting
from tests.kit.batch_records import BATCH, batch
from tests.kit.failing_store import refusing
from tests.kit.jobs import job
from tests.kit.world import World


class Conflict(StaleVersion):
    """Another consumer has changed the counter in the meantime."""

    def __init__(self) -> None:
        super().__init__(None)


def rows(number: int, **changes: Any) -> list[Job]:
    return [job(id=job_id_of_row(BATCH, row), batch_id=BATCH, status=Status.COMPLETED, finished_at=1, **changes) for row in range(number)]


def completed(world: World) -> int:
    return world.container.counters.counters.get(counter_key(BATCH), {}).get("completed", 0)


def changes(jobs: list[Job]) -> list[tuple[str, Job | None, Job | None]]:
    return [(one.id, None, one) for one in jobs]


def test_an_unreadable_change_is_left_out_and_others_are_counted() -> None:
    """Another version of the code wrote it: the next change makes up for it, or a recount."""
    world = World()

    count_job_changes(world.container, [("job_broken", None, None), *changes(rows(3))])

    assert completed(world) == 3
    assert not world.container.queues.dead_lettered["stream"]


def test_a_count_of_a_newer_version_stays_in_the_mark() -> None:
    """Otherwise the newer version would count the job again from nothing."""
    world, job = World(), rows(1)[0]
    mark = CountMark(job_id=job.id, version=1, counted={"of_tomorrow": {"n": 1}})
    world.container.counters.increment([MarkUpdate(CountMark(job_id=job.id), mark, 1)], [])

    count_job_changes(world.container, changes([replace(job, version=2)]))

    counted = world.container.counters.marks([job.id])[job.id].counted
    assert counted["of_tomorrow"] == {"n": 1}
    assert counted["batch"]["as"] == "completed"


def test_a_change_that_cannot_be_counted_is_dead_lettered(monkeypatch: pytest.MonkeyPatch) -> None:
    world, bad = World(), job_id_of_row(BATCH, 1)

    def broken(_mark: Any, seen: Job) -> Any:
        if seen.id == bad:
            raise RuntimeError("a bug")
        return [], None

    monkeypatch.setitem(counting.COUNTERS, "broken", broken)
    count_job_changes(world.container, changes(rows(3)))

    assert completed(world) == 2
    assert [body for body, _ in world.container.queues.dead_lettered["stream"]] == [bad]


def test_changes_are_redelivered_while_the_counters_are_throttled() -> None:
    world = World()

    with refusing(world.container.counters, "increment", 10**6), pytest.raises(Throttled):
        count_job_changes(world.container, changes(rows(3)))
    count_job_changes(world.container, changes(rows(3)))

    assert completed(world) == 3


def test_a_throttled_increment_is_retried_and_counted_once() -> None:
    world = World()

    with refusing(world.container.counters, "increment", 2, after=True):
        count_job_changes(world.container, changes(rows(3)))

    assert completed(world) == 3


def test_a_counter_conflict_is_retried_and_in_the_end_left_to_the_stream() -> None:
    """It is no fault of the record, so nothing is dead-lettered."""
    world = World()

    with refusing(world.container.counters, "increment", 1, error=Conflict):
        count_job_changes(world.container, changes(rows(3)))
    assert completed(world) == 3
    with refusing(world.container.counters, "increment", 10**6, error=Conflict), pytest.raises(Throttled):
        count_job_changes(world.container, changes(rows(4)))
    assert not world.container.queues.dead_lettered["stream"]

    count_job_changes(world.container, changes(rows(4)))
    assert completed(world) == 4


def test_after_a_conflict_a_counter_is_added_to_in_another_part() -> None:
    """The other writer is probably still there."""
    world, parts = World(random=lambda: 0.5), list[int]()
    increment = world.container.counters.increment

    def meet_twice(marks: Any, increments: Any, writer: int) -> None:
        parts.append(writer)
        if len(parts) < 3:
            raise Conflict
        increment(marks, increments, writer)

    world.container.counters.increment = meet_twice  # type: ignore[method-assign]
    count_job_changes(world.container, changes(rows(3)))

    assert parts == [0, 1 + WRITERS // 2, 1 + WRITERS // 2]
    assert completed(world) == 3


def test_the_pauses_of_two_counting_writers_differ() -> None:
    """Otherwise writers that met once would meet at every try."""
    waited = []
    for drawn in (0.0, 0.9):
        world = World(random=lambda drawn=drawn: drawn)
        before = world.clock.now()
        with refusing(world.container.counters, "increment", 3, error=Conflict):
            count_job_changes(world.container, changes(rows(1)))
        waited.append(world.clock.now() - before)

    assert waited[1] > waited[0] > 0


def test_counting_stops_in_time_and_continues_with_the_next_delivery() -> None:
    """Counted changes are not counted again."""
    world = World()
    increment = world.container.counters.increment

    def slow(*args: Any) -> None:
        world.clock.advance(9)
        increment(*args)

    world.container.counters.increment = slow  # type: ignore[method-assign]
    many = changes(rows(400))
    started = world.clock.now()
    with pytest.raises(Throttled, match="No time"):
        count_job_changes(world.container, many)
    assert world.clock.now() - started < COUNT_UNTIL_MS + 4 * 9_000
    assert 0 < completed(world) < 400

    while completed(world) < 400:
        with suppress(Throttled):
            count_job_changes(world.container, many)

    assert completed(world) == 400


def test_no_batch_is_advanced_or_broadcast_when_time_is_over() -> None:
    """The sweeper advances them; the next change broadcasts."""
    world = World()
    world.container.batches.create(batch(total=3, released=3, wave_end=3))
    increment = world.container.counters.increment

    def slow(*args: Any) -> None:
        world.clock.advance(BROADCAST_UNTIL_MS / 1000)
        increment(*args)

    world.container.counters.increment = slow  # type: ignore[method-assign]
    with refusing(world.container.batches, "get", 0) as read, refusing(world.container.subscriptions, "for_job", 0) as asked:
        count_job_changes(world.container, changes(rows(3)))

    assert (completed(world), read, asked) == (3, [0], [0])
    assert "batch_advance_not_enqueued" in [fact for fact, _ in world.log_lines]


def test_repeated_counter_conflicts_are_retried_with_a_delay() -> None:
    """Several shards count rows of a large batch on the same counter at once."""
    world = World()
    before = world.clock.now()

    with refusing(world.container.counters, "increment", 4, error=Conflict):
        count_job_changes(world.container, changes(rows(1)))

    assert completed(world) == 1
    assert not world.container.queues.dead_lettered["stream"]
    assert world.clock.now() > before


def test_changes_of_a_hundred_batches_fit_into_transactions() -> None:
    world = World()
    jobs = [
        job(id=job_id_of_row(f"batch_{number:021d}00000", 0), batch_id=f"batch_{number:021d}00000", status=Status.FAILED, finished_at=1)
        for number in range(1, 101)
    ]

    count_job_changes(world.container, changes(jobs))

    assert sum(numbers.get("failed", 0) for numbers in world.container.counters.counters.values()) == 100


def test_an_outdated_record_image_is_not_counted() -> None:
    world = World()
    count_job_changes(world.container, changes(rows(1, version=9)))

    count_job_changes(
        world.container, [(job_id_of_row(BATCH, 0), None, job(id=job_id_of_row(BATCH, 0), batch_id=BATCH, status=Status.QUEUED, version=2))]
    )

    assert completed(world) == 1


def test_jobs_without_a_batch_are_not_counted_before_their_end() -> None:
    world = World()

    count_job_changes(world.container, changes([job(), job(id="job_02", status=Status.PROCESSING)]))

    assert world.container.counters.rows == {}
