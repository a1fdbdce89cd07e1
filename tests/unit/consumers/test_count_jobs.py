"""Counting job changes: failing records, conflicts, throttling and repeated records."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chalicelib.consumers.count_jobs import count_job_changes
from chalicelib.domain.batches.counters import counter_key
from chalicelib.domain.errors import StaleVersion, Throttled
from chalicelib.domain.ids import job_id_of_row
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.metrics.counters import CountMark
from chalicelib.ports import MarkUpdate
from chalicelib.services.metrics import count_jobs as counting
from tests.kit.batch_records import BATCH
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


def test_a_counter_conflict_is_retried_and_dead_lettered_in_the_end() -> None:
    world = World()

    with refusing(world.container.counters, "increment", 1, error=Conflict):
        count_job_changes(world.container, changes(rows(3)))
    assert completed(world) == 3
    with refusing(world.container.counters, "increment", 10**6, error=Conflict):
        count_job_changes(world.container, changes(rows(1, version=5)))

    assert world.container.queues.dead_lettered["stream"] == [
        (job_id_of_row(BATCH, 0), "not counted: every try lost to a concurrent counter")
    ]


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
