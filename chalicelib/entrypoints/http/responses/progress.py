"""JSON of a job's status, progress and history. The field names are public: see docs/api.md."""

from __future__ import annotations

import math

from chalicelib.domain.execution.transcript import Chunk
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.jobs.queue_routing import queue_of
from chalicelib.domain.jobs.transitions import waits_for_parents
from chalicelib.domain.limits.waiting import JobWait
from chalicelib.domain.metrics.estimate import waiting_ms
from chalicelib.domain.metrics.throughput import UNMEASURED, Throughput
from chalicelib.domain.queues.lanes import JOB_QUEUES
from chalicelib.domain.streaming.frames import wait_shape
from chalicelib.domain.units import Ms, parse_rfc3339, rfc3339, seconds
from chalicelib.entrypoints.http.responses.jobs import Shape, first_queued_at, percentage
from chalicelib.entrypoints.http.responses.pauses import job_pause


def status(
    job: Job,
    last: Chunk | None,
    position: int | None,
    now: Ms,
    speed: Throughput = UNMEASURED,
    *,
    wait: JobWait | None = None,
    content: bool = True,
) -> Shape:
    """The status of a job. `speed`: the measured throughput of its type and model; `wait`: what is known of its wait."""
    known = last.progress if last else {}
    remaining = remaining_seconds(job, known, position, now)
    return {
        "job_id": job.id,
        "status": job.status.value,
        "reason": job.reason,
        **wait_shape(job, now, wait),
        "paused": job_pause(job, now, content=content),
        "run": job.run,
        "attempt": job.attempt,
        "progress_percentage": _percentage(job, known),
        "stage": None if job.status.is_terminal else known.get("stage"),
        "queue_position": position,
        "estimated_completion_at": rfc3339(now + round(remaining * 1000)) if remaining is not None else None,
        "estimated_seconds_remaining": remaining,
        "estimated_seconds_remaining_range": remaining_range(job, known, position, now, speed),
        "version": job.version,
    }


def progress(
    job: Job,
    last: Chunk | None,
    position: int | None,
    now: Ms,
    *,
    content: bool,
    speed: Throughput = UNMEASURED,
    wait: JobWait | None = None,
) -> Shape:
    """Status and progress as of the last stored chunk; null for what is not known yet."""
    known = last.progress if last else {}
    stages = known.get("stages", [])
    milestones = known.get("milestones", [])
    if not content:
        milestones = [{**milestone, "description": None} for milestone in milestones]
    return {
        **status(job, last, position, now, speed, wait=wait, content=content),
        "stages": [_closed(stage, job) for stage in stages] if job.status is Status.COMPLETED else stages,
        "milestones": milestones,
        **{
            name: known.get(name)
            for name in ("tokens_received", "estimated_total_tokens", "tokens_per_second", "cost_so_far", "performance_metrics")
        },
    }


def history(job: Job, attempt: int, events: list[Shape]) -> list[Shape]:
    """Events of an attempt (stages, milestones) and of the job's life, in order of time."""
    times = [
        ("created", job.created_at),
        ("queued", None if job.status is Status.WAITING else first_queued_at(job)),
        ("started", job.started_at),
        ("first_token", job.first_token_at if attempt == job.attempt else None),
        (job.status.value, job.finished_at),
    ]
    job_events = [{"kind": "job", "name": name, "at": rfc3339(at)} for name, at in times if at is not None]
    return sorted([*job_events, *events], key=lambda event: str(event.get("at") or event["achieved_at"]))


def _closed(stage: Shape, job: Job) -> Shape:
    """A stage of a completed job, closed: the last chunk is stored before the last stage ends."""
    if stage["status"] == "completed" or job.finished_at is None:
        return stage
    started_at = parse_rfc3339(stage["started_at"]) if stage["started_at"] else job.finished_at
    duration = max(0, job.finished_at - started_at)
    return {**stage, "status": "completed", "started_at": rfc3339(started_at), "duration_seconds": seconds(duration)}


def remaining_seconds(job: Job, known: Shape, position: int | None, now: Ms) -> float | None:
    """Estimated seconds until the job ends, None if they cannot be estimated."""
    if job.status.is_terminal:
        return 0.0
    if known.get("estimated_seconds_remaining") is not None and job.status is Status.PROCESSING:
        return float(known["estimated_seconds_remaining"])
    return None if job.estimated_ms is None or waits_for_parents(job) else _seconds_left(job, job.estimated_ms, position, now)


def remaining_range(job: Job, known: Shape, position: int | None, now: Ms, speed: Throughput) -> list[float] | None:
    """The range that contains the remaining seconds in four of five cases."""
    if job.status.is_terminal:
        return [0.0, 0.0]
    if known.get("estimated_seconds_remaining_range") is not None and job.status is Status.PROCESSING:
        return list(known["estimated_seconds_remaining_range"])
    if job.estimated_ms is None or waits_for_parents(job):
        return None
    low, high = (_seconds_left(job, round(job.estimated_ms * factor), position, now) for factor in speed.duration_range())
    return [math.floor(low * 10) / 10, math.ceil(high * 10) / 10]


def _seconds_left(job: Job, duration: Ms, position: int | None, now: Ms) -> float:
    """Remaining seconds of a job without text yet, if its processing takes `duration`."""
    if job.resume_at is not None:
        return max(0, job.resume_at - now + duration) / 1000
    left = duration - (now - job.started_at if job.status is Status.PROCESSING and job.started_at else 0)
    return max(0, left + (waiting_ms(JOB_QUEUES[queue_of(job)], position - 1) if position else 0)) / 1000


def _percentage(job: Job, known: Shape) -> float | None:
    by_status = percentage(job)
    return by_status if by_status is not None else known.get("progress_percentage", 0)
