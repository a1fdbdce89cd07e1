"""Whose job is released next from the lines of one cause: start-time fair queueing over tenants.

Each tenant has a virtual time, `v`. The one with the lowest is served, and its `v` grows by the cost
of its job, divided by its weight. So each gets a share of the limit in proportion to its weight,
whatever its jobs cost and however many it has. A tenant that had nothing waiting starts at the
virtual time of the last release: it is served soon, and gets nothing for the time before.

Within a tenant the best lane is first, then the oldest job. A lane that had less than its floor of
the tenant's last releases goes before the others. After each `AGE_MS` a job counts as of the next
better lane, without a write. Urgency costs: the factor of the lane is part of the cost, so that a
tenant that calls everything urgent gets less in all.

The state is in memory. A scheduler that starts anew passes the virtual times that were stored.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from chalicelib.domain.limits.held_job import HeldJob
from chalicelib.domain.units import Ms

FACTORS = {"urgent": 2.0, "high": 1.5, "normal": 1.0, "low": 0.75}  # of the cost, by lane; the best lane first
FLOORS = {"high": 0.2, "normal": 0.1, "low": 0.05}  # of a tenant's last releases
REMEMBERED = 200  # releases of a tenant
AGE_MS = 600_000
MIN_WEIGHT = 0.001
MIN_COST = 1e-6  # of a minute's limits
_RANKS = {lane: rank for rank, lane in enumerate(FACTORS)}


@dataclass(slots=True)
class _Flow:
    """A tenant that has a line."""

    weight: float
    v: float | None  # None: set when it is looked at for the first time
    lanes: deque[str] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    def is_below_floor(self, lane: str) -> bool:
        floor = int(FLOORS.get(lane, 0.0) * len(self.lanes))
        return floor > 0 and self.lanes.count(lane) < floor


class FairQueue:
    """The tenants with a line of one cause."""

    def __init__(self) -> None:
        self._flows: dict[str, _Flow] = {}
        self._waiting: frozenset[str] = frozenset()  # the tenants that had jobs at the last look
        self._last: float | None = None  # the virtual time of the last release

    def join(self, tenant: str, weight: float = 1.0, position: float | None = None) -> None:
        """Add a tenant, or change its weight.

        Args:
            position: its virtual time as it was stored; None: there is none, so it gets that of the last
                release, or the lowest of the others. A stored one that is lower is raised to it.
        """
        known = self._flows.get(tenant)
        if known is not None:
            known.weight = max(MIN_WEIGHT, weight)
        else:
            self._flows[tenant] = _Flow(max(MIN_WEIGHT, weight), position)

    def leave(self, tenant: str) -> None:
        """Remove a tenant whose line is empty."""
        self._flows.pop(tenant, None)

    def next(self, heads: Mapping[str, Sequence[HeldJob]], now: Ms) -> HeldJob | None:
        """Return the job to release next; None: nothing waits.

        It costs nothing before `charge`, so that a job that does not fit yet is returned again.

        Args:
            heads: of each tenant that has joined and may run something now, at least the oldest
                jobs of each lane, in any order.
        """
        waiting = {tenant: rows for tenant, rows in heads.items() if rows and tenant in self._flows}
        self._raise_newcomers(waiting)
        if not waiting:
            return None
        tenant = min(waiting, key=lambda one: (self._flows[one].v, min(row.queued_at for row in waiting[one]), one))
        flow, rows = self._flows[tenant], waiting[tenant]
        first = [row for row in rows if flow.is_below_floor(row.lane)] or rows
        return min(first, key=lambda row: (_rank(row, now), row.queued_at, row.job_id))

    def charge(self, tenant: str, cost: float, lane: str = "normal") -> None:
        """Count a release.

        Args:
            cost: from `cost_of`.
        """
        flow = self._flows.get(tenant)
        if flow is None:
            return
        before = flow.v or 0.0
        self._last = before if self._last is None else max(self._last, before)
        flow.v = before + cost * FACTORS.get(lane, 1.0) / flow.weight
        flow.lanes.append(lane)

    def refund(self, tenant: str, cost: float, lane: str = "normal") -> None:
        """Take back a charge: the job did not start."""
        flow = self._flows.get(tenant)
        if flow is None:
            return
        flow.v = (flow.v or 0.0) - cost * FACTORS.get(lane, 1.0) / flow.weight
        if lane in flow.lanes:
            flow.lanes.remove(lane)

    def positions(self) -> dict[str, float]:
        """Return the virtual times, to be stored. A tenant that was never looked at has none."""
        return {tenant: flow.v for tenant, flow in self._flows.items() if flow.v is not None}

    def _raise_newcomers(self, waiting: Mapping[str, Sequence[HeldJob]]) -> None:
        """Start a tenant that had nothing waiting at the last look where the others are."""
        known = [v for one in waiting if (v := self._flows[one].v) is not None]
        start = self._last if self._last is not None else min(known, default=0.0)
        for tenant in waiting.keys() - self._waiting:
            flow = self._flows[tenant]
            flow.v = start if flow.v is None else max(flow.v, start)
        self._waiting = frozenset(waiting)


def cost_of(tokens: int, requests_limit: int | None, tokens_limit: int | None) -> float:
    """Return which part of a minute's limits a job uses: of requests or of tokens, whichever is more."""
    parts = [number / limit for number, limit in ((1, requests_limit), (tokens, tokens_limit)) if limit]
    return max(MIN_COST, max(parts, default=1.0))


def _rank(row: HeldJob, now: Ms) -> int:
    return _RANKS.get(row.lane, _RANKS["normal"]) - max(0, now - row.queued_at) // AGE_MS
