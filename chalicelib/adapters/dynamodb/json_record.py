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

from chalicelib.adapters.dynamodb import client as dynamodb
from chalicelib.adapters.dynamodb.client import TTL_GRACE_SECONDS, ConditionFailed, IntAttribute, Item, bound
from chalicelib.domain.errors import StaleVersion
from chalicelib.domain.units import Ms

Key = tuple[str, str]  # partition key and sort key
Fields = dict[str, Any]


class Versioned(Protocol):
    """A record whose `version` grows by one with each write."""

    @property
    def version(self) -> int: ...


R = TypeVar("R", bound=Versioned)


class UnreadableRecord(ValueError):
    """The stored text is no JSON, or not of a form that this version of the code knows."""


class RecordItem(Item):
    pk = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)
    version = IntAttribute(attr_name="v")
    data = UnicodeAttribute()  # JSON
    ttl = IntAttribute()


class JsonRecords(Generic[R]):
    """Records of one kind in a table with the keys `pk` and `sk`.

    Units: 1 for each KB written, 1 for each 4 KB read consistently, half of that otherwise.
    """

    def __init__(
        self,
        stage: str,
        table: str,
        *,
        key: Callable[[R], Key],
        encode: Callable[[R], str],
        decode: Callable[[Fields], R],
        ttl: Callable[[R], int],
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
        return {(item.pk, item.sk): self._record_if_readable(item) for item in items}

    def query(self, pk: str, limit: int) -> list[R]:
        """Return the first records of a partition by sort key, read consistently.

        Raises:
            UnreadableRecord: one of them cannot be decoded.
        """
        return [self.record(item) for item in self.items.query(pk, consistent_read=True, limit=limit)]

    def page(self, pk: str, before: str | None, limit: int) -> tuple[list[R], str | None]:
        """Return a page of a partition, greatest sort key first, and the key to continue `before`.

        Raises:
            UnreadableRecord: one of them cannot be decoded.
        """
        below = self.items.sk < before if before else None
        items = list(self.items.query(pk, below, scan_index_forward=False, limit=limit + 1, page_size=limit + 1))
        records = [self.record(item) for item in items[:limit]]
        return records, items[limit - 1].sk if len(items) > limit else None

    def replace(self, seen: R, new: R) -> None:
        """Swap `new` in for `seen` if the stored version is still that of `seen`.

        A repeated swap (the SDK repeats a request whose response was lost) succeeds.

        Raises:
            StaleVersion: the version has changed; `current` is the stored record.
        """
        item = self.item(new)
        try:
            dynamodb.put(item, self.items.version == seen.version)
        except ConditionFailed as failed:
            there = self.items.from_raw_data(failed.item) if failed.item else None
            if there is None or there.data != item.data:
                raise StaleVersion(self.record(there) if there else None) from failed

    def item(self, record: R) -> RecordItem:
        return self.items(*self._key(record), version=record.version, data=self._encode(record), ttl=self._ttl(record))

    def record(self, item: RecordItem) -> R:
        """Decode an item.

        Raises:
            UnreadableRecord: it cannot be decoded.
        """
        try:
            return self._decode(json.loads(item.data))
        except (ValueError, TypeError, KeyError, AttributeError) as exc:
            raise UnreadableRecord(f"{item.pk}/{item.sk}: {exc}") from exc

    def _record_if_readable(self, item: RecordItem) -> R | None:
        try:
            return self.record(item)
        except UnreadableRecord:
            return None


def known_fields(kind: Any, stored: Fields) -> Fields:
    """Return the stored values of the fields that this version of a dataclass has.

    Others are left out: during a deployment two versions of the code read each other's records.
    """
    return {field.name: stored[field.name] for field in fields(kind) if field.name in stored}


def non_default_fields(record: Any) -> Fields:
    """Return the fields of a dataclass that differ from their defaults; decoding sets the others."""
    defaults = {field.name: field.default for field in fields(record)}
    return {name: value for name, value in asdict(record).items() if value != defaults[name]}


def ttl_after(end: Ms, days: int) -> int:
    """Return the TTL, in seconds since 1970, of a record that is kept for `days` after `end`."""
    return end // 1000 + days * 86_400 + TTL_GRACE_SECONDS
