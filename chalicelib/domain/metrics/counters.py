"""Counters that are maintained from the change stream.

Each job has a count mark: the version up to which it was counted, and as what. A change adds the
difference between the mark and the record, and mark and counters are written in one transaction
(protocol rule 21: a count and its marker are one transaction). So a change that arrives twice or
late counts once, and a lost one is made up for by the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class CountMark:
    """How a job was counted last."""

    job_id: str
    version: int = 0  # of the job record
    # By name of the count: what it was counted as.
    counted: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterIncrement:
    """An increment of one counter item."""

    key: tuple[str, str]  # partition and sort key
    amounts: Mapping[str, int]  # by name of the number; may be negative
    ttl: int | None = None  # seconds since 1970; None: never expires


def merge_increments(increments: list[CounterIncrement]) -> list[CounterIncrement]:
    """Sum the increments by counter, without those that add up to zero."""
    sums: dict[tuple[str, str], tuple[dict[str, int], int | None]] = {}
    for increment in increments:
        amounts, _ = sums.setdefault(increment.key, ({}, increment.ttl))
        for name, amount in increment.amounts.items():
            amounts[name] = amounts.get(name, 0) + amount
    merged = [
        CounterIncrement(key=key, amounts={name: amount for name, amount in amounts.items() if amount}, ttl=ttl)
        for key, (amounts, ttl) in sums.items()
    ]
    return [increment for increment in merged if increment.amounts]
