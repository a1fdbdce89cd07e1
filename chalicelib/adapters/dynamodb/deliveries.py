"""Deliveries, in `ledger`: `wh#<owner>` / id, and while one is open a row in `wh-open#<part>` / `<look_at>#<owner>#<id>` by which the sweep
finds it without a scan.

The new row is put before the delivery that it names, the old one removed after it, so nothing open is without one. A row that names what
has ended, or what is looked at another time, is removed by whoever finds it, once nobody can be in the middle of such a change any more.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any
from zlib import crc32

from pynamodb.attributes import UnicodeAttribute

from chalicelib.adapters.dynamodb import client as dynamodb
from chalicelib.adapters.dynamodb.client import TTL_GRACE_SECONDS, ConditionFailed, IntAttribute, Item, bound
from chalicelib.domain.errors import StaleVersion
from chalicelib.domain.notifications.delivery import Delivery, DeliveryAttempt, DeliveryState
from chalicelib.domain.notifications.recipients import Channel
from chalicelib.domain.units import Ms

SHARDS = 4
RETENTION_DAYS = 30
MAX_LISTED = 100
ORPHAN_GRACE_MS = 600_000  # how long a row may be there before its delivery


class DeliveryItem(Item):
    pk = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)
    version = IntAttribute(attr_name="v")
    data = UnicodeAttribute()  # JSON
    ttl = IntAttribute()


class OpenItem(Item):
    pk = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)
    ttl = IntAttribute()


class DynamoDeliveries:
    """Units: about 3 to create, 2 for a step (a delivery has one to three KB), 2 more for each change of when it is looked at."""

    def __init__(self, stage: str) -> None:
        self._items = bound(DeliveryItem, stage, "counters")
        self._open = bound(OpenItem, stage, "counters")

    def create(self, delivery: Delivery) -> Delivery:
        row = self._row(delivery)
        dynamodb.put(row)
        try:
            dynamodb.put(self._item_of(delivery), self._items.pk.does_not_exist())
        except ConditionFailed as failed:
            there = _delivery_of(self._items.from_raw_data(failed.item)) if failed.item else delivery
            if not there.is_open or there.recheck_at != delivery.recheck_at:
                dynamodb.delete(row)
            return there
        return delivery

    def get(self, owner: str, delivery_id: str) -> Delivery | None:
        item = dynamodb.get(self._items, _partition(owner), delivery_id)
        return _delivery_of(item) if item else None

    def for_owner(self, owner: str) -> list[Delivery]:
        rows = self._items.query(_partition(owner), consistent_read=True, limit=MAX_LISTED)
        return sorted((_delivery_of(row) for row in rows), key=lambda one: (-one.created_at, one.id))

    def replace(self, seen: Delivery, new: Delivery) -> None:
        item, moves = self._item_of(new), new.is_open and (new.recheck_at != seen.recheck_at or not seen.is_open)
        if moves:
            dynamodb.put(self._row(new))
        try:
            dynamodb.put(item, self._items.version == seen.version)
        except ConditionFailed as failed:
            there = self._items.from_raw_data(failed.item) if failed.item else None
            if there is None or there.data != item.data:
                raise StaleVersion(_delivery_of(there) if there else None) from failed
        if seen.is_open and (moves or not new.is_open):
            dynamodb.delete(self._row(seen))

    def due(self, until: Ms, limit: int) -> list[Delivery]:
        return [delivery for part in range(SHARDS) for delivery in self._due_of(part, until, limit)]

    def _due_of(self, part: int, until: Ms, limit: int) -> Iterator[Delivery]:
        rows = list(self._open.query(_open_partition(part), self._open.sk < _time(until + 1), limit=limit, page_size=limit))
        places = {row.sk: row.sk.split("#", 2) for row in rows}
        keys = [(_partition(owner), delivery_id) for _, owner, delivery_id in places.values()]
        found = {(item.pk, item.sk): item for item in dynamodb.batch_get(self._items, keys, consistent=True)}
        for row in rows:
            at, owner, delivery_id = places[row.sk]
            item = found.get((_partition(owner), delivery_id))
            delivery = _if_readable(item) if item is not None else None
            if item is not None and delivery is None:
                continue
            if delivery is not None and delivery.is_open and delivery.recheck_at == int(at):
                yield delivery
            elif int(at) + ORPHAN_GRACE_MS < until or (delivery is not None and not delivery.is_open):
                dynamodb.delete(row)

    def _row(self, delivery: Delivery) -> OpenItem:
        place = f"{_time(delivery.recheck_at)}#{delivery.owner}#{delivery.id}"
        return self._open(_open_partition(crc32(delivery.id.encode()) % SHARDS), place, ttl=_ttl(delivery))

    def _item_of(self, delivery: Delivery) -> DeliveryItem:
        data = json.dumps(asdict(delivery), ensure_ascii=False, separators=(",", ":"))
        return self._items(_partition(delivery.owner), delivery.id, version=delivery.version, data=data, ttl=_ttl(delivery))


def _partition(owner: str) -> str:
    return f"wh#{owner}"


def _open_partition(part: int) -> str:
    return f"wh-open#{part}"


def _time(at: Ms) -> str:
    return f"{at:014d}"


def _ttl(delivery: Delivery) -> int:
    return (delivery.ended_at or delivery.expires_at) // 1000 + RETENTION_DAYS * 86_400 + TTL_GRACE_SECONDS


def _if_readable(item: DeliveryItem) -> Delivery | None:
    """One that a person or another version has written must not hide all others."""
    try:
        return _delivery_of(item)
    except (ValueError, TypeError, KeyError):
        return None


def _delivery_of(item: DeliveryItem) -> Delivery:
    """Fields that this version does not know are left out: during a deployment two versions read each other's rows."""
    data: dict[str, Any] = json.loads(item.data)
    known = {name: data[name] for name in Delivery.__dataclass_fields__ if name in data}
    return Delivery(
        **{
            **known,
            "channel": Channel(data["channel"]),
            "state": DeliveryState(data["state"]),
            "attempts": tuple(DeliveryAttempt(**one) for one in data.get("attempts", ())),
        }
    )
