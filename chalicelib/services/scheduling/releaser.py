"""Release held jobs: choose the next ones of a cause, take what they use, and send their wake-ups.

Jobs that wait for a rate or for the limits of their type are chosen by what is known to be free, then
all that they use is taken at once. Those that do not fit any more, because others have asked
meanwhile, are given back and stay.
"""

from __future__ import annotations

from collections.abc import Mapping

from chalicelib.domain.jobs.job_type import NO_MODEL
from chalicelib.domain.jobs.queue_routing import release_queue
from chalicelib.domain.limits.held_job import HeldJob
from chalicelib.domain.limits.rate_limit import RateLimit, effective
from chalicelib.domain.limits.releases import choose_releases, job_cost, standing
from chalicelib.domain.queues.causes import subject_of
from chalicelib.domain.queues.lanes import READY
from chalicelib.domain.queues.release_room import MAX_WAITING, ReleaseRoom
from chalicelib.domain.queues.wakeup import Grant, WakeUp
from chalicelib.domain.units import Ms
from chalicelib.services.scheduling.cause_queue import CauseQueue
from chalicelib.services.scheduling.context import SchedulingContext
from chalicelib.services.scheduling.openings import ROUND_MS, WAVE, Opening
from chalicelib.services.scheduling.type_lines import TypeRoom, count_starts, free_of_tenants, uncount_starts

IN_FLIGHT_MS = 2_000  # how long after its release a job may not have taken its slot yet
UNSEEN_MS = 3_000  # how long the depth of a queue may not show yet what was sent
SUSPICIOUS_RELEASES = 3  # after so many releases the record of a job is read: perhaps it is in no line any more


class Releaser:
    """Releases the jobs of all causes of a loop."""

    def __init__(self, ctx: SchedulingContext) -> None:
        self._ctx = ctx
        self._ready = ReleaseRoom()
        self._sent: list[Ms] = []  # when wake-ups were sent that the depth of the queue does not show yet

    async def room(self, now: Ms) -> int:
        """Return how many more jobs the queue `ready` may take, so that no grant expires in it."""
        ctx = self._ctx
        self._sent = [at for at in self._sent if now - at < UNSEEN_MS]
        depth: int = await ctx.offload(ctx.queues.depth, READY.name)
        return self._ready.room(depth, now) if depth else max(0, MAX_WAITING - len(self._sent))

    async def release(self, queue: CauseQueue, opening: Opening, limit: int, now: Ms) -> int:
        """Send the wake-ups of the next jobs, in a fair order. Returns how many."""
        left = {tenant: opening.by_tenant.get(tenant, limit) for tenant in queue.tenants}
        released: list[HeldJob] = []
        while len(released) < limit:
            heads = {tenant: jobs for tenant, jobs in queue.waiting().items() if left[tenant] > 0}
            job = queue.fair.next(heads, now)
            if job is None:
                break
            left[job.tenant] -= 1
            queue.fair.charge(job.tenant, 1.0, job.lane, job.user)
            if not await self._may_send(queue, job, now):
                continue
            queue.probed[job.tenant] = now
            released.append(job)
        await self._send(released)
        return len(released)

    async def release_within(self, queue: CauseQueue, rate: RateLimit, limit: int, now: Ms) -> int:
        """Release the next jobs that fit into the rate limits of their model, each with a grant.

        They are chosen by the frames as they are, then taken all at once; those that do not fit any
        more, because others have asked meanwhile, are given back and stay.
        """
        ctx, allowed = self._ctx, effective(rate, now)
        frames = await ctx.offload(ctx.rates.frames, rate.account, rate.model, now)
        most_of = await ctx.offload(free_of_tenants, ctx, queue.tenants)
        chosen = choose_releases(queue.fair, queue.waiting(), frames, allowed, now, limit, most_of)
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
                    queue.fair.refund(job.tenant, job_cost(job, allowed), job.lane, job.user)
        grants = {job.job_id: Grant(queue.cause, now, job.tokens) for job in kept}
        released = [job for job in (*kept, *chosen.too_large) if await self._may_send(queue, job, now)]
        await self._send(released, grants)
        return len(released)

    def free_slots(self, queue: CauseQueue, room: TypeRoom, now: Ms) -> int:
        """Return how many jobs of a type may be released now, those not counted that are on their way."""
        queue.sent = [at for at in queue.sent if now - at < IN_FLIGHT_MS]
        return WAVE if room.free is None else max(0, room.free - len(queue.sent))

    async def release_of_type(self, queue: CauseQueue, room: TypeRoom, limit: int, now: Ms) -> None:
        """Release the next jobs that have a slot of their type and may start in this minute."""
        most_of = await self._ctx.offload(free_of_tenants, self._ctx, queue.tenants)
        chosen = choose_releases(queue.fair, queue.waiting(), room.frames, room.limits, now, limit, most_of)
        jobs = await self._count_starts(queue, room, chosen.jobs, now)
        counted = {job.job_id: Grant(queue.cause, now) for job in jobs} if room.limits.requests is not None else None
        await self._send([job for job in jobs if await self._may_send(queue, job, now)], counted)
        queue.sent += [now] * len(jobs)
        if chosen.next_at is not None:
            queue.next_at = max(queue.next_at, chosen.next_at)

    async def _count_starts(self, queue: CauseQueue, room: TypeRoom, jobs: list[HeldJob], now: Ms) -> list[HeldJob]:
        """Count the starts of jobs, and return those that still fit: others have started meanwhile."""
        ctx, name = self._ctx, subject_of(queue.cause)
        if room.limits.requests is None or not jobs:
            return jobs
        frames = await ctx.offload(count_starts, ctx, name, len(jobs), now)
        fitting = standing(jobs, frames, room.limits, now)
        if fitting < len(jobs):
            await ctx.offload(uncount_starts, ctx, name, len(jobs) - fitting, now)
        for job in jobs[fitting:]:
            queue.fair.refund(job.tenant, job_cost(job, room.limits), job.lane, job.user)
        return jobs[:fitting]

    async def _may_send(self, queue: CauseQueue, job: HeldJob, now: Ms) -> bool:
        """Note that a job is released, and look at its record if it was released again and again."""
        return queue.heads[job.tenant, job.by_user].release(job, now) < SUSPICIOUS_RELEASES or await self._is_in_line(job)

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
