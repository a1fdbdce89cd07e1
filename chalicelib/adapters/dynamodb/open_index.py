"""Index rows that name unfinished records, so that the sweeper finds them with a query, not a scan.

A store puts the row before the record that it names, and deletes it after the last write of the
record. A crash in between leaves a row too many, never one too few. The reader that finds such an
orphan deletes it, but only after `ORPHAN_GRACE_MS`: until then the record may be about to be
written.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Any

from pynamodb.attributes import UnicodeAttribute

from chalicelib.adapters.decoding import decode_readable
from chalicelib.adapters.dynamodb import client as dynamodb
from chalicelib.adapters.dynamodb.client import ConditionFailed, IntAttribute, Item, bound, decoded
from chalicelib.domain.units import Ms

ORPHAN_GRACE_MS = 600_000  # how long a row may exist before its record


class OpenItem(Item):
    """Each index sets the attributes that it needs to find the record and to judge the row's age."""

    pk = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)
    tenant = UnicodeAttribute(null=True, attr_name="t")
    made_at = IntAttribute(null=True, attr_name="at")
    run = IntAttribute(null=True)
    ttl = IntAttribute()


@decoded
def _checked(row: OpenItem) -> OpenItem:
    return row


class OpenIndex:
    """The rows of one kind of record, in one partition or in `shards` of them.

    Units: 1 to put or delete a row; 1 for each 4 KB of rows that are queried, half of that if not
    consistently.
    """

    def __init__(self, stage: str, table: str, partition: str, shards: int = 1) -> None:
        self._items = bound(OpenItem, stage, table)
        self._partition = partition
        self.shards = shards

    def row(self, sort_key: str, *, shard: int = 0, **attributes: Any) -> OpenItem:
        return self._items(self._pk(shard), sort_key, **attributes)

    def put(self, row: OpenItem) -> None:
        """Put a row. One with a `run` does not replace the row of a later run."""
        if row.run is None:
            dynamodb.put(row)
            return
        with suppress(ConditionFailed):
            dynamodb.put(row, self._items.pk.does_not_exist() | (self._items.run <= row.run))

    def delete(self, row: OpenItem) -> None:
        """Delete a row if it is there. One with a `run` does not delete the row of another run."""
        with suppress(ConditionFailed):
            dynamodb.delete(row, None if row.run is None else self._items.run == row.run)

    def delete_orphan(self, row: OpenItem, made_at: Ms, now: Ms) -> None:
        """Delete a row without a record, unless its record may still be about to be written."""
        if made_at + ORPHAN_GRACE_MS < now:
            dynamodb.delete(row)

    def query(
        self, limit: int | None, *, shard: int = 0, before: str | None = None, after: str | None = None, consistent: bool = True
    ) -> list[OpenItem]:
        """Return the first rows of a shard, or all, in the order of their sort keys, without unreadable ones.

        `before` and `after` are bounds of the sort key; both are exclusive.
        """
        rows = self._rows(limit, shard, before, after, consistent=consistent)
        return list(islice(decode_readable(rows, _checked), limit))

    def page(self, limit: int, after: str | None, *, shard: int = 0, before: str | None = None) -> tuple[list[OpenItem], str | None]:
        """Return a page of a shard, not read consistently, and the sort key to continue `after`; None: the end.

        Unreadable rows are left out, so the page may be short. One request.
        """
        rows = list(islice(self._rows(limit, shard, before, after, consistent=False), limit))
        return list(decode_readable(rows, _checked)), rows[-1].sk if len(rows) == limit else None

    def _rows(self, page_size: int | None, shard: int, before: str | None, after: str | None, *, consistent: bool) -> Iterator[OpenItem]:
        pk = self._pk(shard)
        below = self._items.sk < before if before is not None else None
        start = {"pk": {"S": pk}, "sk": {"S": after}} if after is not None else None
        return self._items.query(pk, below, consistent_read=consistent, page_size=page_size, last_evaluated_key=start)

    def _pk(self, shard: int) -> str:
        return self._partition if self.shards == 1 else f"{self._partition}#{shard}"
