"""Chunks of a job's text, in the table `job_data`: the items `c#<attempt>#<end>` of the job.

The key has the offset where a chunk *ends*. So reading from an offset is one query for the keys
beyond it, and the first hit is the chunk that covers the offset. Text and progress are gzipped
together: four seconds of a stream are 1.7 KB of JSON and 0.9 KB packed, which saves one write unit.
"""

from __future__ import annotations

from pynamodb.attributes import BinaryAttribute, UnicodeAttribute

from chalicelib.adapters.compression import pack_json, unpack_json
from chalicelib.adapters.decoding import checked, decode_all
from chalicelib.adapters.dynamodb import client as dynamodb
from chalicelib.adapters.dynamodb.client import ConditionFailed, IntAttribute, Item, bound, decoded
from chalicelib.domain.errors import ChunkConflict
from chalicelib.domain.execution.transcript import Chunk
from chalicelib.domain.streaming.subscriptions import LAST_OFFSET

LAST_END = LAST_OFFSET + 1  # ten digits


class ChunkItem(Item):
    id = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)
    start = IntAttribute(attr_name="o")
    at = IntAttribute()
    data = BinaryAttribute(legacy_encoding=False)  # gzipped JSON: [text, progress, events]
    sequence = IntAttribute(null=True, attr_name="seq")
    sequence_offset = IntAttribute(null=True, attr_name="seq_o")
    ttl = IntAttribute(null=True)


class DynamoChunks:
    """Units: 1 for each KB appended, after compression; 1 for each 4 KB read."""

    def __init__(self, stage: str) -> None:
        self._items = bound(ChunkItem, stage, "job_data")

    def append(self, chunk: Chunk) -> None:
        item = self._item_of(chunk)
        try:
            dynamodb.put(item, self._items.id.does_not_exist())
        except ConditionFailed as failed:
            stored = failed.item and _chunk_of(self._items.from_raw_data(failed.item))
            if stored != _chunk_of(item):
                raise ChunkConflict from failed

    def put_progress(self, chunk: Chunk) -> None:
        dynamodb.put(self._item_of(chunk))

    def read(self, job_id: str, attempt: int, offset: int = 0) -> list[Chunk]:
        """Read all or nothing: a text with a hole would be taken for the whole."""
        beyond = self._items.sk.between(_key(attempt, min(offset, LAST_OFFSET) + 1), _key(attempt, LAST_END))
        return decode_all(self._items.query(job_id, beyond, consistent_read=True), _chunk_of)

    def last(self, job_id: str, attempt: int) -> Chunk | None:
        any_end = self._items.sk.between(_key(attempt, 0), _key(attempt, LAST_END))
        newest = self._items.query(job_id, any_end, consistent_read=True, scan_index_forward=False, limit=1)
        return next((_chunk_of(item) for item in newest), None)

    def _item_of(self, chunk: Chunk) -> ChunkItem:
        return self._items(
            chunk.job_id,
            _key(chunk.attempt, chunk.end),
            start=chunk.start,
            at=chunk.at,
            data=pack_json([chunk.text, chunk.progress, chunk.events]),
            sequence=chunk.sequence,
            sequence_offset=chunk.sequence_offset,
            ttl=chunk.ttl,
        )


@decoded
def _chunk_of(item: ChunkItem) -> Chunk:
    text, progress, events = unpack_json(item.data)
    return checked(
        Chunk(
            job_id=item.id,
            attempt=int(item.sk.split("#")[1]),
            start=item.start,
            text=text,
            at=item.at,
            progress=progress,
            events=tuple(events),
            sequence=item.sequence,
            sequence_offset=item.sequence_offset,
            ttl=item.ttl,
        )
    )


def _key(attempt: int, end: int) -> str:
    return f"c#{attempt:04}#{end:010}"
