"""`/jobs`: submit, list, read, cancel, retry."""

from __future__ import annotations

import re
from typing import Any

from chalice import Blueprint

from chalicelib import job_types, wiring
from chalicelib.domain.errors import Forbidden, ResultExpired
from chalicelib.domain.identity import Caller, Role
from chalicelib.domain.job import Job, Status
from chalicelib.domain.transcript import Chunk
from chalicelib.domain.units import dollars, rfc3339, seconds
from chalicelib.routes import parse, schemas, shapes
from chalicelib.routes.http import Answer, Request, endpoint
from chalicelib.usecases.authenticate import issue_ticket
from chalicelib.usecases.cancel_job import cancel_job
from chalicelib.usecases.hold import hold
from chalicelib.usecases.list_jobs import list_jobs
from chalicelib.usecases.plan_job import Plan, plan_job
from chalicelib.usecases.read_text import read_text
from chalicelib.usecases.retry_job import retry_job
from chalicelib.usecases.submit_job import submit_job

blueprint = Blueprint(__name__)

HOLD_FOR_RESULT = 25  # seconds
LONGEST_WAIT = 20
RETRY_AFTER = "2"
LARGEST_RESULT = 4_000_000  # bytes of text in one answer


def plan(caller: Caller, request: parse.SubmitRequest) -> Plan:
    have, submission = wiring.adapters(), request.submission
    return plan_job(job_types.get, have.prices, caller, submission, have.queues.depth(submission.priority))


@endpoint(blueprint, "POST", "/jobs", Role.USER)
def submit(request: Request) -> Answer:
    """Submit a job."""
    have, data = wiring.adapters(), request.json()
    asked = parse.submit_request(data, have.clock.now())
    planned = plan(request.caller, asked)
    key = parse.idempotency_key(request)
    accepted = submit_job(wiring.intake(), request.caller, asked.submission, planned, key=key, request=data)
    headers = {"Idempotent-Replayed": "true"} if accepted.replayed else {}
    if asked.wait:
        ended = hold(wiring.holding(), HOLD_FOR_RESULT, lambda: _ended(accepted.job.id))
        if ended is not None:
            return Answer(body=shapes.result(ended, have.results.get(ended.id, ended.attempt)), headers=headers)
    body = shapes.accepted(accepted, planned.body, have.endpoints.get("ws_url"))
    if asked.ticket:
        body["ticket"], _ = issue_ticket(have.tickets, have.clock, request.caller, frozenset({accepted.job.id}), 900_000)
    return Answer(status=202, body=body, headers=headers)


@endpoint(blueprint, "POST", "/jobs/estimate", Role.USER)
def estimate(request: Request) -> Answer:
    """What a submission would cost and take; nothing is created."""
    have = wiring.adapters()
    asked = parse.submit_request(request.json(), have.clock.now())
    planned = plan(request.caller, asked)
    expected = planned.estimate
    return Answer(
        body={
            "job_type": planned.kind.name,
            "model": planned.body.config.model,
            "queue": f"{planned.kind.name}:{asked.submission.priority}",
            "queue_position": have.queues.depth(asked.submission.priority) + 1,
            "estimated_input_tokens": expected.input_tokens,
            "estimated_output_tokens": expected.output_tokens,
            "estimated_cost": dollars(expected.expected_cost),
            "max_cost": dollars(expected.max_cost),
            "currency": "USD",
            "estimated_duration_seconds": seconds(expected.duration_ms),
            "estimated_completion_at": rfc3339(have.clock.now() + expected.duration_ms),
        }
    )


@endpoint(blueprint, "GET", "/jobs", Role.VIEWER)
def listing(request: Request) -> Answer:
    """List jobs, newest first."""
    have = wiring.adapters()
    limit = parse.number(request, "limit", 20, 1, 100)
    page = list_jobs(have.jobs, request.caller, parse.filters(request), limit, request.query.get("cursor"))
    ws_url = have.endpoints.get("ws_url")
    rows = [shapes.record(job, None, ws_url, content=request.caller.may_read_content(job)) for job in page.jobs]
    return Answer(body={"data": rows, "next_cursor": page.next_cursor, "scanned_until": rfc3339(page.scanned_until)})


