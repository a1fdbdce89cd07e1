"""The rules of a batch, without anything outside."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain import batch as rules
from chalicelib.domain.batch import HAND, PART, Batch, BatchStatus
from chalicelib.domain.batch_counts import COUNTS, Counts, failed_rows, partition, tally
from chalicelib.domain.ids import row_id
from chalicelib.domain.job import Job, Status, Usage
from chalicelib.domain.tally import Mark
from tests.contract.given import NOW, job

BATCH = "batch_" + "0" * 21 + "10000"


def batch(**changes: Any) -> Batch:
    values: dict[str, Any] = {"id": BATCH, "tenant": "acme", "user": "ann", "key_id": "k", "role": "user", "total": 10}
    return Batch(**({**values, "created_at": NOW, "updated_at": NOW} | changes))


@given(total=st.integers(1, 2_000), size=st.one_of(st.none(), st.integers(1, 400)))
def test_hands_follow_each_other_and_stay_within_a_part_and_a_group(total: int, size: int | None) -> None:
    here, hands = batch(total=total, batch_size=size), []
    while (taken := rules.take_hand(here, 0, NOW)) is not None:
        hands.append((here.released, taken.wave_end))
        here = rules.played(taken, NOW)

    assert [start for start, _ in hands] == [0, *(end for _, end in hands[:-1])]
    assert here.released == total
    for start, end in hands:
        assert 0 < end - start <= HAND
        assert start // PART == (end - 1) // PART
        assert size is None or start // size == (end - 1) // size


@given(limit=st.integers(1, 20), steps=st.lists(st.integers(0, 20), max_size=60))
def test_no_more_is_released_than_may_run(limit: int, steps: list[int]) -> None:
    """However many of them end between two looks."""
    here, ended = batch(total=100, parallel_limit=limit), 0
    for more in steps:
        taken = rules.take_hand(here, here.released - ended, NOW)
        here = rules.played(taken, NOW) if taken is not None else here
        assert here.released - ended <= limit
        ended = min(here.released, ended + more)


def test_a_hand_is_taken_over_only_from_who_has_been_silent_for_long() -> None:
    taken = rules.take_hand(batch(), 0, NOW)
    assert taken is not None

    assert rules.take_hand(taken, 0, NOW) is None
    assert rules.take_over(taken, NOW + rules.WORKED_MS - 1) is None
    assert rules.take_over(taken, NOW + rules.WORKED_MS) is not None


@pytest.mark.parametrize(
    ("failed", "tolerance", "over"), [(0, 0.0, False), (1, 0.0, True), (2, 0.2, False), (3, 0.2, True), (10, None, False)]
)
def test_the_share_of_failures_is_of_all_rows(failed: int, tolerance: float | None, over: bool) -> None:
    assert rules.exceeds(batch(failure_tolerance=tolerance), Counts(failed=failed)) is over


def test_a_cancel_looks_a_second_time_at_a_hand_that_is_in_play() -> None:
    quiet, playing = batch(), rules.take_hand(batch(), 0, NOW)
    assert playing is not None

    once, twice = (rules.cancel(one, ("bulk_1", "bulk_2"), NOW) for one in (quiet, playing))

    assert once is not None
    assert twice is not None
    assert [errand.bulk_id for errand in once.actions] == ["bulk_1"]
    assert [errand.not_before for errand in twice.actions] == [0, NOW + rules.WORKED_MS + 120_000]


def test_what_is_over_is_not_cancelled() -> None:
    over = rules.finish(batch(released=10, wave_end=10), Counts(completed=10), NOW)

    assert over.status is BatchStatus.COMPLETED
    assert rules.cancel(over, ("bulk_1", "bulk_2"), NOW) is None


def _row(version: int, status: Status, **changes: Any) -> Job:
    return job(id=row_id(BATCH, 7), batch_id=BATCH, version=version, status=status, **changes)


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
        mark, counters = Mark(job_id=images[0].id), {}
        for at in seen:
            adds, said = tally(mark, images[at])
            for add in adds:
                numbers = counters.setdefault(add.key, {})
                for name, n in add.amounts.items():
                    numbers[name] = numbers.get(name, 0) + n
            mark = Mark(job_id=mark.job_id, version=images[at].version, counted={"batch": said})
        counts = Counts.of(counters[partition(BATCH), COUNTS])
        assert (counts.known, counts.completed, counts.failed, counts.queued, counts.processing) == (1, 1, 0, 0, 0)
        assert (counts.cost, counts.input, counts.output) == (100, 3, 9)
        assert failed_rows({sk: numbers for (_, sk), numbers in counters.items()}) == []


def test_what_has_ended_without_a_failure_is_not_retried() -> None:
    """Its rows were counted one by one at the end, so that is known; while rows run, a failure may not have been counted yet."""
    ended = batch(released=10, finished_at=NOW, status=BatchStatus.COMPLETED)

    assert rules.retry(ended, "bulk_1", Counts(known=10, completed=10), NOW, cancelled=False) is None
    assert rules.retry(ended, "bulk_1", Counts(known=10, completed=9, failed=1), NOW, cancelled=False) is not None
    assert rules.retry(batch(released=10), "bulk_1", Counts(known=10, completed=4), NOW, cancelled=False) is not None


def test_only_so_many_retries_wait_at_once() -> None:
    """The record holds them, and has its bounds."""
    here: Batch | None = batch(released=10)
    for number in range(rules.MOST_ERRANDS):
        assert here is not None
        here = rules.retry(here, f"bulk_{number}", Counts(known=10, failed=1), NOW, cancelled=False)

    assert here is not None
    assert rules.retry(here, "bulk_x", Counts(known=10, failed=1), NOW, cancelled=False) is None
