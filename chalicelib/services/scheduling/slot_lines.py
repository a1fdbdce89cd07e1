"""Release the jobs that wait for a free slot of their tenant or user.

No loop serves these lines. Whoever gives a slot back looks at the line, after the write, and sends
its next job. Whoever held a job looks once more whether there is a slot, after the write. So each
sees the other, but for the moment by which the index follows the records; for that moment, and for
processes that die, the sweep looks at every line once a minute.

A job that is sent and finds no slot stays in its line. One that is sent twice is claimed once.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from chalicelib.domain.errors import HeadraceError
from chalicelib.domain.jobs.index_keys import LINE_RANKS
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.jobs.job_type import NO_MODEL
from chalicelib.domain.jobs.queue_routing import release_queue
from chalicelib.domain.limits.held_job import HeldJob
from chalicelib.domain.limits.slots import scope_of
from chalicelib.domain.limits.tenant_limits import TenantLimits
from chalicelib.domain.limits.tenant_lines import lines_to_read
from chalicelib.domain.queues.causes import CauseKind, cause_of, subject_of
from chalicelib.domain.queues.wakeup import WakeUp
from chalicelib.domain.units import Ms
from chalicelib.ports import Jobs, Line
from chalicelib.services.scheduling.context import LineContext
from chalicelib.services.scheduling.user_lines import first_held, scan_users

MAX_SENT = 10  # jobs that one end sends; the ends of these send more
USER_PAGES = 3  # of a line by user that are read for one release, from a random user on
SENT_MS = 3_000  # after so long a job that was sent and has not started is sent again first
EXTRA = 5  # jobs read beyond those needed: the index still has some that have just started
QUIET_MS = 600_000  # after the last job was held, the row of an empty line is deleted
SWEPT = 2_000  # jobs of a line that one sweep sends
# How often a lane comes first though better ones have jobs, so that none starves.
FLOORS = (("low", 0.05), ("normal", 0.15), ("high", 0.35))


class SlotLineContext(LineContext, Protocol):
    """What releasing a job for a slot needs."""

    @property
    def jobs(self) -> Jobs: ...
    def limits_of(self, tenant: str) -> TenantLimits: ...
    def random(self) -> float: ...


class SentForSlots:
    """The jobs that this environment has just sent, so that ten ends at once do not send one job ten times."""

    def __init__(self) -> None:
        self._sent: dict[str, tuple[str, Ms]] = {}  # by job: the scope, and when

    def recent(self, scope: str, now: Ms) -> set[str]:
        """Return the jobs that were sent for a slot of the scope and have perhaps not started yet."""
        self._sent = {job_id: sent for job_id, sent in self._sent.items() if 0 <= now - sent[1] < SENT_MS}
        return {job_id for job_id, (of, _) in self._sent.items() if of == scope}

    def add(self, job_ids: Collection[str], scope: str, now: Ms) -> None:
        self._sent |= dict.fromkeys(job_ids, (scope, now))

    def remove(self, job_id: str) -> None:
        self._sent.pop(job_id, None)


def has_line(ctx: SlotLineContext, cause: str, tenant: str) -> bool:
    """Whether jobs of the tenant wait for the cause. One request, or two; see `first_held`."""
    return bool(first_held(ctx, cause, tenant, 1))


def release_after(ctx: SlotLineContext, sent: SentForSlots | None, before: Job, after: Job) -> None:
    """Send the next job of each scope of which `after` has given a slot back. Call it after the write.

    What fails is logged: the sweep looks at the line within a minute.
    """
    for key in set(before.slots) - set(after.slots):
        scope = scope_of(key)
        if not scope.startswith(("t:", "u:")):
            continue
        try:
            release_next(ctx, scope, before.tenant, sent, at_least=1, without=after.id)
        except HeadraceError as exc:
            ctx.log("slot_line_not_served", scope=scope, tenant=before.tenant, error=exc)


def release_held(ctx: SlotLineContext, sent: SentForSlots | None, held: Job) -> None:
    """Look once more whether there is a slot, after a job was held for one."""
    scope = subject_of(held.cause or "")
    if sent is not None:
        sent.remove(held.id)
    try:
        release_next(ctx, scope, held.tenant, sent, held=held)
    except HeadraceError as exc:
        ctx.log("slot_line_not_served", scope=scope, tenant=held.tenant, error=exc)


def release_instead(ctx: SlotLineContext, sent: SentForSlots | None, job: Job) -> None:
    """Send another job for the slot for which this one, `job` as it was held, was sent: it did not take it."""
    scope = subject_of(job.cause or "")
    try:
        release_next(ctx, scope, job.tenant, sent, without=job.id)
    except HeadraceError as exc:
        ctx.log("slot_line_not_served", scope=scope, tenant=job.tenant, error=exc)


def release_next(
    ctx: SlotLineContext,
    scope: str,
    tenant: str,
    sent: SentForSlots | None = None,
    *,
    at_least: int = 0,
    at_most: int = MAX_SENT,
    without: str | None = None,
    held: Job | None = None,
    by_user: bool | None = None,
) -> int:
    """Send as many jobs of a line as there are free slots. Returns how many.

    Args:
        sent: what this environment has just sent; None: it sends so seldom that it does not matter.
        at_least: slots that are known to be free, though the count may not say so yet.
        without: a job that has just ended and that the index may still have.
        held: a job that was just held and that the index may not have yet.
        by_user: only jobs of the line by user, or only of the other one; None: of both, if there are.

    Raises:
        Unavailable: some of them may not have been sent.
    """
    now, cause = ctx.clock.now(), cause_of(CauseKind.SLOTS, scope)
    recent = sent.recent(scope, now) if sent is not None else set()
    limits = ctx.limits_of(tenant)
    limit = limits.slot_limit(scope)
    free = limit.free(ctx.jobs.slots_taken(limit.keys)) if limit is not None else at_most  # without a limit all may start
    if max(free, at_least) <= 0:
        return 0
    lines = lines_to_read(limits, cause) if by_user is None else (by_user,)
    needed = min(at_most, max(free, at_least)) + len(recent)
    first = _first_of_users(ctx, cause, tenant, needed, lines) if True in lines else _first_of(ctx, cause, tenant, needed)
    waiting = [job for job in first if job.job_id != without]
    on_their_way = sum(job.job_id in recent for job in waiting)
    wanted = min(at_most, max(at_least, free - on_their_way))  # rather one too many than none
    chosen = sorted(waiting, key=lambda job: job.job_id in recent)[:wanted]  # what was sent before comes last, not never
    _send(ctx, chosen)
    if held is not None and len(chosen) < wanted and held.id not in {job.job_id for job in chosen}:
        name = release_queue(held.lane, is_task=held.is_task, crashes=held.crashes)
        ctx.queues.send_released(name, [(WakeUp(held.id, held.generation), held.tenant)])
    if sent is not None:
        sent.add([job.job_id for job in chosen], scope, now)
    return len(chosen)


def sweep_slot_line(ctx: SlotLineContext, line: Line) -> int:
    """Send the jobs of a line that have a free slot, and delete the row of an empty line. Returns how many were sent."""
    if not ctx.lines.held(line.cause, line.tenant, 1, by_user=line.by_user):
        if ctx.clock.now() - line.touched_at >= QUIET_MS:
            ctx.lines.remove(line)
        return 0
    return release_next(ctx, subject_of(line.cause), line.tenant, at_most=SWEPT, by_user=line.by_user)


def _first_of(ctx: SlotLineContext, cause: str, tenant: str, wanted: int) -> list[HeldJob]:
    """Return the first jobs of a line; in some cases those of a lower lane first."""
    lane, found = _first_lane(ctx), list[HeldJob]()
    if lane is not None:
        found = ctx.lines.held(cause, tenant, wanted, f"{LINE_RANKS[lane]}#")
    if len(found) < wanted:
        known = {job.job_id for job in found}
        found += [job for job in ctx.lines.held(cause, tenant, wanted + EXTRA) if job.job_id not in known]
    return found


def _first_of_users(ctx: SlotLineContext, cause: str, tenant: str, wanted: int, lines: Collection[bool]) -> list[HeldJob]:
    """Return the first jobs of users in a random order: one of each, then a second one. If there are too
    many users to look at all of them, it looks at some, from a random one on.
    """
    found = ctx.lines.held(cause, tenant, wanted + EXTRA) if False in lines else []
    begin = f"{int(ctx.random() * 16**16):016x}"
    scan = scan_users(ctx.lines, cause, tenant, begin, USER_PAGES)
    found += scan.jobs
    if scan.end is None:  # the others stand before it
        found += scan_users(ctx.lines, cause, tenant, None, USER_PAGES).jobs
    if len(found) < wanted:
        found += ctx.lines.held(cause, tenant, wanted, by_user=True)
    lane, users = _first_lane(ctx), dict[str, dict[str, HeldJob]]()
    for job in sorted(found, key=lambda job: (job.lane != lane, LINE_RANKS.get(job.lane, len(LINE_RANKS)), job.queued_at)):
        users.setdefault(job.user, {})[job.job_id] = job
    turns = [(turn, ctx.random(), job) for jobs in users.values() for turn, job in enumerate(jobs.values())]
    return [job for _, _, job in sorted(turns, key=lambda one: one[:2])[: wanted + EXTRA]]


def _first_lane(ctx: SlotLineContext) -> str | None:
    """Return the lane that comes first this time; None: as always."""
    chance = ctx.random()
    return next((lane for lane, share in FLOORS if chance < share), None)


def _send(ctx: SlotLineContext, jobs: Collection[HeldJob]) -> None:
    by_queue: dict[str, list[tuple[WakeUp, str]]] = {}
    for job in jobs:
        name = release_queue(job.lane, is_task=job.model == NO_MODEL, crashes=job.crashes)
        by_queue.setdefault(name, []).append((WakeUp(job.job_id, job.generation), job.tenant))
    for name, wake_ups in by_queue.items():
        ctx.queues.send_released(name, wake_ups)
