"""Deliveries, in the table `counters`: `dlv#<owner>` / delivery id.

An open one also has a row in the index `dlv-open#<0-3>`. Index rows are sorted by the time at which
the sweeper checks the delivery: `<recheck_at>#<owner>#<delivery id>`. A delivery whose `recheck_at`
changes gets the new row before the record is written and loses the old row after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any
from zlib import crc32

from chalicelib.adapters.decoding import checked, decode_readable
from chalicelib.adapters.dynamodb.client import decoded
from chalicelib.adapters.dynamodb.json_record import JsonRecords, Key, known_fields, ttl_after
from chalicelib.adapters.dynamodb.open_index import OpenIndex, OpenItem
from chalicelib.domain.notifications.delivery import Delivery, DeliveryAttempt, DeliveryState
from chalicelib.domain.notifications.recipients import Channel
from chalicelib.domain.units import Ms
from chalicelib.ports.notifications import DELIVERY_SHARDS, DueDelivery

OPEN = "dlv-open"
RETENTION_DAYS = 30  # after its end
MAX_LISTED = 100


class DynamoDeliveries:
    """Units: about 3 to create, 2 for a step, 2 more for each change of `recheck_at`.

    A delivery has one to three KB.
    """

    def __init__(self, stage: str) -> None:
        self._records = JsonRecords(stage, "counters", key=_key_of, encode=_encode, decode=_decode, ttl=_ttl)
        self._open = OpenIndex(stage, "counters", OPEN, DELIVERY_SHARDS)

    def create(self, delivery: Delivery) -> Delivery:
        row = self._row(delivery)
        self._open.put(row)
        there = self._records.create(delivery)
        if there is not delivery and (not there.is_open or there.recheck_at != delivery.recheck_at):
            self._open.delete(row)
        return there

    def get(self, owner: str, delivery_id: str) -> Delivery | None:
        return self._records.get(_key(owner, delivery_id))

    def for_owner(self, owner: str) -> list[Delivery]:
        return sorted(self._records.query(_partition(owner), MAX_LISTED), key=lambda one: (-one.created_at, one.id))

    def replace(self, seen: Delivery, new: Delivery) -> None:
        moves = new.is_open and (new.recheck_at != seen.recheck_at or not seen.is_open)
        if moves:
            self._open.put(self._row(new))
        self._records.replace(seen, new)
        if seen.is_open and (moves or not new.is_open):
            self._open.delete(self._row(seen))

    def due(self, shard: int, until: Ms, after: str | None, limit: int) -> tuple[list[DueDelivery], str | None]:
        rows, following = self._open.page(limit, after, shard=shard, before=_time(until + 1))
        return list(decode_readable(rows, _due)), following

    def load_due(self, due: Sequence[DueDelivery], now: Ms) -> list[Delivery]:
        found = self._records.get_many([_key(one.owner, one.delivery_id) for one in due], consistent=True)
        loaded = []
        for one in due:
            key = _key(one.owner, one.delivery_id)
            delivery, row = found.get(key), self._due_row(one)
            if delivery is None and key in found:
                continue  # it cannot be read; a version that can may need the row
            if delivery is not None and not delivery.is_open:
                self._open.delete(row)
            elif delivery is not None and delivery.recheck_at == one.recheck_at:
                loaded.append(delivery)
            else:
                self._open.delete_orphan(row, one.recheck_at, now)
        return loaded

    def _row(self, delivery: Delivery) -> OpenItem:
        due = DueDelivery(delivery.recheck_at, delivery.owner, delivery.id, delivery.tenant)
        return self._due_row(due, tenant=delivery.tenant, ttl=_ttl(delivery))

    def _due_row(self, due: DueDelivery, **attributes: Any) -> OpenItem:
        shard = crc32(due.delivery_id.encode()) % DELIVERY_SHARDS
        return self._open.row(f"{_time(due.recheck_at)}#{due.owner}#{due.delivery_id}", shard=shard, **attributes)


@decoded
def _due(row: OpenItem) -> DueDelivery:
    recheck_at, owner, delivery_id = row.sk.split("#", 2)
    return DueDelivery(int(recheck_at), owner, delivery_id, row.tenant)


def _encode(delivery: Delivery) -> dict[str, Any]:
    return asdict(delivery)


def _decode(stored: dict[str, Any]) -> Delivery:
    data = known_fields(Delivery, stored)
    return Delivery(
        **{
            **data,
            "channel": Channel(data["channel"]),
            "state": DeliveryState(data["state"]),
            "attempts": tuple(checked(DeliveryAttempt(**known_fields(DeliveryAttempt, one))) for one in data.get("attempts", ())),
        }
    )


def _key_of(delivery: Delivery) -> Key:
    return _key(delivery.owner, delivery.id)


def _key(owner: str, delivery_id: str) -> Key:
    return _partition(owner), delivery_id


def _partition(owner: str) -> str:
    return f"dlv#{owner}"


def _time(at: Ms) -> str:
    return f"{at:014d}"


def _ttl(delivery: Delivery) -> int:
    return ttl_after(delivery.ended_at or delivery.expires_at, RETENTION_DAYS)
