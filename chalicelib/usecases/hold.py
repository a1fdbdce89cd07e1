"""Hold a request for a while, until there is something to answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from chalicelib.ports import Clock, Slots

T = TypeVar("T")
SLOTS_NAME = "held"


@dataclass(frozen=True, kw_only=True)
class Holding:
    """`size` requests may be held at once: each keeps a function busy, and watchers must never starve submitters."""

    clock: Clock
    slots: Slots
    size: int
    every: float = 0.4  # seconds between two looks


def hold(holding: Holding, seconds: float, look: Callable[[], T | None]) -> T | None:
    """The first answer of `look` that is not None, within `seconds`. Without a free slot it looks once."""
    answer = look()
    if answer is not None or seconds <= 0:
        return answer
    clock = holding.clock
    until = clock.now() + round(seconds * 1000)
    slot = holding.slots.take(SLOTS_NAME, holding.size, until + 5_000, clock.now())
    if slot is None:
        return None
    try:
        while answer is None and clock.now() < until:
            clock.sleep(min(holding.every, max(0.0, (until - clock.now()) / 1000)))
            answer = look()
    finally:
        holding.slots.give_back(SLOTS_NAME, slot)
    return answer
