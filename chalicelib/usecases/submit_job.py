"""Accept a job: the body, then its head with all that guards against doubles in one transaction, then the wake-up [24]."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from chalicelib.domain.errors import AlreadyPointed, AlreadyRemembered, IdempotencyConflict, QueueFull, Throttled, Unavailable
from chalicelib.domain.identity import Caller
from chalicelib.domain.job import Job, Ms, Status
from chalicelib.domain.submission import Submission
from chalicelib.domain.transitions import KEEP_COMPLETED_DAYS, LOOK_AFTER_QUEUED_MS
from chalicelib.domain.units import DAY_MS
from chalicelib.domain.wakeup import WakeUp
from chalicelib.ports import Bodies, Clock, Idempotency, Jobs, Queues
from chalicelib.usecases.engine import Log
from chalicelib.usecases.plan_job import Plan

ROUNDS = 5


@dataclass(frozen=True, kw_only=True)
class Intake:
    """What accepting a job needs from outside."""

    clock: Clock
    log: Log
    jobs: Jobs
    bodies: Bodies
    queues: Queues
    new_id: Callable[[], str]
    queue_limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """`position` and `wait_ms` as they were at the submission; a replay answers with the first ones."""

    job: Job
    position: int
    replayed: bool = False
    deduplicated: bool = False


def submit_job(intake: Intake, caller: Caller, submission: Submission, plan: Plan, *, key: str | None, request: Any) -> Accepted:
    """Accept `plan`, or find the job that this request has made already.

    `key` is the caller's Idempotency-Key and `request` what it stands for.

    Raises:
        IdempotencyConflict: the key stands for another request.
        QueueFull: the lane holds as many jobs as it may.
        Unavailable: nothing was accepted.
    """
    scope, fingerprint = f"{caller.tenant}#POST /jobs", _fingerprint(request)
    for _ in range(ROUNDS):
        found = _replayed(intake, scope, key, fingerprint) if key else None
        if found is not None:
            return found
        pointed = intake.jobs.pointed(caller.tenant, submission.dedupe_key) if submission.dedupe_key else None
        present = intake.jobs.get(pointed) if pointed else None
        if present is not None and not present.status.is_terminal:
            return Accepted(job=present, position=0, deduplicated=True)
        position = intake.queues.depth(submission.priority) + 1
        if position > intake.queue_limit:
            raise QueueFull(
                f"The {submission.priority} lane holds {position - 1} jobs, as many as it may. Try again later.", retry_after=30
            )
        try:
            return _accept(intake, caller, submission, plan, position, pointed, _row(intake, scope, key, fingerprint, position))
        except (AlreadyRemembered, AlreadyPointed):
            continue
    raise Throttled


def _accept(
    intake: Intake, caller: Caller, submission: Submission, plan: Plan, position: int, pointed: str | None, row: Idempotency | None
) -> Accepted:
    job = new_job(f"job_{intake.new_id()}", caller, submission, plan, intake.clock.now())
    keep = (job.expires_at + KEEP_COMPLETED_DAYS * DAY_MS) // 1000
    intake.bodies.put(job.id, job.tenant, plan.body, keep)
    intake.jobs.create(job, row, pointed)
    try:
        intake.queues.send(job.lane, WakeUp(job.id, job.generation), job.tenant)
    except Unavailable as exc:  # it is accepted all the same: the record is due and will be looked at
        intake.log("a wake-up was not sent", job_id=job.id, tenant=job.tenant, error=exc)
    return Accepted(job=job, position=position)


def new_job(job_id: str, caller: Caller, submission: Submission, plan: Plan, now: Ms) -> Job:
    """The head of a job as it is accepted."""
    config = plan.body.config
    return Job(
        id=job_id,
        tenant=caller.tenant,
        user=plan.user,
        key_id=caller.key_id,
        type=plan.kind.name,
        lane=submission.priority,
        model=config.model,
        status=Status.QUEUED,
        created_at=now,
        queued_at=now,
        updated_at=now,
        expires_at=now + round(config.expires_in * 1000),
        retry_until=now + round(config.retry_for * 1000),
        due_at=now + LOOK_AFTER_QUEUED_MS,
        max_attempts=config.max_attempts,
        estimated_cost=plan.estimate.expected_cost,
        max_cost=plan.estimate.max_cost,
        estimated_ms=plan.estimate.duration_ms - plan.estimate.wait_ms,
        tags=submission.tags,
        dedupe_key=submission.dedupe_key,
    )


def _replayed(intake: Intake, scope: str, key: str, fingerprint: str) -> Accepted | None:
    remembered = intake.jobs.remembered(scope, key, intake.clock.now())
    if remembered is None:
        return None
    if remembered.fingerprint != fingerprint:
        raise IdempotencyConflict
    job = intake.jobs.get(remembered.job_id)
    if job is None:  # deleted since: the key is free again only when its day is over
        raise IdempotencyConflict("This Idempotency-Key stands for a job that has been deleted. Use a new key.")
    return Accepted(job=job, position=remembered.position, replayed=True)


def _row(intake: Intake, scope: str, key: str | None, fingerprint: str, position: int) -> Idempotency | None:
    if key is None:
        return None
    return Idempotency(scope=scope, key=key, fingerprint=fingerprint, position=position, expires_at=intake.clock.now() + DAY_MS)


def _fingerprint(request: Any) -> str:
    return sha256(json.dumps(request, sort_keys=True, ensure_ascii=True).encode()).hexdigest()
