"""Release held jobs: one loop for each shard of causes, which runs only while jobs wait.

A loop serves its shard under a lease. In each round it looks at the causes that may be over, takes
the next jobs of their lines in a fair order, and sends their wake-ups to the queue `ready`. A
release writes no record: the generation stays, so a job that is released twice is claimed once, and
one whose wake-up is lost is still in its line and is released again.

A loop that finds no line gives up its lease and reads the lines once more. One whose causes cannot
be over for a while sends itself a message for that time and ends. While it goes on it sends a
delayed message ahead, so one that dies is followed by the next within half a minute. And the sweep
wakes each shard that has lines and no loop. Messages say when they count (`visits.py`), or they
would multiply while a cause lasts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from copy import copy

from chalicelib.domain.errors import Unavailable
from chalicelib.domain.limits.rate_limit import effective
from chalicelib.domain.queues.causes import BUCKETS, CauseKind, kind_of, subject_of
from chalicelib.domain.units import Ms
from chalicelib.ports import Line, Shard
from chalicelib.services.scheduling.cause_queue import LINGER_MS, CauseQueue
from chalicelib.services.scheduling.context import SchedulingContext
from chalicelib.services.scheduling.facts import FACTS_MS, FactReader
from chalicelib.services.scheduling.openings import RECHECK_MS, ROUND_MS, WAVE, opening_of
from chalicelib.services.scheduling.releaser import Releaser
from chalicelib.services.scheduling.type_lines import read_room, weights_of
from chalicelib.services.scheduling.visits import MAX_DELAY_MS, SELF_SERVED, Call, ShardMessage, wake_shard

LEASE_MS, RENEW_SECONDS = 6_000, 2.0
SAFE_MS = 2_000  # a loop whose lease ends sooner releases nothing
RUN_MS = 100_000  # of one invocation; the next one continues
NET_MS, NET_DELAY_MS = 20_000, 25_000  # how often a loop sends itself a message, and with which delay: it finds the loop alive, or goes on
ROWS_MS = 2_000  # how often the lines are read
SLEEP_MS = 20_000  # a loop ends if no cause can be over sooner, and no job was held a moment ago


class ShardLoop:
    """One invocation that serves a shard."""

    def __init__(self, ctx: SchedulingContext, number: int, until: Ms) -> None:
        self._ctx, self._number = ctx, number
        self._until = min(until, ctx.clock.now() + RUN_MS)
        self._shard = Shard(number=number, owner=ctx.new_id(), until=0)
        self._queues: dict[str, CauseQueue] = {}
        self._facts, self._releaser = FactReader(ctx), Releaser(ctx)
        self._rows_at, self._net_at = 0, 0
        self._looked_at = 0  # when the last look at everything began
        self._lease, self._has_ended = asyncio.Lock(), False  # its lease is not renewed when it was given up

    async def run(self) -> None:
        """Serve the shard until nothing waits, nothing can start for a while, or the time is over. Nothing
        is done if another loop serves it.
        """
        if not await self._renew():
            return
        heartbeat = asyncio.create_task(self._keep_lease())
        try:
            await self._serve()
        finally:
            heartbeat.cancel()
            await asyncio.gather(heartbeat, return_exceptions=True)

    async def _serve(self) -> None:
        ctx = self._ctx
        while (now := ctx.clock.now()) < self._until:
            await self._read_lines(now)
            if not self._queues and await self._end():
                return
            await self._visit_all()
            next_at = min((queue.next_at for queue in self._queues.values()), default=now)
            if next_at > ctx.clock.now() + SLEEP_MS and self._is_quiet(now) and await self._end():
                await self._sleep_until(min(next_at, now + MAX_DELAY_MS))
                return
            if now >= self._net_at:
                await ctx.offload(wake_shard, ctx, ShardMessage(self._number, Call.WATCH), now + NET_DELAY_MS)
                self._net_at = now + NET_MS
            await asyncio.sleep(ROUND_MS / 1000)
        await self._give_up_lease()
        await ctx.offload(wake_shard, ctx, ShardMessage(self._number, at=ctx.clock.now()))

    def _is_quiet(self, now: Ms) -> bool:
        """Whether no job was held a moment ago, and no line seems to be empty. While jobs come, a loop
        that is there is cheaper than a message for each; and to see that a line is empty takes a while.
        """
        touched = (line.touched_at for queue in self._queues.values() for line in queue.lines.values())
        return now - max(touched, default=0) >= LINGER_MS and not any(queue.empty_since for queue in self._queues.values())

    async def _end(self) -> bool:
        """Give up the lease, then look once more at the facts and at the lines (protocol rule 30: the
        lease before the last look). Whoever held a job, or asked for a visit, meanwhile saw that the
        shard is served.

        Returns: whether the loop may end, because there is nothing that it has not looked at.
        """
        ctx, known, facts = self._ctx, set(self._queues), copy(self._facts.facts)
        await self._give_up_lease()
        self._looked_at = ctx.clock.now()
        if known:
            await self._facts.read(self._tenants(), self._looked_at, again=True)
        await self._read_lines(ctx.clock.now(), again=True)
        if self._queues.keys() <= known and self._facts.facts == facts:
            return True
        self._has_ended = not await self._renew()
        return self._has_ended

    async def _give_up_lease(self) -> None:
        async with self._lease:
            self._has_ended = True
            await self._ctx.offload(self._ctx.lines.release_shard, self._shard)

    async def _sleep_until(self, at: Ms) -> None:
        """Say until when nothing may start, then send the message for that time. If the shard is served
        by another loop meanwhile, that one decides.
        """
        ctx = self._ctx
        asleep = Shard(number=self._number, owner=self._shard.owner, until=0, asleep_until=at, since=self._looked_at)
        if await ctx.offload(ctx.lines.acquire_shard, asleep, ctx.clock.now()):
            await ctx.offload(wake_shard, ctx, ShardMessage(self._number, Call.TIMER, at), at)

    async def _renew(self) -> bool:
        ctx, now = self._ctx, self._ctx.clock.now()
        shard = Shard(number=self._number, owner=self._shard.owner, until=now + LEASE_MS)
        if not await ctx.offload(ctx.lines.acquire_shard, shard, now):
            return False
        self._shard = shard
        return True

    async def _keep_lease(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                async with self._lease:
                    if not self._has_ended and not await self._renew():
                        self._until = 0  # another loop serves the shard
            except Unavailable as exc:
                self._ctx.log("scheduler_lease_not_renewed", shard=self._number, error=exc)

    async def _read_lines(self, now: Ms, *, again: bool = False) -> None:
        """Read which lines there are, every two seconds."""
        ctx = self._ctx
        if not again and now - self._rows_at < ROWS_MS:
            return
        buckets = range(self._number, BUCKETS, ctx.scheduler_shards)
        rows = [line for lines in await asyncio.gather(*(ctx.offload(ctx.lines.rows, bucket) for bucket in buckets)) for line in lines]
        by_cause: dict[str, list[Line]] = {}
        for line in rows:
            if kind_of(line.cause) is not SELF_SERVED:
                by_cause.setdefault(line.cause, []).append(line)
        weights = await ctx.offload(weights_of, ctx, {line.tenant for line in rows})
        self._queues = {cause: self._queues.get(cause) or CauseQueue(cause) for cause in by_cause}
        for cause, lines in by_cause.items():
            self._queues[cause].refresh(lines, weights)
        self._rows_at = now

    def _tenants(self) -> dict[str, Collection[str]]:
        return {cause: queue.tenants for cause, queue in self._queues.items()}

    async def _visit_all(self) -> None:
        ctx, now = self._ctx, self._ctx.clock.now()
        await self._facts.read(self._tenants(), now)
        for queue in list(self._queues.values()):
            try:
                await (self._visit_type if kind_of(queue.cause) is CauseKind.TYPE else self._visit)(queue, ctx.clock.now())
                await queue.remove_empty(ctx, now)
                await queue.save_positions(ctx, now)
            except Unavailable as exc:  # of one cause must not stop the others
                queue.next_at = now + FACTS_MS
                ctx.log("line_not_served", cause=queue.cause, error=exc)
            if not queue.lines:
                del self._queues[queue.cause]

    async def _visit(self, queue: CauseQueue, now: Ms) -> None:
        """Release the jobs of a cause that may start now."""
        ctx, facts = self._ctx, self._facts.facts
        opening = opening_of(ctx, facts, queue.cause, queue.trials, queue.touched(), queue.probed, now)
        queue.next_at = opening.next_at
        await queue.read_heads(ctx, now, opens=opening.jobs > 0)
        if not opening.jobs or not self._may_release(now):
            return
        limit = min(opening.jobs, await self._releaser.room(now))
        rate = facts.rates.get(subject_of(queue.cause)) if kind_of(queue.cause) is CauseKind.RATE else None
        if rate is not None and effective(rate, now).is_limited:
            released = await self._releaser.release_within(queue, rate, limit, now)
        else:
            released = await self._releaser.release(queue, opening, limit, now)
        if released:
            queue.trials.released_at = now

    async def _visit_type(self, queue: CauseQueue, now: Ms) -> None:
        """Release as many jobs of a type as its limits allow, and count their starts."""
        ctx = self._ctx
        room = await ctx.offload(read_room, ctx, subject_of(queue.cause), now)
        free = self._releaser.free_slots(queue, room, now) if room is not None else 0
        queue.next_at = now + (ROUND_MS if room is not None else RECHECK_MS)
        await queue.read_heads(ctx, now, opens=free > 0)
        if room is not None and free and self._may_release(now):
            await self._releaser.release_of_type(queue, room, min(free, WAVE, await self._releaser.room(now)), now)

    def _may_release(self, now: Ms) -> bool:
        return self._shard.until - now >= SAFE_MS and now < self._until


async def serve_shard(ctx: SchedulingContext, message: ShardMessage, until: Ms) -> None:
    """Serve the shard that a message names, if the message counts; see `ShardLoop.run`."""
    shard = await ctx.offload(ctx.lines.shard, message.shard)
    if message.counts(shard, ctx.clock.now()):
        await ShardLoop(ctx, message.shard, until).run()
