"""Reads of `/jobs/{job_id}`: record, status, progress, text, result, attempts, graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from chalice import Blueprint

from chalicelib.bootstrap import Container
from chalicelib.domain.auth.identity import Role
from chalicelib.domain.errors import Detail, InvalidRequest
from chalicelib.domain.execution.transcript import Chunk
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.jobs.queue_routing import queue_of
from chalicelib.domain.limits.waiting import JobWait
from chalicelib.domain.metrics.estimate import waiting_ms
from chalicelib.domain.metrics.throughput import UNMEASURED, Throughput
from chalicelib.domain.queues.lanes import JOB_QUEUES
from chalicelib.entrypoints.http.requests import jobs as job_requests
from chalicelib.entrypoints.http.responses import jobs as job_responses
from chalicelib.entrypoints.http.responses import progress as progress_responses
from chalicelib.entrypoints.http.responses import results as result_responses
from chalicelib.entrypoints.http.responses.explanation import explanation_shape
from chalicelib.entrypoints.http.responses.graph import graph_shape
from chalicelib.entrypoints.http.responses.jobs import Shape
from chalicelib.entrypoints.http.responses.result_response import result_response
from chalicelib.entrypoints.http.server import ApiRequest, ApiResponse, endpoint
from chalicelib.services.dependencies.read_graph import read_graph
from chalicelib.services.files.downloads import find_object
from chalicelib.services.jobs.explain_job import explain_job
from chalicelib.services.scheduling.waits import describe_wait
from chalicelib.services.streaming.long_polling import ReaderPresence, long_poll
from chalicelib.services.streaming.read_text import read_text

blueprint = Blueprint(__name__)

MAX_WAIT_SECONDS = 20
RETRY_AFTER = "2"  # seconds until a client should ask again


@dataclass(frozen=True, slots=True)
class View:
    """A job as a poll returns it: its record, and its last chunk if the response contains it."""

    job: Job
    last: Chunk | None = None

    @property
    def etag(self) -> str:
        if self.last is None:
            return job_responses.etag(self.job)
        return f'"v{self.job.version}.{self.last.end or f"0.{self.last.at}"}"'  # chunks without text differ by time


@endpoint(blueprint, "GET", "/jobs/{job_id}", Role.VIEWER, query=("include", "wait"))
def read(request: ApiRequest, job_id: str) -> ApiResponse:
    """Get a job's record; with `?include=prompt` also its prompt and input."""
    ctx = request.container
    view = _view(request, job_id, with_chunk=False)
    if _is_known(request, view):
        return _not_modified(view)
    content = request.caller.may_read_content(view.job)
    spec = ctx.job_specs.get(view.job.id) if content else None
    prompt = "prompt" in job_requests.included(request, ("prompt",))
    now, position = ctx.clock.now(), _position(ctx, view.job)
    wait = _wait_of(ctx, view.job, position)
    shape = job_responses.record(view.job, spec, ctx.endpoints.get("ws_url"), now=now, wait=wait, content=content, prompt=prompt)
    return ApiResponse(body=shape, headers={"ETag": view.etag})


@endpoint(blueprint, "GET", "/jobs/{job_id}/status", Role.VIEWER, query=("wait",))
def status(request: ApiRequest, job_id: str) -> ApiResponse:
    """Get a job's status in short."""
    view = _view(request, job_id)
    if _is_known(request, view):
        return _not_modified(view)
    content = request.caller.may_read_content(view.job)
    return ApiResponse(body=_status_shape(request.container, view, content=content), headers={"ETag": view.etag})


@endpoint(blueprint, "GET", "/jobs/{job_id}/progress", Role.VIEWER, query=("wait",))
def progress(request: ApiRequest, job_id: str) -> ApiResponse:
    """Get a job's progress: stages, milestones and metrics."""
    view = _view(request, job_id)
    if _is_known(request, view):
        return _not_modified(view)
    content, position = request.caller.may_read_content(view.job), _position(request.container, view.job)
    shape = progress_responses.progress(
        view.job,
        view.last,
        position,
        request.container.clock.now(),
        content=content,
        speed=_throughput(request.container, view),
        wait=_wait_of(request.container, view.job, position),
    )
    return ApiResponse(body=shape, headers={"ETag": view.etag})


