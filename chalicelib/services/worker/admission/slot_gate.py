"""Look for free slots of the concurrency limits that concern a job: of its type, its tenant and its user.

Its claim takes them. A job without limits makes no request. The numbers may be a moment old; the
claim decides. A job that comes anew stands behind those of its tenant that wait for a slot, so that
the order is kept. One that stands in another line does not: those that wait for a slot stand behind
those of that line, and if each stood behind the other none would start.
"""

from __future__ import annotations

from collections.abc import Mapping

from chalicelib.domain.jobs.job import Job
from chalicelib.domain.jobs.job_type import JobType
from chalicelib.domain.limits.admission import HoldReason, WaitUntil
from chalicelib.domain.limits.slots import SlotLimit, slot_keys, type_scope, user_scope
from chalicelib.domain.queues.causes import CauseKind, cause_of
from chalicelib.services.scheduling.slot_lines import has_line
from chalicelib.services.worker.context import WorkerContext

NEARLY_FULL = 4  # a line is looked for if at most this part of the slots, or two, is free


async def slot_gate(ctx: WorkerContext, kind: JobType, job: Job) -> Mapping[str, int] | WaitUntil:
    """Return the slots that the claim of the job has to take, or that it waits for one.

    If it waits for several, it stands in the line of its type, which all tenants share.

    Raises:
        Unavailable: the limits, or how many slots are taken, could not be read.
    """
    found: Mapping[str, int] | WaitUntil = await ctx.offload(_look, ctx, kind, job)
    return found


def wait_for_slot(job: Job, scope: str) -> WaitUntil:
    """Return that a job waits for a slot of a scope. When one becomes free is not known."""
    if scope == type_scope(job.type):
        return WaitUntil(None, HoldReason.TYPE_CONCURRENCY, _cause_of(job, scope))
    is_user = scope == user_scope(job.tenant, job.user)
    reason = HoldReason.USER_CONCURRENCY if is_user else HoldReason.TENANT_CONCURRENCY
    return WaitUntil(None, reason, _cause_of(job, scope))


def _look(ctx: WorkerContext, kind: JobType, job: Job) -> Mapping[str, int] | WaitUntil:
    limits = ctx.limits_of(job.tenant).slots_of(job.user)
    if kind.limits is not None and kind.limits.concurrency is not None:
        limits = [SlotLimit(scope=type_scope(kind.name), limit=kind.limits.concurrency), *limits]
    if not limits:
        return {}
    taken = ctx.jobs.slots_taken([key for limit in limits for key in limit.keys])
    found = slot_keys(job.id, limits, taken)
    if isinstance(found, str):
        return wait_for_slot(job, found)
    for limit in limits:
        if _others_wait(ctx, job, limit, taken):
            return wait_for_slot(job, limit.scope)
    return found.limits


def _others_wait(ctx: WorkerContext, job: Job, limit: SlotLimit, taken: Mapping[str, int]) -> bool:
    """Whether jobs of the tenant wait for a slot of a scope, and this one comes anew."""
    cause = _cause_of(job, limit.scope)
    if job.is_in_line or limit.free(taken) > max(2, limit.limit // NEARLY_FULL):
        return False
    return has_line(ctx, cause, job.tenant)


def _cause_of(job: Job, scope: str) -> str:
    if scope == type_scope(job.type):
        return cause_of(CauseKind.TYPE, job.type)
    return cause_of(CauseKind.SLOTS, scope)
