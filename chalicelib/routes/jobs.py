"""`/jobs`: submit, estimate, list, change, cancel, retry."""

from __future__ import annotations

from typing import Any

from chalice import Blueprint

from chalicelib import wiring
from chalicelib.domain.errors import Forbidden
from chalicelib.domain.identity import Caller, Role
from chalicelib.domain.job import Job
from chalicelib.domain.submission import Submission
from chalicelib.domain.units import dollars, rfc3339, seconds
from chalicelib.routes import parse, schemas, shapes
from chalicelib.routes.http import REPLAYED, Answer, Request, endpoint
from chalicelib.routes.result import result_answer
from chalicelib.usecases.authenticate import issue_ticket
from chalicelib.usecases.cancel_job import cancel_job
from chalicelib.usecases.correspond import check_named, check_recipients
from chalicelib.usecases.edit_job import edit_job
from chalicelib.usecases.hold import hold
from chalicelib.usecases.known_parents import check_parents
from chalicelib.usecases.list_jobs import list_jobs
from chalicelib.usecases.once import Once
from chalicelib.usecases.plan_job import Plan, plan_job
from chalicelib.usecases.retry_job import retry_job, retry_once
from chalicelib.usecases.submit_job import Accepted, find_replay, preliminary, submit_job

blueprint = Blueprint(__name__)

HOLD_FOR_RESULT = 25  # seconds
TICKET_LASTS_MS = 900_000


@endpoint(blueprint, "POST", "/jobs", Role.USER)
def submit(request: Request) -> Answer:
    """Submit a job."""
    have, data = wiring.adapters(), request.json()
    accepted = _accepted(request, data)
    headers = REPLAYED if accepted.replayed else {}
    if data.get("async") is False:
        ended = hold(wiring.holding(), HOLD_FOR_RESULT, lambda: _ended(accepted.job.id))
        if ended is not None:
            answer = result_answer(ended, have.results)
            if answer.status == 200:
                return Answer(body=answer.body, headers=headers)
    body = shapes.accepted(accepted, have.endpoints.get("ws_url"), preliminary(wiring.job_type, accepted))
    if data.get("ticket"):
        body["ticket"], _ = issue_ticket(have.tickets, have.clock, request.caller, frozenset({accepted.job.id}), TICKET_LASTS_MS)
    return Answer(status=202, body=body, headers=headers)


def _accepted(request: Request, data: dict[str, Any]) -> Accepted:
    """The job: of the first such request if this one repeats it, whatever has become of its fields since."""
    intake, key = wiring.intake(), parse.idempotency_key(request)
    found = find_replay(intake, request.caller, key, data) if key is not None else None
    if found is not None:
        return found
    asked = parse.submission(data, intake.clock.now())
    return submit_job(intake, request.caller, asked, _plan(request.caller, asked), key=key, request=data)


def _plan(caller: Caller, submission: Submission) -> Plan:
    """What it means, if all that it names may be named."""
    have, office = wiring.adapters(), wiring.post_office()
    check_recipients(office, caller.tenant, submission.webhook_url, submission.notify)
    check_parents(have.jobs, caller, submission.depends_on)
    depth = have.queues.depth(submission.priority)
    plan = plan_job(wiring.job_type, have.prices, caller, submission, depth, wiring.known_speeds().get)
    if plan.kind.recipients_of is not None:
        check_named(office, caller.tenant, plan.kind.recipients_of(submission.input))
    return plan


@endpoint(blueprint, "POST", "/jobs/estimate", Role.USER)
def estimate(request: Request) -> Answer:
    """What a submission would cost and take; nothing is created."""
    have = wiring.adapters()
    asked = parse.submission(request.json(), have.clock.now())
    planned = _plan(request.caller, asked)
    expected = planned.estimate
    return Answer(
        body={
            "job_type": planned.kind.name,
            "model": shapes.model(planned.body.config.model),
            "queue": f"{planned.kind.name}:{asked.priority}",
            "queue_position": have.queues.depth(asked.priority) + 1,
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
    page = list_jobs(have.jobs, request.caller, parse.filters(request), limit, request.query.get("cursor"), wiring.rows_of)
    ws_url = have.endpoints.get("ws_url")
    rows = [shapes.record(job, None, ws_url, content=request.caller.may_read_content(job)) for job in page.jobs]
    return Answer(body={"data": rows, "next_cursor": page.next_cursor, "scanned_until": rfc3339(page.scanned_until)})


@endpoint(blueprint, "PATCH", "/jobs/{job_id}", Role.USER)
def change(request: Request, job_id: str) -> Answer:
    """Change a job that has not ended: its start, its expiry, its lane, its tags, its metadata."""
    have = wiring.adapters()
    wanted, metadata = parse.change(request.json(), have.clock.now())
    job = _mine(request, job_id)
    changed = edit_job(wiring.editor(), job, wanted, metadata, parse.versions(request))
    shape = shapes.record(changed, have.job_specs.get(job.id), have.endpoints.get("ws_url"), content=True)
    return Answer(body=shape, headers={"ETag": shapes.etag(changed)})


@endpoint(blueprint, "DELETE", "/jobs/{job_id}", Role.USER)
@endpoint(blueprint, "POST", "/jobs/{job_id}/cancel", Role.USER)
def cancel(request: Request, job_id: str) -> Answer:
    """Cancel a job: 202 while it stops, 200 if it had ended."""
    have = wiring.adapters()
    job = _mine(request, job_id)
    if job.status.is_terminal:
        return Answer(body=_status_shape(job))
    cancelled = cancel_job(have.clock, have.jobs, have.subscriptions, job)
    return Answer(status=200 if cancelled.status.is_terminal else 202, body=_status_shape(cancelled))


@endpoint(blueprint, "POST", "/jobs/{job_id}/retry", Role.USER)
def retry(request: Request, job_id: str) -> Answer:
    """Start a retrying job now, or a new run of one that did not complete.

    With `run` or an Idempotency-Key a repeated request changes nothing.
    """
    have, data = wiring.adapters(), parse.check(schemas.RETRY, request.json())
    job, key = _mine(request, job_id), parse.idempotency_key(request)
    if key is None:
        again = retry_job(have.clock, have.jobs, have.job_specs, have.queues, job, data.get("run"))
        return Answer(status=202, body=_status_shape(again))
    once = Once.of(request.caller, "POST /jobs/{job_id}/retry", key, [job.id, data])
    retried = retry_once(have.clock, have.jobs, have.job_specs, have.queues, job, data.get("run"), once)
    return Answer(status=202, body=_status_shape(retried.job), headers=REPLAYED if retried.replayed else {})


def _mine(request: Request, job_id: str) -> Job:
    """A job that the caller may act on; a ticket may not."""
    if request.caller.read_only:
        raise Forbidden("A ticket only reads.")
    return request.caller.require_readable(wiring.adapters().jobs.get(job_id), job_id)


def _status_shape(job: Job) -> dict[str, Any]:
    return shapes.status(job, None, None, wiring.adapters().clock.now())


def _ended(job_id: str) -> Job | None:
    job = wiring.adapters().jobs.get(job_id)
    return job if job is not None and job.status.is_terminal else None
