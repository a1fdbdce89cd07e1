"""What bounds the use of something: slots that are taken for a time, and meters that count."""

from __future__ import annotations

import random

from pynamodb.attributes import UnicodeAttribute
from ulid import ULID

from chalicelib.adapters.dynamodb import client as dynamodb
from chalicelib.adapters.dynamodb.client import TTL_GRACE_SECONDS, ConditionFailed, IntAttribute, Item, bound
from chalicelib.domain.units import Ms

TRIES = 3  # slots that are looked at; a full set is recognised by three of them being taken


class SemaphoreItem(Item):
    pk = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)
    until = IntAttribute()
    by = UnicodeAttribute()
    ttl = IntAttribute()


class RequestCounterItem(Item):
    pk = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)
    count_ = IntAttribute(attr_name="n")
    ttl = IntAttribute()


class DynamoSemaphores:
    """Units: 1 to 3 to take one, 1 to give it back."""

    def __init__(self, stage: str) -> None:
        self._items = bound(SemaphoreItem, stage, "coordination")
        self._taken: dict[tuple[str, int], str] = {}

    def acquire(self, name: str, size: int, until: Ms, now: Ms) -> int | None:
        """Up to three slots by chance: with many taken there may be a free one that is not seen, and the caller has to wait anyway."""
        mark = str(ULID())
        for slot in random.sample(range(size), min(TRIES, size)):
            if self._take(name, slot, until, now, mark):
                self._taken[name, slot] = mark
                return slot
        return None

    def release(self, name: str, slot: int) -> None:
        """Only what this process took, and only while nobody else has it: otherwise it is given back by its time."""
        mark = self._taken.pop((name, slot), None)
        if mark is None:
            return
        try:
            dynamodb.delete(self._items(f"slot#{name}", str(slot)), self._items.by == mark)
        except ConditionFailed:
            return  # its time was over

    def _take(self, name: str, slot: int, until: Ms, now: Ms, mark: str) -> bool:
        item = self._items(f"slot#{name}", str(slot), until=until, by=mark, ttl=until // 1000 + TTL_GRACE_SECONDS)
        try:
            dynamodb.put(item, self._items.pk.does_not_exist() | (self._items.until <= now))
        except ConditionFailed as failed:
            return failed.item is not None and self._items.from_raw_data(failed.item).by == mark  # ours, answer lost
        return True


class DynamoRequestCounters:
    """Units: 1. A request that the SDK repeats after a lost answer counts twice, which a rate limit can bear and money could not."""

    def __init__(self, stage: str) -> None:
        self._items = bound(RequestCounterItem, stage, "coordination")

    def increment(self, name: str, window: int, ttl: int) -> int:
        actions = [self._items.count_.add(1), self._items.ttl.set(ttl)]
        updated = dynamodb.update(self._items(f"rl#{name}", str(window)), actions, returns="UPDATED_NEW")
        return int(updated["n"]["N"])
