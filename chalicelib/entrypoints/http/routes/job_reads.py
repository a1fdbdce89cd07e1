"""`/jobs/{job_id}` and what is below it to be read: record, status, progress, text, result, attempts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from chalice import Blueprint

from chalicelib.bootstrap import Container
from chalicelib.domain.auth.identity import Role
from chalicelib.domain.errors import Detail, InvalidRequest
from chalicelib.domain.execution.transcript import Chunk
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.metrics.throughput import UNMEASURED, Throughput
from chalicelib.entrypoints.http.requests import jobs as job_requests
from chalicelib.entrypoints.http.responses import graph as graph_responses
from chalicelib.entrypoints.http.responses import jobs as job_responses
from chalicelib.entrypoints.http.responses.result import result_response
from chalicelib.entrypoints.http.server import ApiRequest, ApiResponse, endpoint
from chalicelib.services.dependencies.read_graph import read_graph
from chalicelib.services.files.downloads import find_object
from chalicelib.services.streaming.long_polling import ReaderPresence, long_poll
from chalicelib.services.streaming.read_text import read_text

blueprint = Blueprint(__name__)

LONGEST_WAIT = 20  # seconds
RETRY_AFTER = "2"


@dataclass(frozen=True, slots=True)
class View:
    """A job as a poll sees it: its head, and the last of its log where that is part of the answer."""

    job: Job
    last: Chunk | None = None

    @property
    def etag(self) -> str:
        if self.last is None:
            return job_responses.etag(self.job)
        return f'"v{self.job.version}.{self.last.end or f"0.{self.last.at}"}"'  # one without text is kept in the place of the one before


@endpoint(blueprint, "GET", "/jobs/{job_id}", Role.VIEWER)
def read(request: ApiRequest, job_id: str) -> ApiResponse:
    """A job's record; `?include=prompt` for its content."""
    ctx = request.container
    view = _view(request, job_id, log=False)
    if _is_known(request, view):
        return _not_modified(view)
    content = request.caller.may_read_content(view.job)
    body = ctx.job_specs.get(view.job.id) if content else None
    prompt = "prompt" in request.query.get("include", "").split(",")
    shape = job_responses.record(view.job, body, ctx.endpoints.get("ws_url"), content=content, prompt=prompt)
    return ApiResponse(body=shape, headers={"ETag": view.etag})


@endpoint(blueprint, "GET", "/jobs/{job_id}/status", Role.VIEWER)
def status(request: ApiRequest, job_id: str) -> ApiResponse:
    """How a job stands, in short."""
    view = _view(request, job_id)
    if _is_known(request, view):
        return _not_modified(view)
    return ApiResponse(body=_status_shape(request.container, view), headers={"ETag": view.etag})


@endpoint(blueprint, "GET", "/jobs/{job_id}/progress", Role.VIEWER)
def progress(request: ApiRequest, job_id: str) -> ApiResponse:
    """How far a job has come: stages, milestones, figures."""
    view = _view(request, job_id)
    if _is_known(request, view):
        return _not_modified(view)
    content = request.caller.may_read_content(view.job)
    shape = job_responses.progress(
        view.job,
        view.last,
        _position(request.container, view.job),
        request.container.clock.now(),
        content=content,
        speed=_speed(request.container, view),
    )
    return ApiResponse(body=shape, headers={"ETag": view.etag})


@endpoint(blueprint, "GET", "/jobs/{job_id}/progress-history", Role.USER)
def progress_history(request: ApiRequest, job_id: str) -> ApiResponse:
    """What happened to a job, and in one of its attempts, in order: `?attempt=` for an earlier one."""
    job = _content(request, job_id)
    attempt = job_requests.attempt(request, 0) or job.attempt
    if attempt > job.attempt:
        raise InvalidRequest(details=(Detail("attempt", f"there were {job.attempt} so far"),))
    chunks = request.container.chunks.read(job.id, attempt) if attempt else []
    events = job_responses.history(job, attempt, [event for chunk in chunks for event in chunk.events])
    return ApiResponse(body={"job_id": job.id, "attempt": attempt, "data": events, "next_cursor": None})


@endpoint(blueprint, "GET", "/jobs/{job_id}/text", Role.USER)
def text(request: ApiRequest, job_id: str) -> ApiResponse:
    """The transcript from an offset on, held for more with `?wait=`."""
    ctx = request.container
    offset, attempt, wait = job_requests.offset(request), job_requests.attempt(request, 0) or None, _wait(request)
    job, reader = _content(request, job_id), ReaderPresence(ctx)

    def look() -> dict[str, Any] | None:
        now = ctx.jobs.get(job.id) or job
        part = read_text(ctx.chunks, ctx.results, now, offset, attempt)
        if not part.text and not part.done and wait and (attempt or now.attempt) == now.attempt:
            reader.announce(now)
            return None
        return {"attempt": part.attempt, "offset": offset, "text": part.text, "next_offset": part.next_offset, "done": part.done}

    found = long_poll(ctx, wait, look)
    empty = {"attempt": attempt or job.attempt, "offset": offset, "text": "", "next_offset": offset, "done": False}
    return ApiResponse(body={"job_id": job.id, "status": (ctx.jobs.get(job.id) or job).status.value, **(found or empty)})


