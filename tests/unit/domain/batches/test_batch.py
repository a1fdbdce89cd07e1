"""The rules of a batch, without anything outside."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.batches import batch as batch_rules
from chalicelib.domain.batches.batch import ROWS_PER_OBJECT, WAVE_SIZE, Batch, BatchStatus
from chalicelib.domain.batches.counters import COUNTS, BatchCounts, count_row, counter_partition, failed_rows
from chalicelib.domain.ids import job_id_of_row
from chalicelib.domain.jobs.job import Job, Status, Usage
from chalicelib.domain.metrics.counters import CountMark
from tests.contract.given import NOW, job

BATCH = "batch_" + "0" * 21 + "10000"


def batch(**changes: Any) -> Batch:
    values: dict[str, Any] = {"id": BATCH, "tenant": "acme", "user": "ann", "key_id": "k", "role": "user", "total": 10}
    return Batch(**({**values, "created_at": NOW, "updated_at": NOW} | changes))


@given(total=st.integers(1, 2_000), size=st.one_of(st.none(), st.integers(1, 400)))
def test_hands_follow_each_other_and_stay_within_a_part_and_a_group(total: int, size: int | None) -> None:
    here, hands = batch(total=total, batch_size=size), []
    while (taken := batch_rules.start_wave(here, 0, NOW)) is not None:
        hands.append((here.released, taken.wave_end))
        here = batch_rules.finish_wave(taken, NOW)

    assert [start for start, _ in hands] == [0, *(end for _, end in hands[:-1])]
    assert here.released == total
    for start, end in hands:
        assert 0 < end - start <= WAVE_SIZE
        assert start // ROWS_PER_OBJECT == (end - 1) // ROWS_PER_OBJECT
        assert size is None or start // size == (end - 1) // size


@given(limit=st.integers(1, 20), steps=st.lists(st.integers(0, 20), max_size=60))
def test_no_more_is_released_than_may_run(limit: int, steps: list[int]) -> None:
    """However many of them end between two looks."""
    here, ended = batch(total=100, parallel_limit=limit), 0
    for more in steps:
        taken = batch_rules.start_wave(here, here.released - ended, NOW)
        here = batch_rules.finish_wave(taken, NOW) if taken is not None else here
        assert here.released - ended <= limit
        ended = min(here.released, ended + more)


def test_a_hand_is_taken_over_only_from_who_has_been_silent_for_long() -> None:
    taken = batch_rules.start_wave(batch(), 0, NOW)
    assert taken is not None

    assert batch_rules.start_wave(taken, 0, NOW) is None
    assert batch_rules.resume_wave(taken, NOW + batch_rules.LOCK_MS - 1) is None
    assert batch_rules.resume_wave(taken, NOW + batch_rules.LOCK_MS) is not None


@pytest.mark.parametrize(
    ("failed", "tolerance", "over"), [(0, 0.0, False), (1, 0.0, True), (2, 0.2, False), (3, 0.2, True), (10, None, False)]
)
def test_the_share_of_failures_is_of_all_rows(failed: int, tolerance: float | None, over: bool) -> None:
    assert batch_rules.exceeds_tolerance(batch(failure_tolerance=tolerance), BatchCounts(failed=failed)) is over


def test_a_cancel_looks_a_second_time_at_a_hand_that_is_in_play() -> None:
    quiet, playing = batch(), batch_rules.start_wave(batch(), 0, NOW)
    assert playing is not None

    once, twice = (batch_rules.cancel(one, ("bulk_1", "bulk_2"), NOW) for one in (quiet, playing))

    assert once is not None
    assert twice is not None
    assert [errand.bulk_id for errand in once.actions] == ["bulk_1"]
    assert [errand.not_before for errand in twice.actions] == [0, NOW + batch_rules.LOCK_MS + 120_000]


def test_what_is_over_is_not_cancelled() -> None:
    over = batch_rules.finish(batch(released=10, wave_end=10), BatchCounts(completed=10), NOW)

    assert over.status is BatchStatus.COMPLETED
    assert batch_rules.cancel(over, ("bulk_1", "bulk_2"), NOW) is None


def _row(version: int, status: Status, **changes: Any) -> Job:
    return job(id=job_id_of_row(BATCH, 7), batch_id=BATCH, version=version, status=status, **changes)


def test_what_is_counted_is_what_is_new() -> None:
    """Whichever images were skipped: the sum is what the last one says."""
    images = [
        _row(1, Status.QUEUED),
        _row(2, Status.PROCESSING),
        _row(3, Status.FAILED, cost=40, usage=Usage(input=3, output=1)),
        _row(4, Status.QUEUED, cost=40, run=2),
        _row(6, Status.COMPLETED, cost=100, usage=Usage(input=3, output=9), run=2),
    ]
    for seen in ([0, 1, 2, 3, 4], [2, 4], [4], [0, 2, 3, 4]):
        mark, counters = CountMark(job_id=images[0].id), {}
        for at in seen:
            adds, said = count_row(mark, images[at])
            for add in adds:
                numbers = counters.setdefault(add.key, {})
                for name, n in add.amounts.items():
                    numbers[name] = numbers.get(name, 0) + n
            mark = CountMark(job_id=mark.job_id, version=images[at].version, counted={"batch": said})
        counts = BatchCounts.of(counters[counter_partition(BATCH), COUNTS])
        assert (counts.known, counts.completed, counts.failed, counts.queued, counts.processing) == (1, 1, 0, 0, 0)
        assert (counts.cost, counts.input, counts.output) == (100, 3, 9)
        assert failed_rows({sk: numbers for (_, sk), numbers in counters.items()}) == []


def test_what_has_ended_without_a_failure_is_not_retried() -> None:
    """Its rows were counted one by one at the end, so that is known; while rows run, a failure may not have been counted yet."""
    ended = batch(released=10, finished_at=NOW, status=BatchStatus.COMPLETED)

    assert batch_rules.retry(ended, "bulk_1", BatchCounts(known=10, completed=10), NOW, cancelled=False) is None
    assert batch_rules.retry(ended, "bulk_1", BatchCounts(known=10, completed=9, failed=1), NOW, cancelled=False) is not None
    assert batch_rules.retry(batch(released=10), "bulk_1", BatchCounts(known=10, completed=4), NOW, cancelled=False) is not None


def test_only_so_many_retries_wait_at_once() -> None:
    """The record holds them, and has its bounds."""
    here: Batch | None = batch(released=10)
    for number in range(batch_rules.MAX_ACTIONS):
        assert here is not None
        here = batch_rules.retry(here, f"bulk_{number}", BatchCounts(known=10, failed=1), NOW, cancelled=False)

    assert here is not None
    assert batch_rules.retry(here, "bulk_x", BatchCounts(known=10, failed=1), NOW, cancelled=False) is None
