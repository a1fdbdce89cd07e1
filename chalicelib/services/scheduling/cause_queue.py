"""The lines of one cause, as a loop of the scheduler knows them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from chalicelib.domain.limits.fair_queue import FairQueue
from chalicelib.domain.limits.held_job import HeldJob
from chalicelib.domain.units import Ms
from chalicelib.ports import Line
from chalicelib.services.scheduling.context import SchedulingContext
from chalicelib.services.scheduling.heads import Heads
from chalicelib.services.scheduling.openings import Trials
from chalicelib.services.scheduling.user_heads import UserHeads

LineId = tuple[str, bool]  # the tenant, and whether it is its line by user
QUIET_MS = 30_000  # between two looks that found no job in a line, after which its row is deleted
LINGER_MS = 5_000  # after a job was held; before that its line is not taken for empty
MAX_TENANTS = 32  # of a cause that are looked at in one round
MAX_BY_USER = 8  # of them that share by user: their lines take more requests
POSITION_MS = 10_000  # how often the virtual times of a cause are stored


@dataclass(slots=True)
class CauseQueue:
    """The lines of one cause, their first jobs, and whose turn it is."""

    cause: str
    lines: dict[LineId, Line] = field(default_factory=dict)
    heads: dict[LineId, Heads] = field(default_factory=dict)
    fair: FairQueue = field(default_factory=FairQueue)
    trials: Trials = field(default_factory=Trials)
    probed: dict[str, Ms] = field(default_factory=dict)  # tenant: when one of its jobs was released last
    sent: list[Ms] = field(default_factory=list)  # when jobs were released that have perhaps not taken their slots yet
    empty_since: dict[LineId, Ms] = field(default_factory=dict)  # when a line was first found empty, with the row as it is
    next_at: Ms = 0  # when it is worth another visit
    saved_at: Ms = 0

    @property
    def tenants(self) -> list[str]:
        return list(dict.fromkeys(tenant for tenant, _ in self.lines))

    def refresh(self, lines: Iterable[Line], weights: Mapping[str, float]) -> None:
        before, self.lines = self.lines, {(line.tenant, line.by_user): line for line in lines}
        for one, line in self.lines.items():
            heads = self.heads.setdefault(one, UserHeads(line.turn) if line.by_user else Heads())
            if one in before and before[one].touched_at != line.touched_at:  # what was seen before says nothing
                heads.is_empty = False
                self.empty_since.pop(one, None)
            self.fair.join(line.tenant, weights.get(line.tenant, 1.0), line.position)
        for one in set(self.heads) - set(self.lines):
            self._forget(one)

    def touched(self) -> dict[str, Ms]:
        """Return when a job of each tenant was last held."""
        return {tenant: max(line.touched_at for line in self._lines_of(tenant)) for tenant in self.tenants}

    def waiting(self) -> dict[str, list[HeldJob]]:
        """Return the first jobs of each tenant."""
        found: dict[str, list[HeldJob]] = {}
        for one in self.lines:
            found[one[0]] = found.get(one[0], []) + self.heads[one].jobs
        return found

    async def read_heads(self, ctx: SchedulingContext, now: Ms, *, opens: bool) -> None:
        """Read the heads of the tenants that come next if the cause `opens`; of all that may be empty in any case."""
        positions = self.fair.positions()
        may_be_empty = {one for one, line in self.lines.items() if now - line.touched_at >= LINGER_MS or one in self.empty_since}
        come_next = sorted(self.tenants, key=lambda tenant: positions.get(tenant, 0.0))[:MAX_TENANTS] if opens else []
        looked_at = {one for one in self.lines if one[0] in come_next} | may_be_empty
        stale = [one for one in looked_at if self.heads[one].is_stale(now)]
        stale.sort(key=lambda one: self.heads[one].read_at)  # all take turns
        chosen = [*[one for one in stale if not one[1]][:MAX_TENANTS], *[one for one in stale if one[1]][:MAX_BY_USER]]
        await asyncio.gather(*(ctx.offload(self.heads[one].read, ctx, self.cause, one[0], now) for one in chosen))

    async def remove_empty(self, ctx: SchedulingContext, now: Ms) -> None:
        """Delete the rows of lines in which two looks found no job, if nobody has written the row since
        the first one (protocol rule 27: the row before the record). The time between the looks is
        this loop's own: other clocks may be wrong.
        """
        for one, line in list(self.lines.items()):
            if not self.heads[one].is_empty:
                self.empty_since.pop(one, None)
                continue
            read_at = self.heads[one].read_at
            since = self.empty_since.setdefault(one, read_at)
            if read_at - since < QUIET_MS:
                continue
            if await ctx.offload(ctx.lines.remove, line):
                del self.lines[one]
                self._forget(one)
            else:
                self.heads[one].is_empty = False
                self.empty_since.pop(one)

    def _lines_of(self, tenant: str) -> list[Line]:
        return [line for by_user in (False, True) if (line := self.lines.get((tenant, by_user))) is not None]

    def _forget(self, one: LineId) -> None:
        del self.heads[one]
        self.empty_since.pop(one, None)
        if not self._lines_of(one[0]):
            self.fair.leave(one[0])

    async def save_positions(self, ctx: SchedulingContext, now: Ms) -> None:
        if now - self.saved_at < POSITION_MS:
            return
        positions = self.fair.positions()
        known = [line for line in self.lines.values() if line.tenant in positions]
        moved = [line for line in known if (positions[line.tenant], self.heads[_id(line)].turn) != (line.position, line.turn)]
        for line in moved[:MAX_TENANTS]:
            await ctx.offload(ctx.lines.save_position, line, positions[line.tenant], self.heads[_id(line)].turn)
        self.saved_at = now


def _id(line: Line) -> LineId:
    return line.tenant, line.by_user
