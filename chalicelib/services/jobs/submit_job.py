"""Accept a job: write the job spec, then the job record with its idempotency record and dedupe
pointer in one transaction, then send the wake-up (protocol rule 24: object, record, message).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
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
    UnreadableRecord,
)
from chalicelib.domain.jobs.job import DEPENDENCIES, START_LATER, Job, Status
from chalicelib.domain.jobs.job_type import JobType
from chalicelib.domain.jobs.queue_routing import queue_for
from chalicelib.domain.jobs.spec import JobSpec
from chalicelib.domain.jobs.submission import Submission
from chalicelib.domain.jobs.transitions import (
    QUEUED_CHECK_DELAY_MS,
    first_check_at,
    is_claimable,
    spec_ttl,
    waits_for_parents,
)
from chalicelib.domain.metrics.estimate import charged_tokens
from chalicelib.domain.queues.lanes import LANES
from chalicelib.domain.units import Ms
from chalicelib.ports import IdempotencyRecord
from chalicelib.services.context import JobContext
from chalicelib.services.dependencies.release_dependents import DependencyContext, record_dependencies, resolve_dependencies
from chalicelib.services.idempotency import IdempotentRequest
from chalicelib.services.jobs.plan_job import Plan
from chalicelib.services.limits.places import PlaceContext, Places, take_places
from chalicelib.services.wake_up import try_send_wake_up

ROUTE = "POST /jobs"  # in the scope of Idempotency-Keys
MAX_ATTEMPTS = 5  # each lost attempt means that a concurrent submission took the key first


class SubmitContext(PlaceContext, JobContext, DependencyContext, Protocol):
    """What accepting a job needs."""

    def new_id(self) -> str: ...
    @property
    def max_lane_depth(self) -> int:
        """Messages that a queue of jobs may hold, of all tenants together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """An accepted job, or the existing one that answers the request."""

    job: Job
    spec: JobSpec | None  # None: no longer stored
    position: int  # in the queue, at the first submission; 0: an existing job was found
    replayed: bool = False  # the request had been sent before
    deduplicated: bool = False  # the job existed: it has the same dedupe key


def find_replay(ctx: SubmitContext, caller: Caller, key: str, request: Any) -> Accepted | None:
    """Return the answer to an earlier copy of this request; None if it is new. Call it first.

    The wake-up is sent again: the earlier request may have failed before it was sent.

    Raises:
        IdempotencyConflict: the key belongs to another request, or its job was deleted.
        JobNotFound: the caller may not read the job any more.
    """
    result = IdempotentRequest.of(caller, ROUTE, key, request).lookup(ctx.jobs, ctx.clock.now())
    if result is None:
        return None
    job = ctx.jobs.get(result.job_id)
    if job is None:  # deleted since; the key stays in use until its record expires
        raise IdempotencyConflict("This Idempotency-Key belongs to a job that has been deleted. Use a new key.")
    caller.require_readable(job, job.id)
    if is_claimable(job) and job.generation == 1:
        try_send_wake_up(ctx, job)
    job = _resolve_dependencies(ctx, job)
    position = result.position
    return Accepted(job=job, spec=ctx.job_specs.get(job.id), position=position, replayed=True, deduplicated=position == 0)


def submit_job(ctx: SubmitContext, caller: Caller, submission: Submission, plan: Plan, *, key: str | None, request: Any) -> Accepted:
    """Accept `plan`, or return the user's unfinished job with the same dedupe key.

    Call `find_replay` before.

    Args:
        key: the client's Idempotency-Key; None: the request has none.
        request: the request as the client sent it, for the fingerprint.

    Raises:
        IdempotencyConflict: the key belongs to another request.
        QueueFull: the queue of the job holds `max_lane_depth` messages, or its tenant has as many jobs as it may.
        Throttled: concurrent submissions took the keys at each attempt.
        Unavailable: nothing was accepted.
    """
    idempotent_request = IdempotentRequest.of(caller, ROUTE, key, request) if key is not None else None
    for _ in range(MAX_ATTEMPTS):
        try:
            previous = ctx.jobs.get_by_dedupe_key(caller.tenant, plan.user, plan.dedupe_key) if plan.dedupe_key else None
            found = _unfinished(ctx, caller, previous)
            if found is not None:
                if idempotent_request is not None:
                    ctx.jobs.save_idempotency(idempotent_request.to_record(ctx.clock.now()), found.id, ctx.clock.now())
                return Accepted(job=found, spec=ctx.job_specs.get(found.id), position=0, deduplicated=True)
            position = _queue_position(ctx, queue_for(submission.priority, is_task=plan.kind.is_task))
            record = idempotent_request.to_record(ctx.clock.now(), position=position) if idempotent_request is not None else None
            return _accept(ctx, caller, submission, plan, position, previous, record)
        except DedupeConflict:
            continue
        except IdempotencyKeyTaken:  # a concurrent copy of this request came first
            replay = find_replay(ctx, caller, key, request) if key is not None else None
            if replay is not None:
                return replay
    raise Throttled


