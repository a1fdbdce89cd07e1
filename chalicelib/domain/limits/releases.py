"""Which jobs of the lines of one model are released now: fairly, as many as its rate limits allow.

The scheduler chooses by the frames that it has seen, takes all that it chose with one request, and
releases those that still fit by the answer; others have asked meanwhile. A job that does not fit
yet is not passed by a smaller one, or it might never start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from chalicelib.domain.limits.fair_queue import FairQueue, cost_of
from chalicelib.domain.limits.held_job import HeldJob
from chalicelib.domain.limits.sliding_window import LINE_CEILINGS, Frames, Limits, added, free_at, paced
from chalicelib.domain.units import Ms


@dataclass(frozen=True, slots=True)
class Releases:
    """What `choose_releases` returns; every job has been charged to its tenant."""

    jobs: list[HeldJob]  # to be taken, in order
    too_large: list[HeldJob]  # above a limit alone: released without a grant, so that a worker refuses them
    next_at: Ms | None  # when the next job fits, if no other comes first; None: no job is left, or `most` were chosen


def choose_releases(
    fair: FairQueue,
    heads: Mapping[str, Sequence[HeldJob]],
    frames: Frames,
    limits: Limits,
    now: Ms,
    most: int,
    most_of: Mapping[str, int] | None = None,
) -> Releases:
    """Choose the next jobs by tenant, by user where it shares so, by lane and age, and charge them.

    Args:
        heads: the first jobs of each tenant's line; of tenants that have joined `fair`.
        most_of: how many of a tenant may be released at most; of others as many as `most`.
    """
    rows, left = {tenant: list(jobs) for tenant, jobs in heads.items()}, dict(most_of or {})
    chosen, too_large = list[HeldJob](), list[HeldJob]()
    while len(chosen) + len(too_large) < most:
        job = fair.next({tenant: jobs for tenant, jobs in rows.items() if jobs and left.get(tenant, 1) > 0}, now)
        if job is None:
            return Releases(chosen, too_large, None)
        if limits.can_pass(job.tokens):
            counted = added(frames, now, 1, job.tokens)
            if not _fits(counted, limits, job, now):
                return Releases(chosen, too_large, free_at(frames, limits, job.tokens, now, LINE_CEILINGS.get(job.lane, 1.0)))
            frames = counted
            fair.charge(job.tenant, job_cost(job, limits), job.lane, job.user)
        (chosen if limits.can_pass(job.tokens) else too_large).append(job)
        rows[job.tenant].remove(job)
        if job.tenant in left:
            left[job.tenant] -= 1
    return Releases(chosen, too_large, None)


def standing(jobs: Sequence[HeldJob], frames: Frames, limits: Limits, now: Ms) -> int:
    """Return how many of the chosen jobs, the first ones, may be released by the frames that count all of them.

    The others are given back, and their charges refunded.
    """
    count = len(jobs)
    while count and not _fits(frames, limits, jobs[count - 1], now):
        count -= 1
        frames = added(frames, now, -1, -jobs[count].tokens)
    return count


def job_cost(job: HeldJob, limits: Limits) -> float:
    """Return what a release is charged to its tenant."""
    return cost_of(job.tokens, limits.requests, limits.tokens)


def _fits(frames: Frames, limits: Limits, job: HeldJob, now: Ms) -> bool:
    return paced(frames, limits, job.tokens, now, LINE_CEILINGS.get(job.lane, 1.0))