@endpoint(blueprint, "GET", "/jobs/{job_id}/progress-history", Role.USER, query=("attempt",))
def progress_history(request: ApiRequest, job_id: str) -> ApiResponse:
    """List the events of a job and of one attempt, in order; `?attempt=` selects an earlier one."""
    job = _content(request, job_id)
    attempt = job_requests.attempt(request, 0) or job.attempt
    if attempt > job.attempt:
        raise InvalidRequest(details=(Detail("attempt", f"must be at most {job.attempt}, the job's last attempt"),))
    chunks = request.container.chunks.read(job.id, attempt) if attempt else []
    events = progress_responses.history(job, attempt, [event for chunk in chunks for event in chunk.events])
    return ApiResponse(body={"job_id": job.id, "attempt": attempt, "data": events, "next_cursor": None})


@endpoint(blueprint, "GET", "/jobs/{job_id}/text", Role.USER, query=("attempt", "offset", "wait"))
def text(request: ApiRequest, job_id: str) -> ApiResponse:
    """Read a job's text from an offset on; with `?wait=`, wait for more."""
    ctx = request.container
    offset, attempt, wait = job_requests.offset(request), job_requests.attempt(request, 0) or None, _wait(request)
    job, reader = _content(request, job_id), ReaderPresence(ctx)

    def check() -> dict[str, Any] | None:
        current = ctx.jobs.get(job.id) or job
        part = read_text(ctx.chunks, ctx.results, current, offset, attempt)
        if not part.text and not part.done and wait and (attempt or current.attempt) == current.attempt:
            reader.announce(current)
            return None
        return {"attempt": part.attempt, "offset": offset, "text": part.text, "next_offset": part.next_offset, "done": part.done}

    found = long_poll(ctx, request.caller.tenant, wait, check)
    empty = {"attempt": attempt or job.attempt, "offset": offset, "text": "", "next_offset": offset, "done": False}
    return ApiResponse(body={"job_id": job.id, "status": (ctx.jobs.get(job.id) or job).status.value, **(found or empty)})


@endpoint(blueprint, "GET", "/jobs/{job_id}/result", Role.USER)
def result(request: ApiRequest, job_id: str) -> ApiResponse:
    """Get a job's result; 202 while there is none, 307 to its text if that is very large."""
    job = _content(request, job_id)
    if job.status.is_terminal:
        return result_response(job, request.container.results)
    return ApiResponse(
        status=202,
        body=_status_shape(request.container, View(job, _last_chunk(request.container, job))),
        headers={"Retry-After": RETRY_AFTER},
    )


@endpoint(blueprint, "GET", "/jobs/{job_id}/download", Role.USER)
def download(request: ApiRequest, job_id: str) -> ApiResponse:
    """Redirect (307) to the object that a job made, valid for five minutes; 202 until it exists."""
    job, ctx = _content(request, job_id), request.container
    found = find_object(request.container.job_type, ctx.results, ctx.job_files, job)
    if found is None:
        return ApiResponse(
            status=202,
            body=_status_shape(request.container, View(job, _last_chunk(request.container, job))),
            headers={"Retry-After": RETRY_AFTER},
        )
    return ApiResponse(status=307, body={"job_id": job.id, "object": found.name, "location": found.link}, headers={"Location": found.link})


@endpoint(blueprint, "GET", "/jobs/{job_id}/attempts", Role.USER)
def attempts(request: ApiRequest, job_id: str) -> ApiResponse:
    """List the attempt records of a job, with their total and wasted cost."""
    job = _content(request, job_id)
    return ApiResponse(body=result_responses.attempts(job, request.container.results.attempts(job.id)))