@endpoint(blueprint, "GET", "/jobs/{job_id}", Role.VIEWER)
def read(request: Request, job_id: str) -> Answer:
    """A job's record; `?include=prompt` for its content."""
    have = wiring.adapters()
    job = _held(request, job_id)
    if _unchanged(request, job):
        return _not_modified(job)
    content = request.caller.may_read_content(job)
    body = have.bodies.get(job.id) if content else None
    prompt = "prompt" in request.query.get("include", "").split(",")
    shape = shapes.record(job, body, have.endpoints.get("ws_url"), content=content, prompt=prompt)
    return Answer(body=shape, headers={"ETag": _etag(job)})


@endpoint(blueprint, "GET", "/jobs/{job_id}/status", Role.VIEWER)
def status(request: Request, job_id: str) -> Answer:
    """How a job stands, in short."""
    job = _held(request, job_id)
    last = _last(job)
    if _unchanged(request, job, last):
        return _not_modified(job, last)
    shape = shapes.status(job, last, _position(job), wiring.adapters().clock.now())
    return Answer(body=shape, headers={"ETag": _etag(job, last)})


@endpoint(blueprint, "GET", "/jobs/{job_id}/progress", Role.VIEWER)
def progress(request: Request, job_id: str) -> Answer:
    """How far a job has come: stages, milestones, figures."""
    job = _held(request, job_id)
    last = _last(job)
    if _unchanged(request, job, last):
        return _not_modified(job, last)
    content = request.caller.may_read_content(job)
    shape = shapes.progress(job, last, _position(job), wiring.adapters().clock.now(), content=content)
    return Answer(body=shape, headers={"ETag": _etag(job, last)})


@endpoint(blueprint, "GET", "/jobs/{job_id}/progress-history", Role.USER)
def progress_history(request: Request, job_id: str) -> Answer:
    """The stages and milestones of the last attempt, in order."""
    job = _content(request, job_id)
    chunks = wiring.adapters().chunks.read(job.id, job.attempt) if job.attempt else []
    events = [event for chunk in chunks for event in chunk.events]
    return Answer(body={"job_id": job.id, "attempt": job.attempt, "data": events, "next_cursor": None})


@endpoint(blueprint, "GET", "/jobs/{job_id}/text", Role.USER)
def text(request: Request, job_id: str) -> Answer:
    """The transcript from an offset on, held for more with `?wait=`."""
    have = wiring.adapters()
    offset = parse.number(request, "offset", 0, 0, 10**10)
    attempt = parse.number(request, "attempt", 0, 0, 10**9) or None
    wait = parse.number(request, "wait", 0, 0, LONGEST_WAIT)
    job = _content(request, job_id)

    def look() -> dict[str, Any] | None:
        now = have.jobs.get(job.id) or job
        part = read_text(have.chunks, have.results, now, offset, attempt)
        if not part.text and not part.done and wait and (attempt or now.attempt) == now.attempt:
            have.watchers.note_reader(job.id, have.clock.now() + 5_000)
            return None
        return {"attempt": part.attempt, "offset": offset, "text": part.text, "next_offset": part.next_offset, "done": part.done}

    found = hold(wiring.holding(), wait, look)
    empty = {"attempt": attempt or job.attempt, "offset": offset, "text": "", "next_offset": offset, "done": False}
    return Answer(body={"job_id": job.id, "status": (have.jobs.get(job.id) or job).status.value, **(found or empty)})


@endpoint(blueprint, "GET", "/jobs/{job_id}/result", Role.USER)
def result(request: Request, job_id: str) -> Answer:
    """The result; 202 while there is none yet."""
    have = wiring.adapters()
    job = _content(request, job_id)
    if not job.status.is_terminal:
        shape = shapes.status(job, _last(job), _position(job), have.clock.now())
        return Answer(status=202, body=shape, headers={"Retry-After": RETRY_AFTER})
    kept = have.results.get(job.id, job.attempt) if job.attempt else None
    if kept is None and job.length:
        raise ResultExpired
    return Answer(body=shapes.result(job, kept))


