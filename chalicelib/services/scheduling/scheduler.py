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
from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import dataclass, field
from functools import partial

from chalicelib.domain.errors import Unavailable, UnreadableRecord
from chalicelib.domain.jobs.job_type import NO_MODEL
from chalicelib.domain.jobs.queue_routing import release_queue
from chalicelib.domain.limits.circuit_breaker import CircuitBreaker
from chalicelib.domain.limits.fair_queue import FairQueue
from chalicelib.domain.limits.held_job import HeldJob
from chalicelib.domain.limits.pauses import Pause, PauseBoard
from chalicelib.domain.limits.rate_limit import RateLimit, effective
from chalicelib.domain.limits.releases import choose_releases, job_cost, standing
from chalicelib.domain.limits.sliding_window import Limits
from chalicelib.domain.queues.causes import BUCKETS, MISSING_KEY, CauseKind, kind_of, subject_of
from chalicelib.domain.queues.lanes import READY
from chalicelib.domain.queues.release_room import MAX_WAITING, ReleaseRoom
from chalicelib.domain.queues.wakeup import Grant, WakeUp
from chalicelib.domain.units import Ms
from chalicelib.ports import Line, Shard
from chalicelib.services.scheduling.context import SchedulingContext
from chalicelib.services.scheduling.heads import Heads
from chalicelib.services.scheduling.openings import RECHECK_MS, ROUND_MS, WAVE, Facts, Opening, Trials, opening_of
from chalicelib.services.scheduling.type_lines import TypeRoom, count_starts, free_of_tenants, read_room, uncount_starts, weights_of
from chalicelib.services.scheduling.visits import MAX_DELAY_MS, SELF_SERVED, Call, ShardMessage, wake_shard

LEASE_MS, RENEW_SECONDS = 6_000, 2.0
SAFE_MS = 2_000  # a loop whose lease ends sooner releases nothing
RUN_MS = 100_000  # of one invocation; the next one continues
NET_MS, NET_DELAY_MS = 20_000, 25_000  # how often a loop sends itself a message, and with which delay: it finds the loop alive, or goes on
ROWS_MS = 2_000  # how often the lines are read
FACTS_MS = 1_000  # how often the facts about causes are read
KEY_MS = 15_000  # how often it is looked whether there is an OpenAI key
QUIET_MS = 30_000  # between two looks that found no job in a line, after which its row is deleted
SLEEP_MS = 20_000  # a loop ends if no cause can be over sooner
LINGER_MS = 5_000  # and if no job was held for so long
IN_FLIGHT_MS = 2_000  # how long after its release a job may not have taken its slot yet
MAX_TENANTS = 32  # of a cause that are looked at in one round
UNSEEN_MS = 3_000  # how long the depth of a queue may not show yet what was sent
SUSPICIOUS_RELEASES = 3  # after so many releases the record of a job is read: perhaps it is in no line any more
POSITION_MS = 10_000  # how often the virtual times of a cause are stored


@dataclass(slots=True)
class _Queue:
    """The lines of one cause, as a loop knows them."""

    cause: str
    lines: dict[str, Line] = field(default_factory=dict)  # by tenant
    heads: dict[str, Heads] = field(default_factory=dict)
    fair: FairQueue = field(default_factory=FairQueue)
    trials: Trials = field(default_factory=Trials)
    probed: dict[str, Ms] = field(default_factory=dict)
    sent: list[Ms] = field(default_factory=list)  # when jobs were released that have perhaps not taken their slots yet
    empty_since: dict[str, Ms] = field(default_factory=dict)  # tenant: when its line was first found empty, with the row as it is
    next_at: Ms = 0
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


