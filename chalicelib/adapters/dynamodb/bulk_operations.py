"""Bulk actions, in `live`: `bulk#<tenant>` / id, and while it is unfinished a row that says so, in the one partition `bulks-open`.

The row that says so is put first and removed last, so nothing unfinished is without one; one whose bulk action was never made, or has
ended, is removed by whoever finds it.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from pynamodb.attributes import UnicodeAttribute

from chalicelib.adapters.dynamodb import client as dynamodb
from chalicelib.adapters.dynamodb.client import TTL_GRACE_SECONDS, ConditionFailed, IntAttribute, Item, bound
from chalicelib.domain.errors import StaleVersion
from chalicelib.domain.jobs.bulk_operation import BulkAction, BulkOperation, BulkPage, JobRef
from chalicelib.domain.jobs.job import Status
from chalicelib.domain.units import Ms

OPEN = "bulks-open"
RETENTION_DAYS = 7
ORPHAN_GRACE_MS = 600_000  # how long a row may be there before its bulk action


class BulkOperationItem(Item):
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
    ttl = IntAttribute()


class DynamoBulkOperations:
    """Units: 2 to create, 1 for each KB of a step (thirty for a thousand ids), 1 more for the last."""

    def __init__(self, stage: str) -> None:
        self._items = bound(BulkOperationItem, stage, "coordination")
        self._open = bound(OpenItem, stage, "coordination")

    def create(self, bulk: BulkOperation) -> None:
        dynamodb.put(self._open(OPEN, bulk.id, tenant=bulk.tenant, made_at=bulk.created_at, ttl=_ttl(bulk)))
        try:
            dynamodb.put(self._item_of(bulk), self._items.pk.does_not_exist())
        except ConditionFailed:
            return  # it had been made, and the answer was lost

    def get(self, tenant: str, bulk_id: str) -> BulkOperation | None:
        item = dynamodb.get(self._items, _partition(tenant), bulk_id)
        return _bulk_of(item) if item else None

    def replace(self, seen: BulkOperation, new: BulkOperation) -> None:
        item = self._item_of(new)
        try:
            dynamodb.put(item, self._items.version == seen.version)
        except ConditionFailed as failed:
            there = self._items.from_raw_data(failed.item) if failed.item else None
            if there is None or there.data != item.data:
                raise StaleVersion(_bulk_of(there) if there else None) from failed
        if new.finished_at is not None:
            dynamodb.delete(self._open(OPEN, new.id))

    def unfinished(self, now: Ms, limit: int) -> list[BulkOperation]:
        found = []
        for row in self._open.query(OPEN, consistent_read=True, limit=limit, page_size=limit):
            bulk = self.get(row.tenant, row.sk)
            if bulk is not None and bulk.finished_at is None:
                found += [bulk] if bulk.locked_until <= now else []
            elif bulk is not None or row.made_at + ORPHAN_GRACE_MS < now:
                dynamodb.delete(row)
        return found

    def _item_of(self, bulk: BulkOperation) -> BulkOperationItem:
        return self._items(_partition(bulk.tenant), bulk.id, version=bulk.version, data=json.dumps(asdict(bulk)), ttl=_ttl(bulk))


def _partition(tenant: str) -> str:
    return f"bulk#{tenant}"


def _ttl(bulk: BulkOperation) -> int:
    return bulk.updated_at // 1000 + RETENTION_DAYS * 86_400 + TTL_GRACE_SECONDS


def _bulk_of(item: BulkOperationItem) -> BulkOperation:
    data: dict[str, Any] = json.loads(item.data)
    page = data["page"]
    return BulkOperation(
        **{
            **data,
            "action": BulkAction(data["action"]),
            "ids": tuple(data["ids"]),
            "states": tuple(Status(state) for state in data.get("states", ())),
            "problems": tuple((job_id, code) for job_id, code in data["problems"]),
            "page": BulkPage(**{**page, "jobs": tuple(JobRef(**one) for one in page["jobs"]), "missing": tuple(page["missing"])}),
        }
    )
