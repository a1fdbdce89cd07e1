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

QUIET_MS = 30_000  # between two looks that found no job in a line, after which its row is deleted
LINGER_MS = 5_000  # after a job was held; before that its line is not taken for empty
MAX_TENANTS = 32  # of a cause that are looked at in one round
POSITION_MS = 10_000  # how often the virtual times of a cause are stored


@dataclass(slots=True)
class CauseQueue:
    """The lines of one cause, their first jobs, and whose turn it is."""

    cause: str
    lines: dict[str, Line] = field(default_factory=dict)  # by tenant
    heads: dict[str, Heads] = field(default_factory=dict)
    fair: FairQueue = field(default_factory=FairQueue)
    trials: Trials = field(default_factory=Trials)
    probed: dict[str, Ms] = field(default_factory=dict)  # tenant: when one of its jobs was released last
    sent: list[Ms] = field(default_factory=list)  # when jobs were released that have perhaps not taken their slots yet
    empty_since: dict[str, Ms] = field(default_factory=dict)  # tenant: when its line was first found empty, with the row as it is
    next_at: Ms = 0  # when it is worth another visit
    saved_at: Ms = 0

    def refresh(self, lines: Iterable[Line], weights: Mapping[str, float]) -> None:
        before, self.lines = self.lines, {line.tenant: line for line in lines}
        for tenant, line in self.lines.items():
            heads = self.heads.setdefault(tenant, Heads())
            if tenant in before and before[tenant].touched_at != line.touched_at:  # what was seen before says nothing
                heads.is_empty = False
                self.empty_since.pop(tenant, None)
            self.fair.join(tenant, weights.get(tenant, 1.0), line.position)
        for tenant in set(self.heads) - set(self.lines):
            del self.heads[tenant]
            self.empty_since.pop(tenant, None)
            self.fair.leave(tenant)

    def touched(self) -> dict[str, Ms]:
        return {tenant: line.touched_at for tenant, line in self.lines.items()}

    def waiting(self) -> dict[str, list[HeldJob]]:
        """Return the first jobs of each tenant."""
        return {tenant: self.heads[tenant].jobs for tenant in self.lines}

    async def read_heads(self, ctx: SchedulingContext, now: Ms, *, opens: bool) -> None:
        """Read the heads of the tenants that come next if the cause `opens`; of all that may be empty in any case."""
        positions = self.fair.positions()
        may_be_empty = {tenant for tenant, line in self.lines.items() if now - line.touched_at >= LINGER_MS or tenant in self.empty_since}
        tenants = sorted(self.lines, key=lambda tenant: positions.get(tenant, 0.0))[:MAX_TENANTS] if opens else []
        stale = [tenant for tenant in {*tenants, *may_be_empty} if self.heads[tenant].is_stale(now)]
        stale.sort(key=lambda tenant: self.heads[tenant].read_at)  # all take turns
        await asyncio.gather(*(ctx.offload(self.heads[tenant].read, ctx, self.cause, tenant, now) for tenant in stale[:MAX_TENANTS]))

    async def remove_empty(self, ctx: SchedulingContext, now: Ms) -> None:
        """Delete the rows of lines in which two looks found no job, if nobody has written the row since
        the first one (protocol rule 27: the row before the record). The time between the looks is
        this loop's own: other clocks may be wrong.
        """
        for tenant, line in list(self.lines.items()):
            if not self.heads[tenant].is_empty:
                self.empty_since.pop(tenant, None)
                continue
            read_at = self.heads[tenant].read_at
            since = self.empty_since.setdefault(tenant, read_at)
            if read_at - since < QUIET_MS:
                continue
            if await ctx.offload(ctx.lines.remove, line):
                del self.lines[tenant], self.heads[tenant], self.empty_since[tenant]
                self.fair.leave(tenant)
            else:
                self.heads[tenant].is_empty = False
                self.empty_since.pop(tenant)

    async def save_positions(self, ctx: SchedulingContext, now: Ms) -> None:
        if now - self.saved_at < POSITION_MS:
            return
        positions = self.fair.positions()
        moved = [line for tenant, line in self.lines.items() if tenant in positions and positions[tenant] != line.position]
        for line in moved[:MAX_TENANTS]:
            await ctx.offload(ctx.lines.save_position, line, positions[line.tenant])
        self.saved_at = now
