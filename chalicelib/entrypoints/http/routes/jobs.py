"""`/jobs`: submit, estimate, list, change, cancel and retry jobs."""

from __future__ import annotations

from typing import Any

from chalice import Blueprint

from chalicelib.bootstrap import Container
from chalicelib.domain.auth.identity import Caller, Role
from chalicelib.domain.errors import Forbidden
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.jobs.queue_routing import queue_for
from chalicelib.domain.jobs.submission import Submission
from chalicelib.domain.units import dollars, rfc3339, seconds
from chalicelib.entrypoints.http.requests import jobs as job_requests
from chalicelib.entrypoints.http.requests import pauses as pause_requests
from chalicelib.entrypoints.http.requests import schemas
from chalicelib.entrypoints.http.requests.schemas import FILTERS, PAGE
from chalicelib.entrypoints.http.responses import jobs as job_responses
from chalicelib.entrypoints.http.responses import progress as progress_responses
from chalicelib.entrypoints.http.responses.result_response import result_response
from chalicelib.entrypoints.http.server import REPLAYED, ApiRequest, ApiResponse, endpoint
from chalicelib.services.auth.authenticate import issue_ticket
from chalicelib.services.dependencies.check_parents import check_parents
from chalicelib.services.idempotency import IdempotentRequest
from chalicelib.services.jobs.cancel_job import cancel_job
from chalicelib.services.jobs.edit_job import edit_job
from chalicelib.services.jobs.list_jobs import list_jobs
from chalicelib.services.jobs.pause_job import pause_job, resume_job
from chalicelib.services.jobs.plan_job import Plan, plan_job
from chalicelib.services.jobs.retry_job import retry_job, retry_once
from chalicelib.services.jobs.submit_job import Accepted, find_replay, preliminary, submit_job
from chalicelib.services.notifications.settings import check_addresses, check_recipients
from chalicelib.services.streaming.long_polling import long_poll

blueprint = Blueprint(__name__)

RESULT_WAIT_SECONDS = 25
TICKET_TTL_MS = 900_000


@endpoint(blueprint, "POST", "/jobs", Role.USER)
def submit(request: ApiRequest) -> ApiResponse:
    """Submit a job; with `async: false`, wait up to 25 s for its result."""
    ctx, data = request.container, request.json()
    accepted = _accepted(request, data)
    headers = REPLAYED if accepted.replayed else {}
    if data.get("async") is False:
        ended = long_poll(request.container, request.caller.tenant, RESULT_WAIT_SECONDS, lambda: _ended(ctx, accepted.job.id))
        if ended is not None:
            response = result_response(ended, ctx.results)
            if response.status == 200:
                return ApiResponse(body=response.body, headers=headers)
    body = job_responses.accepted(accepted, ctx.endpoints.get("ws_url"), preliminary(ctx.job_type, accepted))
    if data.get("ticket"):
        body["ticket"], _ = issue_ticket(ctx.tickets, ctx.clock, request.caller, frozenset({accepted.job.id}), TICKET_TTL_MS)
    return ApiResponse(status=202, body=body, headers=headers)


def _accepted(request: ApiRequest, data: dict[str, Any]) -> Accepted:
    """The submitted job. A repeated request returns the first one's job, without validation."""
    ctx, key = request.container, job_requests.idempotency_key(request)
    replay = find_replay(ctx, request.caller, key, data) if key is not None else None
    if replay is not None:
        return replay
    submission = job_requests.submission(data, ctx.clock.now())
    return submit_job(ctx, request.caller, submission, _plan(ctx, request.caller, submission), key=key, request=data)


def _plan(ctx: Container, caller: Caller, submission: Submission) -> Plan:
    """Check the recipients and parents that a submission names, and plan the job."""
    check_recipients(ctx, caller.tenant, submission.webhook_url, submission.notify)
    check_parents(ctx.jobs, caller, submission.depends_on)
    depth = ctx.queues.depth(queue_for(submission.priority, is_task=ctx.job_type(submission.job_type).is_task))
    plan = plan_job(ctx.job_type, ctx.prices, caller, submission, depth, ctx.throughput_of)
    if plan.kind.recipients_of is not None:
        check_addresses(ctx, caller.tenant, plan.kind.recipients_of(submission.input))
    return plan


@endpoint(blueprint, "POST", "/jobs/estimate", Role.USER)
def estimate(request: ApiRequest) -> ApiResponse:
    """Estimate the cost and duration of a submission; nothing is created."""
    ctx = request.container
    submission = job_requests.submission(request.json(), ctx.clock.now())
    plan = _plan(ctx, request.caller, submission)
    expected = plan.estimate
    return ApiResponse(
        body={
            "job_type": plan.kind.name,
            "model": job_responses.model(plan.spec.config.model),
            "queue": f"{plan.kind.name}:{submission.priority}",
            "queue_position": ctx.queues.depth(queue_for(submission.priority, is_task=plan.kind.is_task)) + 1,
            "estimated_input_tokens": expected.input_tokens,
            "estimated_output_tokens": expected.output_tokens,
            "estimated_cost": dollars(expected.expected_cost),
            "max_cost": dollars(expected.max_cost),
            "currency": "USD",
            "estimated_duration_seconds": seconds(expected.duration_ms),
            "estimated_completion_at": rfc3339(ctx.clock.now() + expected.duration_ms),
        }
    )