@endpoint(blueprint, "GET", "/jobs/{job_id}/explain", Role.VIEWER)
def explain(request: ApiRequest, job_id: str) -> ApiResponse:
    """Tell in sentences what a job waited for, what was tried and decided, what it waits for now, or how it ended."""
    ctx = request.container
    job = request.caller.require_visible(ctx.jobs.get(job_id), job_id)
    position = _position(ctx, job)
    events = explain_job(ctx, job, position, _wait_of(ctx, job, position), content=request.caller.may_read_content(job))
    return ApiResponse(body=explanation_shape(job, events))


@endpoint(blueprint, "GET", "/jobs/{job_id}/graph", Role.VIEWER)
def graph(request: ApiRequest, job_id: str) -> ApiResponse:
    """Get a job's dependency graph: its parents and dependents with their status."""
    ctx = request.container
    job = request.caller.require_visible(ctx.jobs.get(job_id), job_id)
    found = read_graph(ctx.jobs, ctx.log, ctx.dependencies, request.caller, job)
    return ApiResponse(body=graph_shape(job, found, content=request.caller.may_read_content(job)))


def _content(request: ApiRequest, job_id: str) -> Job:
    return request.caller.require_readable(request.container.jobs.get(job_id), job_id)


def _view(request: ApiRequest, job_id: str, *, with_chunk: bool = True) -> View:
    """The job. With `?wait=`, wait for a change, unless it differs from If-None-Match already."""
    jobs, ctx = request.container.jobs, request.container
    reader = ReaderPresence(ctx)

    def view_of(job: Job) -> View:
        return View(job, _last_chunk(request.container, job) if with_chunk else None)

    first = view_of(request.caller.require_visible(jobs.get(job_id), job_id))
    wait, known = _wait(request), job_requests.etags(request)
    if not wait or first.job.status.is_terminal or (known is not None and first.etag not in known):
        return first

    def check() -> View | None:
        view = view_of(jobs.get(job_id) or first.job)
        if view.etag != first.etag:
            return view
        if with_chunk:
            reader.announce(view.job)
        return None

    return long_poll(ctx, request.caller.tenant, wait, check) or first


def _wait(request: ApiRequest) -> int:
    return job_requests.number(request, "wait", 0, 0, MAX_WAIT_SECONDS)


def _last_chunk(ctx: Container, job: Job) -> Chunk | None:
    return ctx.chunks.last(job.id, job.attempt) if job.attempt else None


def _position(ctx: Container, job: Job) -> int | None:
    """The approximate queue position of a queued job: the depth of its queue."""
    return max(1, ctx.queues.depth(queue_of(job))) if job.status is Status.QUEUED else None


def _status_shape(ctx: Container, view: View, *, content: bool = True) -> Shape:
    position = _position(ctx, view.job)
    speed, wait = _throughput(ctx, view), _wait_of(ctx, view.job, position)
    return progress_responses.status(view.job, view.last, position, ctx.clock.now(), speed, wait=wait, content=content)


def _wait_of(ctx: Container, job: Job, position: int | None) -> JobWait:
    """What is known of a job's wait: in its queue, in a line, or for a time."""
    if position is not None:
        return JobWait(start_at=ctx.clock.now() + waiting_ms(JOB_QUEUES[queue_of(job)], position - 1))
    return describe_wait(ctx, job)


def _throughput(ctx: Container, view: View) -> Throughput:
    """The measured throughput of similar jobs; loaded only for a job without own progress."""
    job = view.job
    if job.status.is_terminal or (view.last is not None and job.status is Status.PROCESSING):
        return UNMEASURED
    return ctx.throughput_of(job.type, job.asked_model)


def _is_known(request: ApiRequest, view: View) -> bool:
    return view.etag in (job_requests.etags(request) or ())


def _not_modified(view: View) -> ApiResponse:
    return ApiResponse(status=304, headers={"ETag": view.etag})
