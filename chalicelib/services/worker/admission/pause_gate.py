"""Hold back jobs that are paused: by themselves, or with what they have in common with others.

The board of the pauses is read with the circuits. The pauses of a tenant are read only if the board
says that it may have some, and again when the board has changed: both change together. So nothing
is read more while nothing is paused.

If the pauses are unknown, a job waits some seconds, because a pause protects something. Then the
last ones that were read count: no fault of their store may stop jobs.
"""

from __future__ import annotations

import asyncio
from functools import partial

from chalicelib.domain.errors import Unavailable, UnreadableRecord
from chalicelib.domain.jobs import transitions
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.limits.admission import HoldReason, WaitUntil
from chalicelib.domain.limits.pauses import Pause, pause_of, target_of
from chalicelib.services.worker.admission.circuit_gate import load_circuit_breakers
from chalicelib.services.worker.context import WorkerContext

KNOWN_MS = 10_000  # how long the board counts if it cannot be read again
STORE_TIMEOUT_SECONDS = 2.0
FALLBACK_DELAY_MS = 5_000  # how long a job waits at least if the pauses are unknown; twice as long at most


async def pause_gate(ctx: WorkerContext, job: Job) -> WaitUntil | None:
    """Return how long a paused job waits; None: it may start."""
    now = ctx.clock.now()
    if job.pause is not None and transitions.is_paused(job, now):
        return WaitUntil(job.pause.until, HoldReason.PAUSED, transitions.own_cause(job.pause))
    try:
        pauses = await _load_pauses(ctx, job.tenant)
    except (Unavailable, UnreadableRecord, TimeoutError) as exc:
        if (job.status, job.reason) != (Status.HELD, HoldReason.PAUSES_UNKNOWN):
            ctx.log("pauses_unavailable", job_id=job.id, tenant=job.tenant, error=exc)
            return WaitUntil(now + round(FALLBACK_DELAY_MS * (1 + ctx.random())), HoldReason.PAUSES_UNKNOWN)
        pauses = _last_pauses(ctx, job.tenant)
    pause = pause_of(target_of(job), pauses, ctx.clock.now())
    return WaitUntil(pause.until, HoldReason.PAUSED, pause.cause) if pause is not None else None


def _last_pauses(ctx: WorkerContext, tenant: str) -> tuple[Pause, ...]:
    board, known = ctx.local_state.pause_board, ctx.local_state.tenant_pauses.get(tenant)
    return (*(board.pauses if board is not None else ()), *(known[1] if known is not None else ()))


async def _load_pauses(ctx: WorkerContext, tenant: str) -> tuple[Pause, ...]:
    """Return the pauses for everybody and those of a tenant, as old as the circuits at most.

    Raises:
        Unavailable, UnreadableRecord, TimeoutError: they are unknown.
    """
    await load_circuit_breakers(ctx)
    state, now = ctx.local_state, ctx.clock.now()
    board, read_at = state.pause_board, state.pause_board_read_at
    if board is None or read_at is None or not 0 <= now - read_at < KNOWN_MS:
        raise Unavailable
    if not board.may_concern(tenant, now):
        return board.pauses
    known = state.tenant_pauses.get(tenant)
    if known is None or known[0] != board.version:
        async with asyncio.timeout(STORE_TIMEOUT_SECONDS):  # consistently: it is kept as long as the board is unchanged
            record = await ctx.offload(partial(ctx.pauses.of_tenant, tenant, consistent=True))
        known = board.version, record.pauses
        state.tenant_pauses.put(tenant, known)
    return (*board.pauses, *known[1])