@endpoint(blueprint, "GET", "/jobs/{job_id}/attempts", Role.USER)
def attempts(request: Request, job_id: str) -> Answer:
    """The ledger of a job's attempts."""
    job = _content(request, job_id)
    kept = wiring.adapters().results.attempts(job.id)
    return Answer(body={"job_id": job.id, "data": [shapes.attempt(one) for one in kept], "next_cursor": None})


@endpoint(blueprint, "DELETE", "/jobs/{job_id}", Role.USER)
@endpoint(blueprint, "POST", "/jobs/{job_id}/cancel", Role.USER)
def cancel(request: Request, job_id: str) -> Answer:
    """Cancel a job: 202 while it stops, 200 if it had ended."""
    have = wiring.adapters()
    job = _mine(request, job_id)
    if job.status.is_terminal:
        return Answer(body=_status_shape(job))
    cancelled = cancel_job(have.clock, have.jobs, have.watchers, job)
    return Answer(status=200 if cancelled.status.is_terminal else 202, body=_status_shape(cancelled))


@endpoint(blueprint, "POST", "/jobs/{job_id}/retry", Role.USER)
def retry(request: Request, job_id: str) -> Answer:
    """Start a retrying job now, or a new run of one that did not complete. With `run`, a repeated request changes nothing."""
    have = wiring.adapters()
    data = parse.check(schemas.RETRY, request.json())
    again = retry_job(have.clock, have.jobs, have.bodies, have.queues, _mine(request, job_id), data.get("run"))
    return Answer(status=202, body=_status_shape(again))


def _status_shape(job: Job) -> dict[str, Any]:
    return shapes.status(job, None, None, wiring.adapters().clock.now())


def _ended(job_id: str) -> Job | None:
    job = wiring.adapters().jobs.get(job_id)
    return job if job is not None and job.status.is_terminal else None


def _content(request: Request, job_id: str) -> Job:
    return request.caller.check_reads(wiring.adapters().jobs.get(job_id), job_id)


def _mine(request: Request, job_id: str) -> Job:
    """A job that the caller may act on; a ticket may not."""
    if request.caller.read_only:
        raise Forbidden("A ticket only reads.")
    return _content(request, job_id)


def _held(request: Request, job_id: str) -> Job:
    """The job; with `?wait=` once it has changed since the version that If-None-Match names, or since now."""
    caller, jobs = request.caller, wiring.adapters().jobs
    job = caller.check_sees(jobs.get(job_id), job_id)
    wait = parse.number(request, "wait", 0, 0, LONGEST_WAIT)
    if not wait or job.status.is_terminal or not _matches(request, job):
        return job
    later = hold(wiring.holding(), wait, lambda: _if_newer(jobs.get(job_id), job.version))
    return later or job


def _if_newer(job: Job | None, version: int) -> Job | None:
    return job if job is not None and job.version > version else None


def _position(job: Job) -> int | None:
    """About where a queued job stands: behind what waits in its lane."""
    return max(1, wiring.adapters().queues.depth(job.lane)) if job.status is Status.QUEUED else None


def _last(job: Job) -> Chunk | None:
    return wiring.adapters().chunks.last(job.id, job.attempt) if job.attempt else None


def _etag(job: Job, last: Chunk | None = None) -> str:
    return f'"v{job.version}.{last.end}"' if last else f'"v{job.version}"'


def _matches(request: Request, job: Job) -> bool:
    """Whether the client has seen this version: by its ETag, or by naming none."""
    seen = request.headers.get("if-none-match")
    return seen is None or re.search(rf'"v{job.version}[."]', seen) is not None


def _unchanged(request: Request, job: Job, last: Chunk | None = None) -> bool:
    seen = request.headers.get("if-none-match")
    return seen is not None and _etag(job, last) in [tag.strip().removeprefix("W/") for tag in seen.split(",")]


def _not_modified(job: Job, last: Chunk | None = None) -> Answer:
    return Answer(status=304, headers={"ETag": _etag(job, last)})
