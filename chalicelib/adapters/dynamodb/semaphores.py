"""Semaphores and request counters, in the table `coordination`.

Semaphores are `slot#<name>` / `<slot number>`, request counters `rl#<name>` / `<window>`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from pynamodb.attributes import UnicodeAttribute
from ulid import ULID

from chalicelib.adapters.dynamodb import client as dynamodb
from chalicelib.adapters.dynamodb.client import TTL_GRACE_SECONDS, ConditionFailed, IntAttribute, Item, bound
from chalicelib.domain.units import Ms

MAX_TRIES = 3  # slots that are tried: if three are in use, the semaphore counts as full


class SemaphoreItem(Item):
    pk = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)
    until = IntAttribute()
    holder = UnicodeAttribute(attr_name="by")
    ttl = IntAttribute()


class RequestCounterItem(Item):
    pk = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)
    requests = IntAttribute(attr_name="n")
    ttl = IntAttribute()


class DynamoSemaphores:
    """Units: 1 to 3 to acquire a slot, 1 to release it."""

    def __init__(self, stage: str) -> None:
        self._items = bound(SemaphoreItem, stage, "coordination")
        self._holders: dict[tuple[str, int], str] = {}

    def acquire(self, name: str, slots: Sequence[int], until: Ms, now: Ms, holder: str | None = None) -> int | None:
        """Try up to three random slots.

        A free slot may be missed when most are in use; the caller has to wait then anyway.
        """
        taker = holder or str(ULID())
        for slot in random.sample(slots, min(MAX_TRIES, len(slots))):
            if self._acquire_slot(name, slot, until, now, taker):
                if holder is None:
                    self._holders[name, slot] = taker
                return slot
        return None

    def release(self, name: str, slot: int, holder: str | None = None) -> None:
        """Free the slot only if this process, or `holder`, took it and still holds it.

        Otherwise it is free at the end of its time.
        """
        holder = holder or self._holders.pop((name, slot), None)
        if holder is None:
            return
        try:
            dynamodb.delete(self._items(f"slot#{name}", str(slot)), self._items.holder == holder)
        except ConditionFailed:
            return  # its time was over and another process holds it

    def _acquire_slot(self, name: str, slot: int, until: Ms, now: Ms, holder: str) -> bool:
        item = self._items(f"slot#{name}", str(slot), until=until, holder=holder, ttl=until // 1000 + TTL_GRACE_SECONDS)
        try:
            dynamodb.put(item, self._items.pk.does_not_exist() | (self._items.until <= now))
        except ConditionFailed as failed:
            # This process already holds the slot if it repeats a request whose response was lost.
            return failed.item is not None and self._items.from_raw_data(failed.item).holder == holder
        return True


class DynamoRequestCounters:
    """Units: 1.

    A request that the SDK repeats after a lost response counts twice: acceptable for a rate limit,
    not for money.
    """

    def __init__(self, stage: str) -> None:
        self._items = bound(RequestCounterItem, stage, "coordination")

    def increment(self, name: str, window: int, ttl: int, by: int = 1) -> int:
        actions = [self._items.requests.add(by), self._items.ttl.set(ttl)]
        updated = dynamodb.update(self._items(f"rl#{name}", str(window)), actions, returns="UPDATED_NEW")
        return int(updated["n"]["N"])
