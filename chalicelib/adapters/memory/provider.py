"""The prices of models in memory."""

from __future__ import annotations

from collections.abc import Mapping

from chalicelib.ports import Price


class MemoryPrices:
    """`prices` by model."""

    def __init__(self, prices: Mapping[str, Price] | None = None) -> None:
        self.prices = dict(prices or {"gpt-4o-mini": Price(input=150, cached=75, output=600)})

    def of(self, model: str) -> Price | None:
        return self.prices.get(model)