@endpoint(blueprint, "GET", "/jobs", Role.VIEWER, query=(*FILTERS, *PAGE))
def listing(request: ApiRequest) -> ApiResponse:
    """List jobs, newest first."""
    ctx = request.container
    limit = job_requests.number(request, "limit", 20, 1, 100)
    page = list_jobs(ctx.jobs, ctx.log, request.caller, job_requests.filters(request), limit, request.query.get("cursor"), ctx.row_count)
    ws_url, now = ctx.endpoints.get("ws_url"), ctx.clock.now()
    rows = [job_responses.record(job, None, ws_url, now=now, content=request.caller.may_read_content(job)) for job in page.jobs]
    return ApiResponse(body={"data": rows, "next_cursor": page.next_cursor, "scanned_until": rfc3339(page.scanned_until)})


@endpoint(blueprint, "PATCH", "/jobs/{job_id}", Role.USER)
def change(request: ApiRequest, job_id: str) -> ApiResponse:
    """Change a job that has not ended: its start, expiry, priority, tags or metadata."""
    ctx = request.container
    edit, metadata = job_requests.change(request.json(), ctx.clock.now())
    job = _own_job(request, job_id)
    changed = edit_job(request.container, job, edit, metadata, job_requests.versions(request))
    shape = job_responses.record(changed, ctx.job_specs.get(job.id), ctx.endpoints.get("ws_url"), now=ctx.clock.now(), content=True)
    return ApiResponse(body=shape, headers={"ETag": job_responses.etag(changed)})


@endpoint(blueprint, "POST", "/jobs/{job_id}/cancel", Role.USER, accepts=())
def cancel(request: ApiRequest, job_id: str) -> ApiResponse:
    """Cancel a job: 202 while it stops, 200 if it has ended."""
    ctx = request.container
    job = _own_job(request, job_id)
    if job.status.is_terminal:
        return ApiResponse(body=_status_shape(ctx, job))
    cancelled = cancel_job(ctx, job)
    return ApiResponse(status=200 if cancelled.status.is_terminal else 202, body=_status_shape(ctx, cancelled))


@endpoint(blueprint, "DELETE", "/jobs/{job_id}", Role.USER)
def cancel_alias(request: ApiRequest, job_id: str) -> ApiResponse:
    """Alias of `POST /jobs/{job_id}/cancel`, the documented way to cancel a job."""
    return cancel(request, job_id)


@endpoint(blueprint, "POST", "/jobs/{job_id}/pause", Role.USER)
def pause(request: ApiRequest, job_id: str) -> ApiResponse:
    """Pause a job that is not running: it does not start until it is resumed."""
    ctx, data = request.container, request.json()
    fields = pause_requests.pause_fields(schemas.JOB_PAUSE, data, ctx.clock.now())
    paused = pause_job(ctx, _own_job(request, job_id), request.caller.user, fields.reason, fields.until)
    return ApiResponse(body=_status_shape(ctx, paused))


@endpoint(blueprint, "POST", "/jobs/{job_id}/resume", Role.USER, accepts=())
def resume(request: ApiRequest, job_id: str) -> ApiResponse:
    """Resume a paused job."""
    return ApiResponse(body=_status_shape(request.container, resume_job(request.container, _own_job(request, job_id))))


@endpoint(blueprint, "POST", "/jobs/{job_id}/retry", Role.USER)
def retry(request: ApiRequest, job_id: str) -> ApiResponse:
    """Retry a job: a new run if it did not complete, or its next attempt now if it waits for one.

    With `run` or an Idempotency-Key, a repeated request changes nothing.
    """
    ctx, data = request.container, job_requests.check(schemas.RETRY, request.json())
    job, key = _own_job(request, job_id), job_requests.idempotency_key(request)
    if key is None:
        retried_job = retry_job(ctx, job, data.get("run"))
        return ApiResponse(status=202, body=_status_shape(ctx, retried_job))
    idempotent = IdempotentRequest.of(request.caller, "POST /jobs/{job_id}/retry", key, [job.id, data])
    retried = retry_once(ctx, job, data.get("run"), idempotent)
    return ApiResponse(status=202, body=_status_shape(ctx, retried.job), headers=REPLAYED if retried.replayed else {})


def _own_job(request: ApiRequest, job_id: str) -> Job:
    """The job, if the caller may change it.

    Raises:
        Forbidden: the caller uses a ticket, or may not read the job's content.
        JobNotFound: there is no such job for the caller.
    """
    if request.caller.read_only:
        raise Forbidden("A ticket is read-only.")
    return request.caller.require_readable(request.container.jobs.get(job_id), job_id)


def _status_shape(ctx: Container, job: Job) -> dict[str, Any]:
    return progress_responses.status(job, None, None, ctx.clock.now())


def _ended(ctx: Container, job_id: str) -> Job | None:
    job = ctx.jobs.get(job_id)
    return job if job is not None and job.status.is_terminal else None
