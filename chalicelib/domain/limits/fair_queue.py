"""Placeholder of the branch `rates`: tenants in turn, each its first job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from chalicelib.domain.limits.held_job import HeldJob
from chalicelib.domain.units import Ms


class FairQueue:
    def __init__(self) -> None:
        self._positions: dict[str, float] = {}
        self._last = 0.0

    def join(self, tenant: str, weight: float = 1.0, position: float | None = None) -> None:
        if tenant not in self._positions:
            self._positions[tenant] = max(position or 0.0, self._last)

    def leave(self, tenant: str) -> None:
        self._positions.pop(tenant, None)

    def next(self, heads: Mapping[str, Sequence[HeldJob]], now: Ms) -> HeldJob | None:
        waiting = [tenant for tenant in self._positions if heads.get(tenant)]
        return heads[min(waiting, key=lambda tenant: self._positions[tenant])][0] if waiting else None

    def charge(self, tenant: str, cost: float) -> None:
        self._last = self._positions[tenant]
        self._positions[tenant] += cost

    def positions(self) -> dict[str, float]:
        return dict(self._positions)
