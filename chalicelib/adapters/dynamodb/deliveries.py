"""Deliveries, in the table `counters`: `dlv#<owner>` / delivery id.

An open one also has a row in the index `dlv-open#<0-3>`. Index rows are sorted by the time at which
the sweeper checks the delivery: `<recheck_at>#<owner>#<delivery id>`. A delivery whose `recheck_at`
changes gets the new row before the record is written and loses the old row after it.
"""

from __future__ import annotations

from collections.abc import Iterator
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

OPEN = "dlv-open"
SHARDS = 4
RETENTION_DAYS = 30  # after its end
MAX_LISTED = 100


class DynamoDeliveries:
    """Units: about 3 to create, 2 for a step, 2 more for each change of `recheck_at`.

    A delivery has one to three KB.
    """

    def __init__(self, stage: str) -> None:
        self._records = JsonRecords(stage, "counters", key=_key_of, encode=_encode, decode=_decode, ttl=_ttl)
        self._open = OpenIndex(stage, "counters", OPEN, SHARDS)

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

    def due(self, until: Ms, limit: int) -> list[Delivery]:
        return [delivery for shard in range(SHARDS) for delivery in self._due(shard, until, limit)]

    def _due(self, shard: int, until: Ms, limit: int) -> Iterator[Delivery]:
        rows = self._open.query(limit, shard=shard, before=_time(until + 1), consistent=False)
        named = list(decode_readable(rows, _named))
        found = self._records.get_many([key for _, key, _ in named], consistent=True)
        for row, key, recheck_at in named:
            delivery = found.get(key)
            if delivery is None and key in found:
                continue  # it cannot be read; a version that can may need the row
            if delivery is not None and not delivery.is_open:
                self._open.delete(row)
            elif delivery is not None and delivery.recheck_at == recheck_at:
                yield delivery
            else:
                self._open.delete_orphan(row, recheck_at, until)

    def _row(self, delivery: Delivery) -> OpenItem:
        sort_key = f"{_time(delivery.recheck_at)}#{delivery.owner}#{delivery.id}"
        return self._open.row(sort_key, shard=crc32(delivery.id.encode()) % SHARDS, ttl=_ttl(delivery))


@decoded
def _named(row: OpenItem) -> tuple[OpenItem, Key, Ms]:
    """Return an index row, the key of the delivery that it names, and the time to check it."""
    time, owner, delivery_id = row.sk.split("#", 2)
    return row, _key(owner, delivery_id), int(time)


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