def preliminary(job_type: Callable[[str], JobType], accepted: Accepted) -> Any:
    """Return the answer that the type can give at once, without a model.

    None: the type has no such answer, the job spec is no longer stored, or the job has parents.
    """
    try:
        kind = job_type(accepted.job.type)
    except JobTypeNotFound:  # a repeated request may name a type that was removed since
        return None
    spec = accepted.spec
    if not kind.preliminary or kind.fallback is None or spec is None or spec.input is None or spec.depends_on:
        return None
    return kind.fallback(spec.input, spec.options)


def _unfinished(ctx: SubmitContext, caller: Caller, job_id: str | None) -> Job | None:
    job = ctx.jobs.get(job_id) if job_id is not None else None
    return caller.require_readable(job, job.id) if job is not None and not job.status.is_terminal else None


def _queue_position(ctx: SubmitContext, queue: str) -> int:
    depth = ctx.queues.depth(queue)
    if depth >= ctx.max_lane_depth:
        name, remedy = (
            (f"{queue} lane", "Try again later, or in another lane.") if queue in LANES else ("queue of tasks", "Try again later.")
        )
        raise QueueFull(f"The {name} holds {depth} messages and is full. {remedy}", retry_after=30)
    return depth + 1


def _accept(
    ctx: SubmitContext,
    caller: Caller,
    submission: Submission,
    plan: Plan,
    position: int,
    previous: str | None,
    idempotency: IdempotencyRecord | None,
) -> Accepted:
    """Store the job. It replaces `previous`, the ended job, in the dedupe pointer."""
    now = ctx.clock.now()
    made = new_job(f"job_{ctx.new_id()}", caller, submission, plan, now)
    shards = ctx.limits_of(made.tenant).shards_at(now)

    def create(places: Places, limits: Mapping[str, int]) -> Job:
        job = replace(made, places=places, shards=shards)
        ctx.job_specs.put(job.id, job.tenant, plan.spec, spec_ttl(job))
        if plan.spec.depends_on:
            record_dependencies(ctx, job, plan.spec)
        ctx.jobs.create(job, idempotency, previous, limits)
        return job

    job = take_places(ctx, made.tenant, made.lane, made.id, create)
    if is_claimable(job):
        try_send_wake_up(ctx, job)
    job = _resolve_dependencies(ctx, job)
    return Accepted(job=job, spec=plan.spec, position=position)


def _resolve_dependencies(ctx: SubmitContext, job: Job) -> Job:
    """Resolve the dependencies, and return the job record: parents may have ended already."""
    if not waits_for_parents(job):
        return job
    try:
        return resolve_dependencies(ctx, job)
    except (Unavailable, UnreadableRecord) as exc:  # the job is accepted, and due for the sweeper
        ctx.log("dependencies_not_resolved", job_id=job.id, tenant=job.tenant, error=exc)
        return job


def new_job(job_id: str, caller: Caller, submission: Submission, plan: Plan, now: Ms) -> Job:
    """Return the record of a new job: queued, or waiting for its parents or its start time."""
    config = plan.spec.config
    later = submission.run_at if submission.run_at and submission.run_at > now else None
    start = later or now
    reason = DEPENDENCIES if plan.spec.depends_on else START_LATER if later else None
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
        queued_at=start,
        updated_at=now,
        expires_at=start + round(config.expires_in * 1000),
        retry_until=start + round(config.retry_for * 1000),
        due_at=now + QUEUED_CHECK_DELAY_MS if reason == DEPENDENCIES else first_check_at(start, now),
        max_attempts=config.max_attempts,
        estimated_cost=plan.estimate.expected_cost,
        max_cost=plan.estimate.max_cost,
        tokens=charged_tokens(plan.estimate, plan.spec.config.max_tokens) if not plan.kind.is_task else 0,
        estimated_ms=plan.estimate.duration_ms - plan.estimate.wait_ms,
        tags=submission.tags,
        fallback_models=tuple(config.fallback_models),
        dedupe_key=plan.dedupe_key,
        notifies=bool(plan.spec.webhook_url or plan.spec.notify),
    )
