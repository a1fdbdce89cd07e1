"""Leases of the workers, in the table `coordination`: `W#<0-7>` / lease id.

The sweeper looks for expired ones with a query of each of the eight partitions.
"""

from __future__ import annotations

import json
from contextlib import suppress
from zlib import crc32

from pynamodb.attributes import UnicodeAttribute

from chalicelib.adapters.decoding import decode_readable
from chalicelib.adapters.dynamodb import client as dynamodb
from chalicelib.adapters.dynamodb.client import TTL_GRACE_SECONDS, ConditionFailed, IntAttribute, Item, bound, decoded
from chalicelib.domain.errors import StaleVersion
from chalicelib.ports import Lease

SHARDS = 8
OPEN, FENCED = "open", "fenced"


class LeaseItem(Item):
    pk = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)
    state = UnicodeAttribute(attr_name="st")
    lane = UnicodeAttribute()
    expires_at = IntAttribute(attr_name="exp")
    started_at = IntAttribute(attr_name="start")
    jobs = UnicodeAttribute()  # JSON
    environment = UnicodeAttribute(attr_name="env")
    watermark = IntAttribute(null=True, attr_name="wm")
    watermarks = UnicodeAttribute(null=True, attr_name="wms")  # JSON: pairs
    ttl = IntAttribute()


class DynamoLeases:
    """Units: 1 for each call; 2 for a lease of ten jobs of ten tenants with long names."""

    def __init__(self, stage: str) -> None:
        self._items = bound(LeaseItem, stage, "coordination")

    def open(self, lease: Lease) -> None:
        dynamodb.put(self._item_of(lease))

    def renew(self, lease: Lease) -> None:
        try:
            dynamodb.put(self._item_of(lease), self._items.state == OPEN)
        except ConditionFailed as failed:
            raise StaleVersion(_lease_of(self._items.from_raw_data(failed.item)) if failed.item else None) from failed

    def close(self, lease: Lease) -> None:
        """Keep a fenced lease: the sweeper is recovering its jobs."""
        try:
            dynamodb.delete(self._item_of(lease), self._items.state == OPEN)
        except ConditionFailed:
            return

    def fence(self, seen: Lease) -> bool:
        unchanged = self._items.expires_at == seen.expires_at
        try:
            dynamodb.update(self._item_of(seen), [self._items.state.set(FENCED)], unchanged)
        except ConditionFailed:
            return False
        return True

    def get(self, lease_id: str) -> Lease | None:
        item = dynamodb.get(self._items, _partition(lease_id), lease_id)
        return _lease_of(item) if item else None

    def all(self) -> list[Lease]:
        items = (item for shard in range(SHARDS) for item in self._items.query(f"W#{shard}", consistent_read=True))
        return list(decode_readable(items, _lease_of))

    def delete_fenced(self, lease: Lease) -> None:
        with suppress(ConditionFailed):
            dynamodb.delete(self._item_of(lease), self._items.state == FENCED)

    def _item_of(self, lease: Lease) -> LeaseItem:
        return self._items(
            _partition(lease.id),
            lease.id,
            state=OPEN,
            lane=lease.lane,
            expires_at=lease.expires_at,
            started_at=lease.started_at,
            jobs=json.dumps(lease.jobs),
            environment=lease.environment,
            watermark=lease.watermark or None,
            watermarks=json.dumps(list(lease.watermarks.items()), separators=(",", ":")) if lease.watermarks else None,
            ttl=lease.expires_at // 1000 + TTL_GRACE_SECONDS,
        )


def _partition(lease_id: str) -> str:
    return f"W#{crc32(lease_id.encode()) % SHARDS}"


@decoded
def _lease_of(item: LeaseItem) -> Lease:
    return Lease(
        id=item.sk,
        lane=item.lane,
        expires_at=item.expires_at,
        started_at=item.started_at,
        jobs=tuple(json.loads(item.jobs)),
        environment=item.environment,
        watermark=item.watermark or 0,
        watermarks={str(tenant): int(mark) for tenant, mark in json.loads(item.watermarks or "[]")},
        fenced=item.state == FENCED,
    )
