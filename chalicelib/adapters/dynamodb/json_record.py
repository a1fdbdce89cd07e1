"""Versioned records that are stored as one JSON text in one item.

A store that keeps such records (batches, bulk operations, deliveries) gives `JsonRecords` their
keys, their encoding and their life; creating, reading and the compare-and-swap are the same for
all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, fields
from typing import Any, Generic, Protocol, TypeVar

from pynamodb.attributes import UnicodeAttribute

from chalicelib.adapters.decoding import checked, decode_readable
from chalicelib.adapters.dynamodb import client as dynamodb
from chalicelib.adapters.dynamodb.client import TTL_GRACE_SECONDS, ConditionFailed, IntAttribute, Item, bound, decoded
from chalicelib.domain.errors import StaleVersion
from chalicelib.domain.units import Ms

UNKNOWN = "unknown_fields"  # the field of a record for what only a newer version of the code knows
Key = tuple[str, str]  # partition key and sort key
Fields = dict[str, Any]


class Versioned(Protocol):
    """A record whose `version` grows by one with each write."""

    @property
    def version(self) -> int: ...


R = TypeVar("R", bound=Versioned)


class RecordItem(Item):
    pk = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)
    version = IntAttribute(attr_name="v")
    data = UnicodeAttribute()  # JSON
    ttl = IntAttribute(null=True)


class JsonRecords(Generic[R]):
    """Records of one kind in a table with the keys `pk` and `sk`.

    Units: 1 for each KB written, 1 for each 4 KB read consistently, half of that otherwise.

    Args:
        ttl: gives a record's TTL in seconds since 1970; None: the records stay.
    """

    def __init__(
        self,
        stage: str,
        table: str,
        *,
        key: Callable[[R], Key],
        encode: Callable[[R], Fields],
        decode: Callable[[Fields], R],
        ttl: Callable[[R], int] | None,
    ) -> None:
        self.items = bound(RecordItem, stage, table)
        self._key = key
        self._encode = encode
        self._decode = decode
        self._ttl = ttl

    def create(self, record: R) -> R:
        """Put a new record and return it. If one is there already, that one stays and is returned."""
        try:
            dynamodb.put(self.item(record), self.items.pk.does_not_exist())
        except ConditionFailed as failed:
            return self.record(self.items.from_raw_data(failed.item)) if failed.item else record
        return record

    def get(self, key: Key) -> R | None:
        """Return the record, read consistently.

        Raises:
            UnreadableRecord: the item cannot be decoded.
        """
        item = dynamodb.get(self.items, *key)
        return self.record(item) if item else None

    def get_many(self, keys: Iterable[Key], *, consistent: bool = False) -> dict[Key, R | None]:
        """Return the records that exist, by key.

        An unreadable one is None, so that it does not hide the others.
        """
        items = dynamodb.batch_get(self.items, keys, consistent=consistent)
        found: dict[Key, R | None] = {(item.pk, item.sk): None for item in items}
        readable = decode_readable(items, lambda item: ((item.pk, item.sk), self.record(item)))
        return found | dict(readable)

    def query(self, pk: str, limit: int) -> list[R]:
        """Return the first records of a partition by sort key, read consistently; not unreadable ones."""
        return list(decode_readable(self.items.query(pk, consistent_read=True, limit=limit), self.record))

    def page(self, pk: str, before: str | None, limit: int) -> tuple[list[R], str | None]:
        """Return a page of a partition, greatest sort key first, and the key to continue `before`.

        Unreadable records are left out, so the page may be short.
        """
        below = self.items.sk < before if before else None
        items = list(self.items.query(pk, below, scan_index_forward=False, limit=limit + 1, page_size=limit + 1))
        return list(decode_readable(items[:limit], self.record)), items[limit - 1].sk if len(items) > limit else None

    def replace(self, seen: R, new: R) -> None:
        """Swap `new` in for `seen` if the stored version is still that of `seen`.

        A repeated swap (the SDK repeats a request whose response was lost) succeeds.

        Raises:
            StaleVersion: the version has changed; `current` is the stored record.
        """
        item = self.item(new)
        try:
            dynamodb.put_known(item, self.items.version == seen.version)
        except ConditionFailed as failed:
            there = self.items.from_raw_data(failed.item) if failed.item else None
            if there is None or there.data != item.data:
                raise StaleVersion(self.record(there) if there else None) from failed

    def item(self, record: R) -> RecordItem:
        fields = self._encode(record)
        stored = {**fields.pop(UNKNOWN, {}), **fields}
        data = json.dumps(stored, ensure_ascii=False, separators=(",", ":"))
        return self.items(*self._key(record), version=record.version, data=data, ttl=self._ttl(record) if self._ttl else None)

    def record(self, item: RecordItem) -> R:
        """Decode an item.

        Raises:
            UnreadableRecord: it cannot be decoded.
        """
        return decoded(self._record_of)(item)

    def _record_of(self, item: RecordItem) -> R:
        return checked(self._decode(json.loads(item.data)))


def known_fields(kind: Any, stored: Fields) -> Fields:
    """Return the stored values of the fields that this version of a dataclass has.

    During a deployment two versions of the code read each other's records. Fields that this version
    does not know go into the field `unknown_fields` if the class has one, so that they are written
    back unchanged; otherwise they are left out.
    """
    names = {field.name for field in fields(kind)}
    known = {name: value for name, value in stored.items() if name in names}
    unknown = {name: value for name, value in stored.items() if name not in names}
    return {**known, UNKNOWN: unknown} if unknown and UNKNOWN in names else known


def non_default_fields(record: Any) -> Fields:
    """Return the fields of a dataclass that differ from their defaults; decoding sets the others."""
    defaults: Fields = {field.name: {} if field.default_factory is dict else field.default for field in fields(record)}
    return {name: value for name, value in asdict(record).items() if value != defaults[name]}


def ttl_after(end: Ms, days: int) -> int:
    """Return the TTL, in seconds since 1970, of a record that is kept for `days` after `end`."""
    return end // 1000 + days * 86_400 + TTL_GRACE_SECONDS