@endpoint(blueprint, "GET", "/jobs/{job_id}/result", Role.USER)
def result(request: ApiRequest, job_id: str) -> ApiResponse:
    """The result; 202 while there is none yet, 307 to its text where that is very large."""
    job = _content(request, job_id)
    if job.status.is_terminal:
        return result_response(job, request.container.results)
    return ApiResponse(
        status=202, body=_status_shape(request.container, View(job, _last(request.container, job))), headers={"Retry-After": RETRY_AFTER}
    )


@endpoint(blueprint, "GET", "/jobs/{job_id}/download", Role.USER)
def download(request: ApiRequest, job_id: str) -> ApiResponse:
    """307 to the object that the job made, by a link that is good for five minutes; 202 while it is not made yet."""
    job, ctx = _content(request, job_id), request.container
    found = find_object(request.container.job_type, ctx.results, ctx.job_files, job)
    if found is None:
        return ApiResponse(
            status=202,
            body=_status_shape(request.container, View(job, _last(request.container, job))),
            headers={"Retry-After": RETRY_AFTER},
        )
    return ApiResponse(status=307, body={"job_id": job.id, "object": found.name, "location": found.link}, headers={"Location": found.link})


@endpoint(blueprint, "GET", "/jobs/{job_id}/attempts", Role.USER)
def attempts(request: ApiRequest, job_id: str) -> ApiResponse:
    """The ledger of a job's attempts, and what of it was spent in vain."""
    job = _content(request, job_id)
    return ApiResponse(body=job_responses.attempts(job, request.container.results.attempts(job.id)))


@endpoint(blueprint, "GET", "/jobs/{job_id}/graph", Role.VIEWER)
def graph(request: ApiRequest, job_id: str) -> ApiResponse:
    """What a job depends on and what depends on it, with how each stands."""
    ctx = request.container
    job = request.caller.require_visible(ctx.jobs.get(job_id), job_id)
    found = read_graph(ctx.jobs, ctx.dependencies, request.caller, job)
    return ApiResponse(body=graph_responses.graph(job, found, content=request.caller.may_read_content(job)))


def _content(request: ApiRequest, job_id: str) -> Job:
    return request.caller.require_readable(request.container.jobs.get(job_id), job_id)


def _view(request: ApiRequest, job_id: str, *, log: bool = True) -> View:
    """The job as it is; with `?wait=` once it is no longer what If-None-Match names, or what it is now."""
    jobs, ctx = request.container.jobs, request.container
    reader = ReaderPresence(ctx)

    def see(job: Job) -> View:
        return View(job, _last(request.container, job) if log else None)

    first = see(request.caller.require_visible(jobs.get(job_id), job_id))
    wait, known = _wait(request), job_requests.etags(request)
    if not wait or first.job.status.is_terminal or (known is not None and first.etag not in known):
        return first

    def look() -> View | None:
        view = see(jobs.get(job_id) or first.job)
        if view.etag != first.etag:
            return view
        if log:
            reader.announce(view.job)
        return None

    return long_poll(ctx, wait, look) or first


def _wait(request: ApiRequest) -> int:
    return job_requests.number(request, "wait", 0, 0, LONGEST_WAIT)


def _last(ctx: Container, job: Job) -> Chunk | None:
    return ctx.chunks.last(job.id, job.attempt) if job.attempt else None


def _position(ctx: Container, job: Job) -> int | None:
    """About where a queued job stands: behind what waits in its lane."""
    return max(1, ctx.queues.depth(job.lane)) if job.status is Status.QUEUED else None


def _status_shape(ctx: Container, view: View) -> job_responses.Shape:
    return job_responses.status(view.job, view.last, _position(ctx, view.job), ctx.clock.now(), _speed(ctx, view))


def _speed(ctx: Container, view: View) -> Throughput:
    """What was measured of jobs like it: asked for only where there is no text yet that says how fast it goes."""
    job = view.job
    if job.status.is_terminal or (view.last is not None and job.status is Status.PROCESSING):
        return UNMEASURED
    return ctx.throughput_of(job.type, job.asked_model)


def _is_known(request: ApiRequest, view: View) -> bool:
    return view.etag in (job_requests.etags(request) or ())


def _not_modified(view: View) -> ApiResponse:
    return ApiResponse(status=304, headers={"ETag": view.etag})
