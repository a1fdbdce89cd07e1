"""Batches, in `ledger`: `B#<tenant>` / id, and while one is not at rest a row that says so, in the one partition `batches-open`.

The row that says so is put before the record, and removed last, unless it is of a later run by then. One whose batch was never made is
removed by whoever finds it.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, fields
from typing import Any

from pynamodb.attributes import UnicodeAttribute

from chalicelib.adapters.dynamodb import client as dynamodb
from chalicelib.adapters.dynamodb.client import TTL_GRACE_SECONDS, ConditionFailed, IntAttribute, Item, bound
from chalicelib.domain.batches.batch import Batch, BatchAction, BatchStatus
from chalicelib.domain.errors import StaleVersion
from chalicelib.domain.jobs.bulk_operation import BulkAction
from chalicelib.domain.jobs.job import Status
from chalicelib.domain.units import Ms

OPEN = "batches-open"
RETENTION_DAYS = 60  # after its last change: longer than the heads of its jobs
ORPHAN_GRACE_MS = 600_000  # how long a row may be there before its batch
MAX_OPEN = 1_000  # rows that are looked at, of which some are taken up


class BatchItem(Item):
    pk = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)
    version = IntAttribute(attr_name="v")
    data = UnicodeAttribute()  # JSON
    ttl = IntAttribute()


class OpenItem(Item):
    pk = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)
    tenant = UnicodeAttribute(attr_name="t")
    made_at = IntAttribute(attr_name="at")
    run = IntAttribute()
    ttl = IntAttribute()


class DynamoBatches:
    """Units: 2 to create, 1 for a step, 1 for the last; 1 to read."""

    def __init__(self, stage: str) -> None:
        self._items = bound(BatchItem, stage, "counters")
        self._open = bound(OpenItem, stage, "counters")

    def create(self, batch: Batch) -> None:
        self._name_open(batch)
        with suppress(ConditionFailed):  # it had been made, and the answer was lost
            dynamodb.put(self._item_of(batch), self._items.pk.does_not_exist())

    def get(self, tenant: str, batch_id: str) -> Batch | None:
        item = dynamodb.get(self._items, _partition(tenant), batch_id)
        return _batch_of(item) if item else None

    def replace(self, seen: Batch, new: Batch) -> None:
        if new.run > seen.run:
            self._name_open(new)
        item = self._item_of(new)
        try:
            dynamodb.put(item, self._items.version == seen.version)
        except ConditionFailed as failed:
            there = self._items.from_raw_data(failed.item) if failed.item else None
            if there is None or there.data != item.data:
                raise StaleVersion(_batch_of(there) if there else None) from failed

    def mark_closed(self, batch: Batch) -> None:
        with suppress(ConditionFailed):  # another run has begun, or it is gone
            dynamodb.delete(self._open(OPEN, batch.id), self._open.run == batch.run)

    def page(self, tenant: str, before: str | None, limit: int) -> tuple[list[Batch], str | None]:
        older = self._items.sk < before if before else None
        rows = self._items.query(_partition(tenant), older, scan_index_forward=False, limit=limit + 1, page_size=limit + 1)
        found = [_batch_of(item) for item in rows]
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    def stalled(self, now: Ms, limit: int) -> list[Batch]:
        rows = list(self._open.query(OPEN, consistent_read=True, limit=MAX_OPEN, page_size=MAX_OPEN))
        start = now // 60_000 * limit % len(rows) if len(rows) > limit else 0
        taken = (rows + rows)[start : start + min(limit, len(rows))]
        items = {item.sk: item for item in dynamodb.batch_get(self._items, [(_partition(row.tenant), row.sk) for row in taken])}
        for row in taken:
            if row.sk not in items and row.made_at + ORPHAN_GRACE_MS < now:
                dynamodb.delete(row)
        found = [_if_readable(items[row.sk]) for row in taken if row.sk in items]
        return [batch for batch in found if batch is not None and batch.locked_until <= now]

    def _name_open(self, batch: Batch) -> None:
        row = self._open(OPEN, batch.id, tenant=batch.tenant, made_at=batch.updated_at, run=batch.run, ttl=_ttl(batch))
        with suppress(ConditionFailed):  # a later run is named
            dynamodb.put(row, self._open.pk.does_not_exist() | (self._open.run <= batch.run))

    def _item_of(self, batch: Batch) -> BatchItem:
        data = json.dumps(_non_default_fields(batch), separators=(",", ":"))
        return self._items(_partition(batch.tenant), batch.id, version=batch.version, data=data, ttl=_ttl(batch))


_DEFAULTS = {field.name: field.default for field in fields(Batch)}


def _non_default_fields(batch: Batch) -> dict[str, Any]:
    """Without what goes without saying."""
    return {name: value for name, value in asdict(batch).items() if value != _DEFAULTS[name]}


def _batch_of(item: BatchItem) -> Batch:
    """Fields that this version does not know are left out: during a deployment two versions read each other's records."""
    data = {name: value for name, value in json.loads(item.data).items() if name in _DEFAULTS}
    if "status" in data:
        data["status"] = BatchStatus(data["status"])
    data["actions"] = tuple(_errand_of(one) for one in data.get("actions", ()))
    data["notify_targets"] = tuple(data.get("notify_targets", ()))
    return Batch(**data)


def _if_readable(item: BatchItem) -> Batch | None:
    """One that a person or another version has written must not hide all others."""
    try:
        return _batch_of(item)
    except (ValueError, TypeError, KeyError):
        return None


def _errand_of(data: dict[str, Any]) -> BatchAction:
    return BatchAction(**{**data, "action": BulkAction(data["action"]), "states": tuple(Status(state) for state in data["states"])})


def _partition(tenant: str) -> str:
    return f"B#{tenant}"


def _ttl(batch: Batch) -> int:
    return batch.updated_at // 1000 + RETENTION_DAYS * 86_400 + TTL_GRACE_SECONDS
