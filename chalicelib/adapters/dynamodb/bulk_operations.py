"""Bulk operations, in the table `coordination`: `bulk#<tenant>` / id.

An unfinished one also has a row in the index `bulks-open`, and one that goes on after its request has
a row in the order of its tenant, `bulk-turns#<tenant>` / id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from chalicelib.adapters.decoding import checked
from chalicelib.adapters.dynamodb.json_record import JsonRecords, Key, known_fields, ttl_after
from chalicelib.adapters.dynamodb.open_index import OpenIndex, OpenItem
from chalicelib.domain.jobs.bulk_operation import BulkAction, BulkKey, BulkOperation, BulkPage, JobRef
from chalicelib.domain.jobs.job import Status
from chalicelib.domain.units import Ms

OPEN, TURNS = "bulks-open", "bulk-turns"
RETENTION_DAYS = 7  # after the last change
OPEN_DAYS = 60  # of an index row, which is put once: longer than any operation runs


class DynamoBulkOperations:
    """Units: 2 to create, 1 for each KB of a step (thirty for a thousand ids), 1 to 2 more for the last.

    1 to ask for a turn, and 1 to read who has one.
    """

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._records = JsonRecords(stage, "coordination", key=_key_of, encode=_encode, decode=_decode, ttl=_ttl)
        self._open = OpenIndex(stage, "coordination", OPEN)

    def create(self, bulk: BulkOperation) -> None:
        self._open.put(self._row(bulk))
        self._records.create(bulk)

    def get(self, tenant: str, bulk_id: str) -> BulkOperation | None:
        return self._records.get(_key(tenant, bulk_id))

    def replace(self, seen: BulkOperation, new: BulkOperation) -> None:
        self._records.replace(seen, new)
        if new.finished_at is not None:
            key = BulkKey(new.tenant, new.id, new.created_at)
            self.give_up_turn(key)
            self._open.delete(self._row(key))

    def unfinished(self, after: str | None, limit: int) -> tuple[list[BulkKey], str | None]:
        rows, following = self._open.page(limit, after)
        return [BulkKey(row.tenant, row.sk, row.made_at) for row in rows], following

    def load_unfinished(self, keys: Sequence[BulkKey], now: Ms) -> list[BulkOperation]:
        bulks, found = self._records.get_many([_key(one.tenant, one.id) for one in keys], consistent=True), []
        for one in keys:
            key = _key(one.tenant, one.id)
            bulk = bulks.get(key)
            if key not in bulks:
                self._open.delete_orphan(self._row(one), one.created_at, now)
            elif bulk is not None and bulk.finished_at is not None:
                self._open.delete(self._row(one))
            elif bulk is not None:
                found.append(bulk)
        return found

    def request_turn(self, key: BulkKey) -> None:
        order = self._order(key.tenant)
        order.put(self._row(key, order))

    def give_up_turn(self, key: BulkKey) -> None:
        order = self._order(key.tenant)
        order.delete(self._row(key, order))

    def turns(self, tenant: str, limit: int | None) -> list[BulkKey]:
        rows = self._order(tenant).query(limit)
        return [BulkKey(tenant, row.sk, row.made_at) for row in rows]

    def _order(self, tenant: str) -> OpenIndex:
        return OpenIndex(self._stage, "coordination", f"{TURNS}#{tenant}")

    def _row(self, bulk: BulkOperation | BulkKey, index: OpenIndex | None = None) -> OpenItem:
        return (index or self._open).row(bulk.id, tenant=bulk.tenant, made_at=bulk.created_at, ttl=ttl_after(bulk.created_at, OPEN_DAYS))


def _encode(bulk: BulkOperation) -> dict[str, Any]:
    return asdict(bulk)


def _decode(stored: dict[str, Any]) -> BulkOperation:
    data = known_fields(BulkOperation, stored)
    return BulkOperation(
        **{
            **data,
            "action": BulkAction(data["action"]),
            "ids": tuple(data["ids"]),
            "states": tuple(Status(state) for state in data.get("states", ())),
            "problems": tuple((job_id, code) for job_id, code in data["problems"]),
            "page": _page(data["page"]),
        }
    )


def _page(stored: dict[str, Any]) -> BulkPage:
    data = known_fields(BulkPage, stored)
    jobs = tuple(checked(JobRef(**known_fields(JobRef, one))) for one in data["jobs"])
    return checked(BulkPage(**{**data, "jobs": jobs, "missing": tuple(data["missing"]), "unreadable": tuple(data.get("unreadable", ()))}))


def _key_of(bulk: BulkOperation) -> Key:
    return _key(bulk.tenant, bulk.id)


def _key(tenant: str, bulk_id: str) -> Key:
    return f"bulk#{tenant}", bulk_id


def _ttl(bulk: BulkOperation) -> int:
    return ttl_after(bulk.updated_at, RETENTION_DAYS)
