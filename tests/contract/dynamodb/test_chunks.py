"""Chunks: put once, read from any offset, on the twin and on moto."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chalicelib.adapters.aws import client as aws
from chalicelib.adapters.memory.all import InMemoryAdapters
from chalicelib.domain.errors import ChunkConflict
from chalicelib.domain.execution.transcript import Chunk, join_chunks
from infra.naming import table_name
from tests.contract.conftest import LoseResponse
from tests.kit.records import NOW, new_id


def chunk(job_id: str, start: int, text: str, **changes: Any) -> Chunk:
    return replace(Chunk(job_id=job_id, attempt=1, start=start, text=text, at=NOW), **changes)


def kept(stores: Any, *texts: str) -> tuple[str, list[Chunk]]:
    job_id, at, chunks = new_id(), 0, []
    for text in texts:
        chunks.append(chunk(job_id, at, text))
        stores.chunks.append(chunks[-1])
        at += len(text)
    return job_id, chunks


def test_chunk_round_trips(stores: Any) -> None:
    """Progress keeps its numbers, events keep their order, and the cursor and the TTL are kept."""
    full = chunk(
        new_id(),
        0,
        "a\x00b 👩‍👩‍👧 \u202eעברית",
        progress={"stage": "generation", "percentage": 12.5, "tokens": 3, "none": None},
        events=({"milestone": "1 finding", "at": NOW}, {"stage": "validation"}),
        sequence=0,
        sequence_offset=2,
        ttl=NOW // 1000,
    )

    stores.chunks.append(full)

    assert stores.chunks.read(full.job_id, 1) == [full]


def test_read_returns_the_chunks_that_end_after_the_offset(stores: Any) -> None:
    """The first chunk is the one that covers the offset."""
    job_id, chunks = kept(stores, "abc", "d", "efgh")

    for offset in range(9):
        found = stores.chunks.read(job_id, 1, offset)
        assert found == [each for each in chunks if each.end > offset]
        assert join_chunks(found, offset) == "abcdefgh"[offset:]


def test_chunks_of_attempts_are_kept_apart(stores: Any) -> None:
    """The key of attempt 1 must not be a prefix of the keys of attempts 10 and 11."""
    job_id = new_id()
    for attempt in (1, 10, 11):
        stores.chunks.append(chunk(job_id, 0, f"text {attempt}", attempt=attempt))

    assert [each.text for each in stores.chunks.read(job_id, 1)] == ["text 1"]
    assert stores.chunks.last(job_id, 10).text == "text 10"
    assert stores.chunks.read(job_id, 2) == []
    assert stores.chunks.last(job_id, 2) is None


def test_last_returns_the_chunk_with_the_greatest_end(stores: Any) -> None:
    """Ends sort by number, not by digits: 9 comes before 10."""
    job_id, chunks = kept(stores, "123456789", "0", "1" * 90)

    assert stores.chunks.last(job_id, 1) == chunks[-1]


def test_appending_the_same_chunk_again_is_no_conflict(stores: Any, lose_response: LoseResponse) -> None:
    """The SDK or the worker repeats a put whose response was lost; tuples equal stored lists."""
    mine = chunk(new_id(), 0, "text", progress={"done": (1, 2)}, events=({"stage": "x"},))

    with lose_response("PutItem"):
        stores.chunks.append(mine)
    stores.chunks.append(mine)

    assert len(stores.chunks.read(mine.job_id, 1)) == 1


@pytest.mark.parametrize("other", [{"text": "tExt"}, {"start": 1, "text": "ext"}, {"at": NOW + 1}])
def test_a_different_chunk_with_the_same_end_is_a_conflict(stores: Any, other: dict[str, Any]) -> None:
    """With two writers of one attempt, the first text stays."""
    first = chunk(new_id(), 0, "text")
    stores.chunks.append(first)

    with pytest.raises(ChunkConflict):
        stores.chunks.append(replace(first, **other))

    assert stores.chunks.read(first.job_id, 1) == [first]


def test_the_largest_chunk_fits(stores: Any) -> None:
    """60,000 code points of four bytes with progress and events stay below the 400 KB limit."""
    large = chunk(new_id(), 0, "👍" * 60_000, progress={"description": "x" * 2_000}, events=({"milestone": "y" * 2_000},) * 20)

    stores.chunks.append(large)

    assert stores.chunks.read(large.job_id, 1) == [large]


def test_log_longer_than_one_query_page_is_read_whole(stores: Any) -> None:
    """Ten thousand chunks exceed the 1 MB that one query returns."""
    count, text = 10_000, "Forty code points in every single chunk."
    job_id = new_id()
    put_all(stores, [chunk(job_id, number * 40, text) for number in range(count)])

    found = stores.chunks.read(job_id, 1, 20)

    assert len(found) == count
    assert join_chunks(found, 20) == (text * count)[20:]
    assert stores.chunks.last(job_id, 1) == found[-1]


def put_all(stores: Any, chunks: list[Chunk]) -> None:
    """Put chunks as `append` does, but many at a time: one by one takes moto 15 seconds."""
    if isinstance(stores, InMemoryAdapters):
        for each in chunks:
            stores.chunks.append(each)
        return
    client = aws.client("dynamodb")
    requests = [{"PutRequest": {"Item": stores.chunks._item_of(each).serialize()}} for each in chunks]
    for first in range(0, len(requests), 25):
        client.batch_write_item(RequestItems={table_name(stores.stage, "job_data"): requests[first : first + 25]})


def test_progress_chunk_is_returned_by_last_but_not_by_read(stores: Any) -> None:
    """A progress chunk is replaced by the next one and superseded by the first text."""
    job_id = new_id()
    for percentage in (10.0, 20.0):
        stores.chunks.put_progress(
            Chunk(job_id=job_id, attempt=1, start=0, text="", at=NOW, progress={"progress_percentage": percentage}, ttl=9)
        )

    noted = stores.chunks.last(job_id, 1)
    assert noted is not None
    assert (noted.progress, noted.end) == ({"progress_percentage": 20.0}, 0)
    assert stores.chunks.read(job_id, 1) == []

    text = Chunk(job_id=job_id, attempt=1, start=0, text='{"a": 1}', at=NOW)
    stores.chunks.append(text)
    assert stores.chunks.last(job_id, 1) == text
    assert stores.chunks.read(job_id, 1) == [text]
    assert stores.chunks.last(job_id, 2) is None
