"""Rules of a batch: waves, limits, actions, row counters and retries."""

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
from tests.kit.batch_records import BATCH, batch
from tests.kit.jobs import NOW, job


@given(total=st.integers(1, 2_000), size=st.one_of(st.none(), st.integers(1, 400)))
def test_waves_are_contiguous_and_stay_within_an_object_and_a_group(total: int, size: int | None) -> None:
    record, waves = batch(total=total, batch_size=size), []
    while (started := batch_rules.start_wave(record, 0, NOW)) is not None:
        waves.append((record.released, started.wave_end))
        record = batch_rules.finish_wave(started, NOW)

    assert [start for start, _ in waves] == [0, *(end for _, end in waves[:-1])]
    assert record.released == total
    for start, end in waves:
        assert 0 < end - start <= WAVE_SIZE
        assert start // ROWS_PER_OBJECT == (end - 1) // ROWS_PER_OBJECT
        assert size is None or start // size == (end - 1) // size


@given(limit=st.integers(1, 20), steps=st.lists(st.integers(0, 20), max_size=60))
def test_running_rows_never_exceed_the_parallel_limit(limit: int, steps: list[int]) -> None:
    """Any number of rows may end between two waves."""
    record, ended = batch(total=100, parallel_limit=limit), 0
    for more in steps:
        started = batch_rules.start_wave(record, record.released - ended, NOW)
        record = batch_rules.finish_wave(started, NOW) if started is not None else record
        assert record.released - ended <= limit
        ended = min(record.released, ended + more)


def test_wave_is_resumed_only_after_its_lock_has_expired() -> None:
    started = batch_rules.start_wave(batch(), 0, NOW)
    assert started is not None

    assert batch_rules.start_wave(started, 0, NOW) is None
    assert batch_rules.resume_wave(started, NOW + batch_rules.LOCK_MS - 1) is None
    assert batch_rules.resume_wave(started, NOW + batch_rules.LOCK_MS) is not None


@pytest.mark.parametrize(
    ("failed", "tolerance", "exceeded"), [(0, 0.0, False), (1, 0.0, True), (2, 0.2, False), (3, 0.2, True), (10, None, False)]
)
def test_failure_tolerance_is_a_share_of_all_rows(failed: int, tolerance: float | None, exceeded: bool) -> None:
    assert batch_rules.exceeds_tolerance(batch(failure_tolerance=tolerance), BatchCounts(failed=failed)) is exceeded


def test_cancel_during_a_wave_adds_a_second_delayed_cancel_action() -> None:
    """The worker that releases the wave may still create jobs after the first action."""
    idle, releasing = batch(), batch_rules.start_wave(batch(), 0, NOW)
    assert releasing is not None

    once, twice = (batch_rules.cancel(one, ("bulk_1", "bulk_2"), NOW) for one in (idle, releasing))

    assert once is not None
    assert twice is not None
    assert [action.bulk_id for action in once.actions] == ["bulk_1"]
    assert [action.not_before for action in twice.actions] == [0, NOW + batch_rules.LOCK_MS + 120_000]


def test_finished_batch_cannot_be_cancelled() -> None:
    finished = batch_rules.finish(batch(released=10, wave_end=10), BatchCounts(completed=10), NOW)

    assert finished.status is BatchStatus.COMPLETED
    assert batch_rules.cancel(finished, ("bulk_1", "bulk_2"), NOW) is None


def _row(version: int, status: Status, **changes: Any) -> Job:
    return job(id=job_id_of_row(BATCH, 7), batch_id=BATCH, version=version, status=status, **changes)


def test_row_counters_are_right_when_stream_images_are_skipped() -> None:
    """The counters equal the state in the last image."""
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
            adds, status = count_row(mark, images[at])
            for add in adds:
                numbers = counters.setdefault(add.key, {})
                for name, n in add.amounts.items():
                    numbers[name] = numbers.get(name, 0) + n
            mark = CountMark(job_id=mark.job_id, version=images[at].version, counted={"batch": status})
        counts = BatchCounts.of(counters[counter_partition(BATCH), COUNTS])
        assert (counts.known, counts.completed, counts.failed, counts.queued, counts.processing) == (1, 1, 0, 0, 0)
        assert (counts.cost, counts.input, counts.output) == (100, 3, 9)
        assert failed_rows({sk: numbers for (_, sk), numbers in counters.items()}) == []


def test_finished_batch_without_failed_rows_cannot_be_retried() -> None:
    """While rows run, a failed row may not be counted yet, so a retry is accepted."""
    ended = batch(released=10, finished_at=NOW, status=BatchStatus.COMPLETED)

    assert batch_rules.retry(ended, "bulk_1", BatchCounts(known=10, completed=10), NOW, cancelled=False) is None
    assert batch_rules.retry(ended, "bulk_1", BatchCounts(known=10, completed=9, failed=1), NOW, cancelled=False) is not None
    assert batch_rules.retry(batch(released=10), "bulk_1", BatchCounts(known=10, completed=4), NOW, cancelled=False) is not None


def test_number_of_pending_retries_is_bounded() -> None:
    """The batch record stores them, and its size is limited."""
    record: Batch | None = batch(released=10)
    for number in range(batch_rules.MAX_ACTIONS):
        assert record is not None
        record = batch_rules.retry(record, f"bulk_{number}", BatchCounts(known=10, failed=1), NOW, cancelled=False)

    assert record is not None
    assert batch_rules.retry(record, "bulk_x", BatchCounts(known=10, failed=1), NOW, cancelled=False) is None
