"""Batches, in the table `counters`: `B#<tenant>` / batch id.

An open batch also has a row in the index `batches-open`.
"""

from __future__ import annotations

from typing import Any

from chalicelib.adapters.decoding import checked
from chalicelib.adapters.dynamodb.json_record import JsonRecords, Key, known_fields, non_default_fields, ttl_after
from chalicelib.adapters.dynamodb.open_index import OpenIndex, OpenItem
from chalicelib.domain.batches.batch import Batch, BatchAction, BatchStatus
from chalicelib.domain.jobs.bulk_operation import BulkAction
from chalicelib.domain.jobs.job import Status
from chalicelib.domain.units import Ms

OPEN = "batches-open"
RETENTION_DAYS = 60  # after the last change: longer than the job records of its rows
OPEN_DAYS = 120  # of an index row, which is put once a run: longer than any run takes


class DynamoBatches:
    """Units: 2 to create, 1 for a step, 1 more for the last; 1 to read."""

    def __init__(self, stage: str) -> None:
        self._records = JsonRecords(stage, "counters", key=_key_of, encode=_encode, decode=_decode, ttl=_ttl)
        self._open = OpenIndex(stage, "counters", OPEN)

    def create(self, batch: Batch) -> None:
        self._open.put(self._row(batch))
        self._records.create(batch)

    def get(self, tenant: str, batch_id: str) -> Batch | None:
        return self._records.get(_key(tenant, batch_id))

    def replace(self, seen: Batch, new: Batch) -> None:
        if new.run > seen.run:
            self._open.put(self._row(new))
        self._records.replace(seen, new)

    def mark_closed(self, batch: Batch) -> None:
        self._open.delete(self._row(batch))

    def page(self, tenant: str, before: str | None, limit: int) -> tuple[list[Batch], str | None]:
        return self._records.page(_partition(tenant), before, limit)

    def stalled(self, now: Ms, after: str | None, limit: int) -> tuple[list[Batch], str | None]:
        rows, following = self._open.page(limit, after)
        keys = [_key(row.tenant, row.sk) for row in rows]
        batches = self._records.get_many(keys)
        for row, key in zip(rows, keys, strict=True):
            if key not in batches:
                self._open.delete_orphan(row, row.made_at, now)
        found = [batches.get(key) for key in keys]
        return [batch for batch in found if batch is not None and batch.locked_until <= now], following

    def _row(self, batch: Batch) -> OpenItem:
        return self._open.row(
            batch.id, tenant=batch.tenant, made_at=batch.updated_at, run=batch.run, ttl=ttl_after(batch.updated_at, OPEN_DAYS)
        )


def _encode(batch: Batch) -> dict[str, Any]:
    return non_default_fields(batch)


def _decode(stored: dict[str, Any]) -> Batch:
    data = known_fields(Batch, stored)
    if "status" in data:
        data["status"] = BatchStatus(data["status"])
    data["actions"] = tuple(_action(one) for one in data.get("actions", ()))
    data["notify_targets"] = tuple(data.get("notify_targets", ()))
    return Batch(**data)


def _action(stored: dict[str, Any]) -> BatchAction:
    data = known_fields(BatchAction, stored)
    return checked(
        BatchAction(**{**data, "action": BulkAction(data["action"]), "states": tuple(Status(state) for state in data["states"])})
    )


def _key_of(batch: Batch) -> Key:
    return _key(batch.tenant, batch.id)


def _key(tenant: str, batch_id: str) -> Key:
    return _partition(tenant), batch_id


def _partition(tenant: str) -> str:
    return f"B#{tenant}"


def _ttl(batch: Batch) -> int:
    return ttl_after(batch.updated_at, RETENTION_DAYS)
