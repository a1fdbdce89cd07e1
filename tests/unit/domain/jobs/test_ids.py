"""Ids of batches and of their rows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ulid import ULID

from chalicelib.bootstrap import Container
from chalicelib.domain.errors import BatchNotFound
from chalicelib.domain.ids import MAX_ROWS, batch_id, checked_batch_id, is_job_id, job_id_of_row, row_of_job_id

BATCHES = st.binary(min_size=16, max_size=16).map(lambda raw: batch_id(str(ULID.from_bytes(raw))))
ROWS = st.integers(min_value=0, max_value=MAX_ROWS - 1)


@given(BATCHES, ROWS)
def test_row_id_is_a_valid_job_id_and_encodes_the_row_number(batch: str, row: int) -> None:
    row_id = job_id_of_row(batch, row)

    assert is_job_id(row_id)
    assert row_of_job_id(row_id) == row
    ULID.from_str(row_id.removeprefix("job_"))


@given(BATCHES, ROWS, ROWS)
def test_row_ids_sort_like_row_numbers(batch: str, one: int, other: int) -> None:
    assert (job_id_of_row(batch, one) < job_id_of_row(batch, other)) == (one < other)


@given(BATCHES, BATCHES, ROWS, ROWS)
def test_row_ids_are_unique_across_batches(batch: str, other: str, one: int, two: int) -> None:
    assert (job_id_of_row(batch, one) == job_id_of_row(other, two)) == (batch == other and one == two)


def test_batch_ids_of_one_millisecond_are_distinct() -> None:
    """ULIDs of one millisecond are consecutive, so their truncated prefixes could collide."""
    ids = {Container.new_batch_id() for _ in range(10_000)}

    assert len(ids) == 10_000
    assert all(checked_batch_id(one) == one for one in ids)


@pytest.mark.parametrize("row", [-1, MAX_ROWS])
def test_row_number_out_of_range_is_rejected(row: int) -> None:
    with pytest.raises(ValueError, match="rows"):
        job_id_of_row(Container.new_batch_id(), row)


@pytest.mark.parametrize(
    "text", ["", "batch_1", "batch_0123456789ABCDEFGHJKMN0001", "job_0123456789ABCDEFGHJKMN0000", "batch_" + "U" * 22 + "0000"]
)
def test_malformed_batch_id_raises_batch_not_found(text: str) -> None:
    with pytest.raises(BatchNotFound):
        checked_batch_id(text)
