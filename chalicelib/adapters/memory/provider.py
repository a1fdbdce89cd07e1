"""The prices of models in memory."""

from __future__ import annotations

from collections.abc import Mapping

from chalicelib.domain.jobs.spec import PRICED_TIERS
from chalicelib.ports import Price


class MemoryPrices:
    """`prices` by model; of other tiers than the standard by `model@tier`."""

    def __init__(self, prices: Mapping[str, Price] | None = None) -> None:
        self.prices = dict(prices or {"gpt-4o-mini": Price(input=150, cached=75, output=600)})

    def of(self, model: str, tier: str | None = None) -> Price | None:
        return self.prices.get(f"{model}@{tier}" if tier in PRICED_TIERS else model)