class ShardLoop:
    """One invocation that serves a shard."""

    def __init__(self, ctx: SchedulingContext, number: int, until: Ms) -> None:
        self._ctx, self._number = ctx, number
        self._until = min(until, ctx.clock.now() + RUN_MS)
        self._shard = Shard(number=number, owner=ctx.new_id(), until=0)
        self._queues: dict[str, _Queue] = {}
        self._facts, self._facts_at, self._key_at = Facts(), 0, 0
        self._board: PauseBoard | None = None  # None: not read yet
        self._pauses: dict[str, tuple[int, tuple[Pause, ...]]] = {}  # by tenant, with the version of the board
        self._rows_at, self._net_at = 0, 0
        self._looked_at = 0  # when the last look at everything began
        self._lease, self._has_ended = asyncio.Lock(), False  # its lease is not renewed when it was given up
        self._ready = ReleaseRoom()
        self._sent: list[Ms] = []  # when wake-ups were sent that the depth of the queue does not show yet

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
        ctx, known, facts = self._ctx, set(self._queues), copy(self._facts)
        await self._give_up_lease()
        self._looked_at = ctx.clock.now()
        if known:
            await self._read_facts(self._looked_at, again=True)
        await self._read_lines(ctx.clock.now(), again=True)
        if self._queues.keys() <= known and self._facts == facts:
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
        self._queues = {cause: self._queues.get(cause) or _Queue(cause) for cause in by_cause}
        for cause, lines in by_cause.items():
            self._queues[cause].refresh(lines, weights)
        self._rows_at = now

    async def _read_facts(self, now: Ms, *, again: bool = False) -> None:
        if not again and now - self._facts_at < FACTS_MS:
            return
        ctx = self._ctx
        await self._read_circuits()
        if any(kind_of(cause) is CauseKind.RATE for cause in self._queues):
            await self._read_rates()
        if MISSING_KEY in self._queues and not self._facts.has_key and now - self._key_at >= KEY_MS:
            self._facts.has_key, self._key_at = await ctx.provider.is_configured(), now
            if not self._facts.has_key:
                ctx.log("openai_not_configured")
        await self._read_pauses(now)
        self._facts_at = now

    async def _read_rates(self) -> None:
        """Read the rate limits of all models. If they cannot be read none is known: attempts must tell."""
        limits: list[RateLimit] = []
        try:
            limits = await self._ctx.offload(self._ctx.rates.limits)
        except Exception as exc:  # noqa: BLE001 - no fault of the store may stop jobs
            self._ctx.log("rate_limits_unavailable", error=exc)
        self._facts.rates = {limit.model: limit for limit in limits}

    async def _read_circuits(self) -> None:
        """Read the circuits of all models, and the board of the pauses with them.

        If they cannot be read, circuits count as closed (protocol: if in doubt the circuit is
        closed), and the last board stays.
        """
        circuits: list[CircuitBreaker] = []
        try:
            circuits, board = await self._ctx.offload(self._ctx.circuit_breakers.all_with_board)
            self._board = board or self._board
        except Exception as exc:  # noqa: BLE001 - no fault of the store may stop jobs
            self._ctx.log("circuit_breakers_unavailable", error=exc)
        self._facts.circuits = {circuit.model: circuit for circuit in circuits}

    async def _read_pauses(self, now: Ms) -> None:
        """Read the pauses of the tenants that have lines of pauses, again when the board has changed:
        both change together.
        """
        ctx, board = self._ctx, self._board
        if board is None:
            return
        lines = [queue.lines for queue in self._queues.values() if kind_of(queue.cause) is CauseKind.PAUSE]
        tenants = {tenant for line in lines for tenant in line}
        self._pauses = {tenant: known for tenant, known in self._pauses.items() if tenant in tenants and known[0] == board.version}
        unread = sorted(tenant for tenant in tenants - set(self._pauses) if board.may_concern(tenant, now))
        for start in range(0, len(unread), MAX_TENANTS):
            read = [partial(ctx.pauses.of_tenant, tenant, consistent=True) for tenant in unread[start : start + MAX_TENANTS]]
            try:
                for record in await asyncio.gather(*map(ctx.offload, read)):
                    self._pauses[record.tenant] = board.version, record.pauses
            except (Unavailable, UnreadableRecord) as exc:  # the lines of tenants whose pauses are unknown stay closed
                ctx.log("pauses_unavailable", tenants=len(unread), error=exc)
        unconcerned = {tenant: () for tenant in tenants if not board.may_concern(tenant, now)}
        self._facts.pauses = board.pauses
        self._facts.tenant_pauses = {**{tenant: pauses for tenant, (_, pauses) in self._pauses.items()}, **unconcerned}

    async def _visit_all(self) -> None:
        ctx, now = self._ctx, self._ctx.clock.now()
        await self._read_facts(now)
        for queue in list(self._queues.values()):
            try:
                await self._visit(queue)
            except Unavailable as exc:  # of one cause must not stop the others
                queue.next_at = now + FACTS_MS
                ctx.log("line_not_served", cause=queue.cause, error=exc)

    async def _visit(self, queue: _Queue) -> None:
        """Release the jobs of a cause that may start now, and delete the rows of lines that are empty."""
        ctx, now = self._ctx, self._ctx.clock.now()
        if kind_of(queue.cause) is CauseKind.TYPE:
            await self._visit_type(queue, now)
            return
        opening = opening_of(ctx, self._facts, queue.cause, queue.trials, queue.touched(), queue.probed, now)
        queue.next_at = opening.next_at
        await self._read_heads(queue, opening, now)
        if opening.jobs and self._may_release(now):
            room = await self._room(now)
            released = await self._release_some(queue, opening, min(opening.jobs, room), now)
            if released:
                queue.trials.released_at = now
        await self._remove_empty(queue, now)
        if queue.lines and now - queue.saved_at >= POSITION_MS:
            await self._save_positions(queue, now)

    async def _visit_type(self, queue: _Queue, now: Ms) -> None:
        """Release as many jobs of a type as its limits allow, and count their starts."""
        ctx, name = self._ctx, subject_of(queue.cause)
        room = await ctx.offload(read_room, ctx, name, now)
        queue.sent = [at for at in queue.sent if now - at < IN_FLIGHT_MS]
        free = 0 if room is None else WAVE if room.free is None else room.free - len(queue.sent)
        queue.next_at = now + (ROUND_MS if room is not None else RECHECK_MS)
        await self._read_heads(queue, Opening(max(0, free), queue.next_at), now)
        if room is not None and free > 0 and self._may_release(now):
            most_of = await ctx.offload(free_of_tenants, ctx, list(queue.lines))
            heads = {tenant: queue.heads[tenant].jobs for tenant in queue.lines}
            most = min(free, WAVE, await self._room(now))
            chosen = choose_releases(queue.fair, heads, room.frames, room.limits, now, most, most_of)
            jobs = await self._count_starts(queue, room, chosen.jobs, now)
            counted = {job.job_id: Grant(queue.cause, now) for job in jobs} if room.limits.requests is not None else None
            await self._send([job for job in jobs if await self._may_send(queue, job, now)], counted)
            queue.sent += [now] * len(jobs)
            if chosen.next_at is not None:
                queue.next_at = max(queue.next_at, chosen.next_at)
        await self._remove_empty(queue, now)
        if queue.lines and now - queue.saved_at >= POSITION_MS:
            await self._save_positions(queue, now)

    async def _count_starts(self, queue: _Queue, room: TypeRoom, jobs: list[HeldJob], now: Ms) -> list[HeldJob]:
        """Count the starts of jobs, and return those that still fit: others have started meanwhile."""
        ctx, name = self._ctx, subject_of(queue.cause)
        if room.limits.requests is None or not jobs:
            return jobs
        frames = await ctx.offload(count_starts, ctx, name, len(jobs), now)
        fitting = standing(jobs, frames, room.limits, now)
        if fitting < len(jobs):
            await ctx.offload(uncount_starts, ctx, name, len(jobs) - fitting, now)
        for job in jobs[fitting:]:
            queue.fair.refund(job.tenant, job_cost(job, room.limits), job.lane)
        return jobs[:fitting]

    async def _may_send(self, queue: _Queue, job: HeldJob, now: Ms) -> bool:
        """Note that a job is released, and look at its record if it was released again and again."""
        return queue.heads[job.tenant].release(job, now) < SUSPICIOUS_RELEASES or await self._is_in_line(job)

    async def _read_heads(self, queue: _Queue, opening: Opening, now: Ms) -> None:
        """Read the heads of the tenants that come next; of all if the line may be empty."""
        ctx, positions = self._ctx, queue.fair.positions()
        may_be_empty = {tenant for tenant, line in queue.lines.items() if now - line.touched_at >= LINGER_MS or tenant in queue.empty_since}
        tenants = sorted(queue.lines, key=lambda tenant: positions.get(tenant, 0.0))[:MAX_TENANTS] if opening.jobs else []
        stale = [tenant for tenant in {*tenants, *may_be_empty} if queue.heads[tenant].is_stale(now)]
        stale.sort(key=lambda tenant: queue.heads[tenant].read_at)  # all take turns
        await asyncio.gather(*(ctx.offload(queue.heads[tenant].read, ctx, queue.cause, tenant, now) for tenant in stale[:MAX_TENANTS]))

    def _may_release(self, now: Ms) -> bool:
        return self._shard.until - now >= SAFE_MS and now < self._until

    async def _room(self, now: Ms) -> int:
        """Return how many more jobs the queue `ready` may take, so that no grant expires in it."""
        ctx = self._ctx
        self._sent = [at for at in self._sent if now - at < UNSEEN_MS]
        depth: int = await ctx.offload(ctx.queues.depth, READY.name)
        return self._ready.room(depth, now) if depth else max(0, MAX_WAITING - len(self._sent))

    async def _release_some(self, queue: _Queue, opening: Opening, limit: int, now: Ms) -> int:
        """Release up to so many jobs of a cause. Returns how many."""
        rate = self._facts.rates.get(subject_of(queue.cause)) if kind_of(queue.cause) is CauseKind.RATE else None
        allowed = effective(rate, now) if rate is not None else Limits()
        if rate is None or (allowed.requests is None and allowed.tokens is None):
            return await self._release(queue, opening, limit, now)
        return await self._release_within(queue, rate, limit, now)

    async def _release_within(self, queue: _Queue, rate: RateLimit, limit: int, now: Ms) -> int:
        """Release the next jobs that fit into the rate limits of their model, each with a grant.

        They are chosen by the frames as they are, then taken all at once; those that do not fit any
        more, because others have asked meanwhile, are given back and stay.
        """
        ctx, allowed = self._ctx, effective(rate, now)
        frames = await ctx.offload(ctx.rates.frames, rate.account, rate.model, now)
        heads = {tenant: queue.heads[tenant].jobs for tenant in queue.lines}
        most_of = await ctx.offload(free_of_tenants, ctx, list(queue.lines))
        chosen = choose_releases(queue.fair, heads, frames, allowed, now, limit, most_of)
        queue.next_at = chosen.next_at if chosen.next_at is not None else now + ROUND_MS
        kept = chosen.jobs
        if chosen.jobs:
            tokens = sum(job.tokens for job in chosen.jobs)
            frames = await ctx.offload(ctx.rates.take, rate.account, rate.model, tokens, len(chosen.jobs), now)
            kept = chosen.jobs[: standing(chosen.jobs, frames, allowed, now)]
            left = chosen.jobs[len(kept) :]
            if left:
                await ctx.offload(ctx.rates.give_back, rate.account, rate.model, sum(job.tokens for job in left), len(left), now)
                for job in left:
                    queue.fair.refund(job.tenant, job_cost(job, allowed), job.lane)
        grants = {job.job_id: Grant(queue.cause, now, job.tokens) for job in kept}
        released = [job for job in (*kept, *chosen.too_large) if await self._may_send(queue, job, now)]
        await self._send(released, grants)
        return len(released)

    async def _release(self, queue: _Queue, opening: Opening, limit: int, now: Ms) -> int:
        """Send the wake-ups of the next jobs, in a fair order. Returns how many."""
        left = {tenant: opening.by_tenant.get(tenant, limit) for tenant in queue.lines}
        released: list[HeldJob] = []
        while len(released) < limit:
            heads = {tenant: queue.heads[tenant].jobs for tenant in queue.lines if left[tenant] > 0}
            job = queue.fair.next(heads, now)
            if job is None:
                break
            left[job.tenant] -= 1
            queue.fair.charge(job.tenant, 1.0, job.lane)
            if not await self._may_send(queue, job, now):
                continue
            queue.probed[job.tenant] = now
            released.append(job)
        await self._send(released)
        return len(released)

    async def _send(self, jobs: list[HeldJob], grants: Mapping[str, Grant] | None = None) -> None:
        ctx, by_queue = self._ctx, dict[str, list[tuple[WakeUp, str]]]()
        for job in jobs:
            name = release_queue(job.lane, is_task=job.model == NO_MODEL, crashes=job.crashes)
            grant = grants.get(job.job_id) if grants is not None else None
            by_queue.setdefault(name, []).append((WakeUp(job.job_id, job.generation, grant), job.tenant))
        for name, wake_ups in by_queue.items():
            await ctx.offload(ctx.queues.send_released, name, wake_ups)
        sent = len(by_queue.get(READY.name, ()))
        self._ready.sent(sent)
        self._sent += [ctx.clock.now()] * sent

    async def _is_in_line(self, job: HeldJob) -> bool:
        """Whether a job that was released again and again is still held; if not, take it out of the index."""
        ctx = self._ctx
        record = await ctx.offload(ctx.jobs.get, job.job_id)
        if record is not None and record.is_in_line:
            return True
        if record is not None:
            await ctx.offload(ctx.lines.forget, record)
        return False

    async def _remove_empty(self, queue: _Queue, now: Ms) -> None:
        """Delete the rows of lines in which two looks found no job, if nobody has written the row since
        the first one (protocol rule 27: the row before the record). The time between the looks is
        this loop's own: other clocks may be wrong.
        """
        ctx = self._ctx
        for tenant, line in list(queue.lines.items()):
            if not queue.heads[tenant].is_empty:
                queue.empty_since.pop(tenant, None)
                continue
            read_at = queue.heads[tenant].read_at
            since = queue.empty_since.setdefault(tenant, read_at)
            if read_at - since < QUIET_MS:
                continue
            if await ctx.offload(ctx.lines.remove, line):
                del queue.lines[tenant], queue.heads[tenant], queue.empty_since[tenant]
                queue.fair.leave(tenant)
            else:
                queue.heads[tenant].is_empty = False
                queue.empty_since.pop(tenant)
        if not queue.lines:
            del self._queues[queue.cause]

    async def _save_positions(self, queue: _Queue, now: Ms) -> None:
        ctx, positions = self._ctx, queue.fair.positions()
        moved = [line for tenant, line in queue.lines.items() if tenant in positions and positions[tenant] != line.position]
        for line in moved[:MAX_TENANTS]:
            await ctx.offload(ctx.lines.save_position, line, positions[line.tenant])
        queue.saved_at = now


async def serve_shard(ctx: SchedulingContext, message: ShardMessage, until: Ms) -> None:
    """Serve the shard that a message names, if the message counts; see `ShardLoop.run`."""
    shard = await ctx.offload(ctx.lines.shard, message.shard)
    if message.counts(shard, ctx.clock.now()):
        await ShardLoop(ctx, message.shard, until).run()
