"""Whose job is released next from the lines of one cause: start-time fair queueing over tenants.

Each tenant has a virtual time, `v`. The one with the lowest is served, and its `v` grows by the cost
of its job, divided by its weight. So each gets a share of the limit in proportion to its weight,
whatever its jobs cost and however many it has. A tenant that had nothing waiting starts at the
virtual time of the last release: it is served soon, and gets nothing for the time before.

Within a tenant the best lane is first, then the oldest job. A lane that had less than its floor of
the tenant's last releases goes before the others. After each `AGE_MS` a job counts as of the next
better lane, without a write. Urgency costs: the factor of the lane is part of the cost, so that a
tenant that calls everything urgent gets less in all.

The jobs of a tenant that shares by user stand in a line by user. Its share is divided in the same
way once more: each of its users has a virtual time, the one with the lowest is served, and lanes,
floors and ages count among the jobs of that user. A user that had nothing waiting starts at the
virtual time of the tenant's last release.

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
REMEMBERED = 200  # releases of a tenant, or of a user
MAX_USERS = 4_000  # of a tenant whose virtual times are kept
AGE_MS = 600_000
MIN_WEIGHT = 0.001
MIN_COST = 1e-6  # of a minute's limits
_RANKS = {lane: rank for rank, lane in enumerate(FACTORS)}


@dataclass(slots=True)
class _Lanes:
    """The lanes of the last releases of somebody."""

    lanes: deque[str] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    def is_below_floor(self, lane: str) -> bool:
        floor = int(FLOORS.get(lane, 0.0) * len(self.lanes))
        return floor > 0 and self.lanes.count(lane) < floor

    def add(self, lane: str) -> None:
        self.lanes.append(lane)

    def remove(self, lane: str) -> None:
        if lane in self.lanes:
            self.lanes.remove(lane)


@dataclass(slots=True)
class _User:
    """A user of a tenant that shares by user."""

    v: float
    lanes: _Lanes = field(default_factory=_Lanes)


@dataclass(slots=True)
class _Users:
    """The users of a tenant, as far as they are known. Who is not has the virtual time of the last release."""

    last: float = 0.0
    known: dict[str, _User] = field(default_factory=dict)

    def v(self, user: str) -> float:
        seen = self.known.get(user)
        return self.last if seen is None else max(self.last, seen.v)

    def first(self, rows: Sequence[HeldJob]) -> str:
        """Return the user whose turn it is. Of equal ones the one whose job is the oldest."""
        oldest: dict[str, Ms] = {}
        for row in rows:
            oldest[row.user] = min(row.queued_at, oldest.get(row.user, row.queued_at))
        return min(oldest, key=lambda user: (self.v(user), oldest[user], user))

    def charge(self, user: str, cost: float, lane: str) -> None:
        before = self.v(user)
        seen = self.known.pop(user, None) or _User(before)
        self.last, seen.v = before, before + cost
        seen.lanes.add(lane)
        self.known[user] = seen
        if len(self.known) > MAX_USERS:
            self._forget()

    def refund(self, user: str, cost: float, lane: str) -> None:
        seen = self.known.get(user)
        if seen is not None:
            seen.v -= cost
            seen.lanes.remove(lane)

    def _forget(self) -> None:
        """Forget the half with the lowest virtual times: theirs differ least from that of a user who is not known."""
        kept = sorted(self.known, key=self.v)[len(self.known) // 2 :]
        self.known = {user: self.known[user] for user in kept}


@dataclass(slots=True)
class _Flow:
    """A tenant that has a line."""

    weight: float
    v: float | None  # None: set when it is looked at for the first time
    lanes: _Lanes = field(default_factory=_Lanes)
    users: _Users | None = None  # None: no job of it stood in a line by user yet


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
        lanes = flow.lanes
        if any(row.by_user for row in rows):
            flow.users = flow.users or _Users()
            user = flow.users.first(rows)
            rows = [row for row in rows if row.user == user]
            lanes = flow.users.known[user].lanes if user in flow.users.known else _Lanes()
        first = [row for row in rows if lanes.is_below_floor(row.lane)] or rows
        return min(first, key=lambda row: (_rank(row, now), row.queued_at, row.job_id))

    def charge(self, tenant: str, cost: float, lane: str = "normal", user: str | None = None) -> None:
        """Count a release.

        Args:
            cost: from `cost_of`.
            user: whose job it is; it counts if the tenant shares by user.
        """
        flow = self._flows.get(tenant)
        if flow is None:
            return
        before = flow.v or 0.0
        self._last = before if self._last is None else max(self._last, before)
        flow.v = before + cost * FACTORS.get(lane, 1.0) / flow.weight
        flow.lanes.add(lane)
        if flow.users is not None and user is not None:
            flow.users.charge(user, cost * FACTORS.get(lane, 1.0), lane)

    def refund(self, tenant: str, cost: float, lane: str = "normal", user: str | None = None) -> None:
        """Take back a charge: the job did not start."""
        flow = self._flows.get(tenant)
        if flow is None:
            return
        flow.v = (flow.v or 0.0) - cost * FACTORS.get(lane, 1.0) / flow.weight
        flow.lanes.remove(lane)
        if flow.users is not None and user is not None:
            flow.users.refund(user, cost * FACTORS.get(lane, 1.0), lane)

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
