"""Type limiters, in the table `coordination`: `limiters` / job type."""

from __future__ import annotations

import json

from pynamodb.attributes import UnicodeAttribute

from chalicelib.adapters.dynamodb import client as dynamodb
from chalicelib.adapters.dynamodb.client import TTL_GRACE_SECONDS, ConditionFailed, IntAttribute, Item, bound, decoded
from chalicelib.domain.errors import StaleVersion
from chalicelib.domain.limits.type_limiter import Slot, TypeLimiter
from chalicelib.domain.units import Ms

PARTITION = "limiters"  # not that of the circuit breakers, which is read far more often


class TypeLimiterItem(Item):
    pk = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)
    version = IntAttribute(attr_name="v")
    recent_starts = UnicodeAttribute(attr_name="starts")  # a JSON list, as the next two: only whole limiters are read
    reservations = UnicodeAttribute(attr_name="reserved")
    slots = UnicodeAttribute()
    next_slot_at = IntAttribute(attr_name="next")
    average_hold_ms = IntAttribute(attr_name="avg")
    ttl = IntAttribute()


class DynamoTypeLimiters:
    """Units: 1 to read, 1 to write each KB: about 2, and 1 more for each 70 starts a minute."""

    def __init__(self, stage: str) -> None:
        self._items = bound(TypeLimiterItem, stage, "coordination")

    def get(self, job_type: str) -> TypeLimiter | None:
        item = dynamodb.get(self._items, PARTITION, job_type)
        return _limiter_of(item) if item else None

    def replace(self, seen: TypeLimiter, new: TypeLimiter, now: Ms) -> None:
        unchanged = self._items.version == seen.version if seen.version else self._items.pk.does_not_exist()
        try:
            dynamodb.put_known(self._item_of(new, now), unchanged)
        except ConditionFailed as failed:
            current = _limiter_of(self._items.from_raw_data(failed.item)) if failed.item else None
            if current != new:
                raise StaleVersion(current) from failed

    def _item_of(self, new: TypeLimiter, now: Ms) -> TypeLimiterItem:
        """The TTL is a day after the last reserved start."""
        return self._items(
            PARTITION,
            new.type,
            version=new.version,
            recent_starts=json.dumps(new.recent_starts, separators=(",", ":")),
            reservations=json.dumps(new.reservations, separators=(",", ":")),
            slots=json.dumps([(slot.holder, slot.since, slot.until) for slot in new.slots], separators=(",", ":")),
            next_slot_at=new.next_slot_at,
            average_hold_ms=new.average_hold_ms,
            ttl=max(now, new.next_slot_at, *new.recent_starts[-1:]) // 1000 + TTL_GRACE_SECONDS,
        )


@decoded
def _limiter_of(item: TypeLimiterItem) -> TypeLimiter:
    return TypeLimiter(
        type=item.sk,
        version=item.version,
        recent_starts=tuple(json.loads(item.recent_starts)),
        reservations=tuple((holder, at) for holder, at, *_ in json.loads(item.reservations)),
        slots=tuple(Slot(holder, since, until) for holder, since, until, *_ in json.loads(item.slots)),
        next_slot_at=item.next_slot_at,
        average_hold_ms=item.average_hold_ms,
    )
