"""What is counted from the change stream: how much each change of a job adds to which counter.

A job is counted against a mark, which says up to which version, and as what, it was counted before. So what comes twice, late or not at
all is counted once: the difference between the mark and the record is what is added, and mark and counters are written together [21].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class CountMark:
    """As what a job was counted last, at `version` of its head. `counted` is what each count wants to know of that, by its name."""

    job_id: str
    version: int = 0
    counted: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterIncrement:
    """So much more (or less) of each number of the counter at `place`, its two keys. `ttl`: seconds since 1970, None for ever."""

    key: tuple[str, str]
    amounts: Mapping[str, int]
    ttl: int | None = None


def merge_increments(adds: list[CounterIncrement]) -> list[CounterIncrement]:
    """One change for each counter, without those that come to nothing."""
    sums: dict[tuple[str, str], tuple[dict[str, int], int | None]] = {}
    for add in adds:
        amounts, _ = sums.setdefault(add.key, ({}, add.ttl))
        for name, amount in add.amounts.items():
            amounts[name] = amounts.get(name, 0) + amount
    kept = [
        CounterIncrement(key=place, amounts={name: n for name, n in amounts.items() if n}, ttl=ttl)
        for place, (amounts, ttl) in sums.items()
    ]
    return [add for add in kept if add.amounts]
