"""Accept a job: the body, then its head with all that guards against doubles in one transaction, then the wake-up [24]."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from chalicelib.domain.auth.identity import Caller
from chalicelib.domain.errors import (
    DedupeConflict,
    IdempotencyConflict,
    IdempotencyKeyTaken,
    JobTypeNotFound,
    QueueFull,
    Throttled,
    Unavailable,
)
from chalicelib.domain.jobs.job import DEPENDENCIES, START_LATER, Job, Status
from chalicelib.domain.jobs.job_type import JobType
from chalicelib.domain.jobs.spec import JobSpec
from chalicelib.domain.jobs.submission import Submission
from chalicelib.domain.jobs.transitions import (
    COMPLETED_RETENTION_DAYS,
    QUEUED_CHECK_DELAY_MS,
    first_check_at,
    is_claimable,
    waits_for_parents,
)
from chalicelib.domain.units import DAY_MS, Ms
from chalicelib.ports import IdempotencyRecord
from chalicelib.services.context import JobContext
from chalicelib.services.dependencies.release_dependents import DependencyContext, record_dependencies, resolve_dependencies
from chalicelib.services.idempotency import IdempotentRequest
from chalicelib.services.jobs.plan_job import Plan
from chalicelib.services.wake_up import try_send_wake_up

ROUTE = "POST /jobs"
ROUNDS = 5


class SubmitContext(JobContext, DependencyContext, Protocol):
    """What accepting a job needs. `max_lane_depth`: messages that a lane may hold, of all tenants together."""

    def new_id(self) -> str: ...
    @property
    def max_lane_depth(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """`position` as it was at the submission, 0 where a job was found; a replay answers with the first one.

    `body` is what the job was asked, None where that is no longer kept.
    """

    job: Job
    body: JobSpec | None
    position: int
    replayed: bool = False
    deduplicated: bool = False


def find_replay(ctx: SubmitContext, caller: Caller, key: str, request: Any) -> Accepted | None:
    """The first answer to this very request, if it was sent before with this key: asked before anything else, even its validity.

    Whoever repeats a request may have got no answer because its wake-up could not be sent; so it is sent again.

    Raises:
        IdempotencyConflict: the key stands for another request.
        JobNotFound: the caller may not read the job any more.
    """
    remembered = IdempotentRequest.of(caller, ROUTE, key, request).lookup(ctx.jobs, ctx.clock.now())
    if remembered is None:
        return None
    job = ctx.jobs.get(remembered.job_id)
    if job is None:  # deleted since: the key is free again only when its day is over
        raise IdempotencyConflict("This Idempotency-Key stands for a job that has been deleted. Use a new key.")
    caller.require_readable(job, job.id)
    if is_claimable(job) and job.generation == 1:
        try_send_wake_up(ctx, job)
    job = _link_dependencies(ctx, job)
    position = remembered.position
    return Accepted(job=job, body=ctx.job_specs.get(job.id), position=position, replayed=True, deduplicated=position == 0)


def submit_job(ctx: SubmitContext, caller: Caller, submission: Submission, plan: Plan, *, key: str | None, request: Any) -> Accepted:
    """Accept `plan`, or find the user's unfinished job with the same dedupe key.

    `key` is the caller's Idempotency-Key and `request` what it stands for; `find_replay` has been asked before.

    Raises:
        IdempotencyConflict: the key stands for another request.
        QueueFull: the lane holds as many messages as it may.
        Unavailable: nothing was accepted.
    """
    once = IdempotentRequest.of(caller, ROUTE, key, request) if key is not None else None
    for _ in range(ROUNDS):
        try:
            pointed = ctx.jobs.get_by_dedupe_key(caller.tenant, plan.user, plan.dedupe_key) if plan.dedupe_key else None
            found = _unfinished(ctx, caller, pointed)
            if found is not None:
                if once is not None:
                    ctx.jobs.save_idempotency(once.to_record(ctx.clock.now()), found.id, ctx.clock.now())
                return Accepted(job=found, body=ctx.job_specs.get(found.id), position=0, deduplicated=True)
            position = _queue_position(ctx, submission.priority)
            row = once.to_record(ctx.clock.now(), position=position) if once is not None else None
            return _accept(ctx, caller, submission, plan, position, pointed, row)
        except DedupeConflict:
            continue
        except IdempotencyKeyTaken:  # the same request is being answered elsewhere at this moment
            replay = find_replay(ctx, caller, key, request) if key is not None else None
            if replay is not None:
                return replay
    raise Throttled


def preliminary(job_type: Callable[[str], JobType], accepted: Accepted) -> Any:
    """What the type can say of the job at once, without a model; None if it says nothing, or what it was asked is not there, or not yet."""
    try:
        kind = job_type(accepted.job.type)
    except JobTypeNotFound:  # a repeated request may be for a type of a former version
        return None
    body = accepted.body
    if not kind.preliminary or kind.fallback is None or body is None or body.input is None or body.depends_on:
        return None
    return kind.fallback(body.input, body.options)


def _unfinished(ctx: SubmitContext, caller: Caller, pointed: str | None) -> Job | None:
    job = ctx.jobs.get(pointed) if pointed is not None else None
    return caller.require_readable(job, job.id) if job is not None and not job.status.is_terminal else None


def _queue_position(ctx: SubmitContext, lane: str) -> int:
    depth = ctx.queues.depth(lane)
    if depth >= ctx.max_lane_depth:
        raise QueueFull(f"The {lane} lane holds {depth} messages, as many as it may. Try again later, or in another lane.", retry_after=30)
    return depth + 1


def _accept(
    ctx: SubmitContext,
    caller: Caller,
    submission: Submission,
    plan: Plan,
    position: int,
    pointed: str | None,
    row: IdempotencyRecord | None,
) -> Accepted:
    job = new_job(f"job_{ctx.new_id()}", caller, submission, plan, ctx.clock.now())
    keep = (job.expires_at + COMPLETED_RETENTION_DAYS * DAY_MS) // 1000
    ctx.job_specs.put(job.id, job.tenant, plan.body, keep)
    if plan.body.depends_on:
        record_dependencies(ctx, job, plan.body)
    ctx.jobs.create(job, row, pointed)
    if is_claimable(job):
        try_send_wake_up(ctx, job)
    job = _link_dependencies(ctx, job)
    return Accepted(job=job, body=plan.body, position=position)


def _link_dependencies(ctx: SubmitContext, job: Job) -> Job:
    """The head after its parents were told and looked at, if it waits for any: some may have ended already."""
    if not waits_for_parents(job):
        return job
    try:
        return resolve_dependencies(ctx, job)
    except Unavailable as exc:  # it is accepted all the same, and will be looked at
        ctx.log("dependencies_not_resolved", job_id=job.id, tenant=job.tenant, error=exc)
        return job


def new_job(job_id: str, caller: Caller, submission: Submission, plan: Plan, now: Ms) -> Job:
    """The head of a job as it is accepted: queued, or waiting for its parents or its time."""
    config = plan.body.config
    later = submission.run_at if submission.run_at and submission.run_at > now else None
    begins = later or now
    reason = DEPENDENCIES if plan.body.depends_on else START_LATER if later else None
    return Job(
        id=job_id,
        tenant=caller.tenant,
        user=plan.user,
        key_id=caller.key_id,
        type=plan.kind.name,
        lane=submission.priority,
        model=config.model,
        status=Status.WAITING if reason else Status.QUEUED,
        reason=reason,
        resume_at=later,
        created_at=now,
        queued_at=begins,
        updated_at=now,
        expires_at=begins + round(config.expires_in * 1000),
        retry_until=begins + round(config.retry_for * 1000),
        due_at=now + QUEUED_CHECK_DELAY_MS if reason == DEPENDENCIES else first_check_at(begins, now),
        max_attempts=config.max_attempts,
        estimated_cost=plan.estimate.expected_cost,
        max_cost=plan.estimate.max_cost,
        estimated_ms=plan.estimate.duration_ms - plan.estimate.wait_ms,
        tags=submission.tags,
        fallback_models=tuple(config.fallback_models),
        dedupe_key=plan.dedupe_key,
        notifies=bool(plan.body.webhook_url or plan.body.notify),
    )
