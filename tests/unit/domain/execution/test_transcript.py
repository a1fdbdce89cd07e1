"""The text of an attempt: appended once, and readable from any offset, in memory or from chunks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.errors import ChunkConflict
from chalicelib.domain.execution.transcript import Chunk, Transcript, join_chunks

WORDS = st.lists(st.text("aé😀\n", max_size=6), max_size=20)


def _chunk(start: int, text: str) -> Chunk:
    return Chunk(job_id="job_01", attempt=1, start=start, text=text, at=0)


def _transcript(parts: list[str], read_at: int = -1) -> Transcript:
    transcript = Transcript(1)
    for index, part in enumerate(parts):
        transcript.append(part)
        if index == read_at:
            assert transcript.text  # reading the whole text joins the parts
    return transcript


@given(parts=WORDS, offset=st.integers(-3, 130))
def test_read_from_returns_the_text_after_any_offset(parts: list[str], offset: int) -> None:
    """Offsets count code points."""
    text, transcript = "".join(parts), _transcript(parts)

    assert len(transcript) == len(text)
    assert transcript.read_from(offset) == text[max(0, offset) :]
    assert transcript.text == text
    assert transcript.read_from(offset) == text[max(0, offset) :]


@given(parts=WORDS.filter(any), data=st.data())
def test_interleaved_reads_return_each_character_once(parts: list[str], data: st.DataObject) -> None:
    transcript, received = Transcript(1), ""
    for part in parts:
        transcript.append(part)
        if data.draw(st.booleans()):
            received += transcript.read_from(len(received))

    assert received + transcript.read_from(len(received)) == "".join(parts)


def test_reading_the_whole_text_does_not_change_offsets() -> None:
    assert _transcript(["ab", "cd", "ef"], read_at=1).read_from(3) == "def"
    assert _transcript([]).text == ""


CHUNKS = [_chunk(0, "Hello"), _chunk(5, ", "), _chunk(7, "world")]


@pytest.mark.parametrize(
    ("chunks", "offset", "length", "text"),
    [
        (CHUNKS, 0, None, "Hello, world"),
        (CHUNKS, 3, None, "lo, world"),
        (CHUNKS, 5, None, ", world"),
        (CHUNKS[1:], 6, None, " world"),  # a query returns only chunks that end after the offset
        (CHUNKS, 12, None, ""),
        (CHUNKS, 99, None, ""),
        (CHUNKS, 0, 7, "Hello, "),  # a stalled worker wrote beyond the length
        (CHUNKS, 5, 7, ", "),
        (CHUNKS, 9, 7, ""),
        ([], 0, None, ""),
        ([_chunk(0, "Hello"), _chunk(3, "lo, w"), _chunk(2, "llo, world")], 0, None, "Hello, world"),  # two workers cut differently
        ([_chunk(0, "Hello"), _chunk(1, "el")], 0, None, "Hello"),
    ],
)
def test_join_chunks_skips_overlaps_and_stops_at_the_length(chunks: list[Chunk], offset: int, length: int | None, text: str) -> None:
    assert join_chunks(chunks, offset, length) == text


@pytest.mark.parametrize("chunks", [[CHUNKS[0], CHUNKS[2]], [CHUNKS[1]]])
def test_missing_chunk_raises_chunk_conflict(chunks: list[Chunk]) -> None:
    with pytest.raises(ChunkConflict):
        join_chunks(chunks, 0)


@given(text=st.text("ab😀", max_size=40), data=st.data())
def test_join_chunks_restores_the_text_for_any_cuts_and_overlaps(text: str, data: st.DataObject) -> None:
    """Two workers may cut the same text differently."""
    ends = sorted(data.draw(st.sets(st.integers(1, len(text)))) | {len(text)}) if text else []
    chunks, reached = [], 0
    for end in ends:
        start = data.draw(st.integers(0, reached))
        chunks.append(_chunk(start, text[start:end]))
        reached = end
    offset = data.draw(st.integers(0, len(text)))

    assert join_chunks(chunks, offset) == text[offset:]
    assert all(chunk.end == chunk.start + len(chunk.text) for chunk in chunks)
