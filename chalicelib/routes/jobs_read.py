"""`/jobs/{job_id}` and what is below it to be read: record, status, progress, text, result, attempts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from chalice import Blueprint

from chalicelib import wiring
from chalicelib.domain.errors import Detail, InvalidRequest
from chalicelib.domain.identity import Role
from chalicelib.domain.job import Job, Status
from chalicelib.domain.speed import UNMEASURED, Speed
from chalicelib.domain.transcript import Chunk
from chalicelib.routes import parse, shapes, shapes_graph
from chalicelib.routes.http import Answer, Request, endpoint
from chalicelib.routes.result import result_answer
from chalicelib.usecases.find_object import find_object
from chalicelib.usecases.hold import ReadAlong, hold
from chalicelib.usecases.read_graph import read_graph
from chalicelib.usecases.read_text import read_text

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
            return shapes.etag(self.job)
        return f'"v{self.job.version}.{self.last.end or f"0.{self.last.at}"}"'  # one without text is kept in the place of the one before


@endpoint(blueprint, "GET", "/jobs/{job_id}", Role.VIEWER)
def read(request: Request, job_id: str) -> Answer:
    """A job's record; `?include=prompt` for its content."""
    have = wiring.adapters()
    view = _view(request, job_id, log=False)
    if _is_known(request, view):
        return _not_modified(view)
    content = request.caller.may_read_content(view.job)
    body = have.job_specs.get(view.job.id) if content else None
    prompt = "prompt" in request.query.get("include", "").split(",")
    shape = shapes.record(view.job, body, have.endpoints.get("ws_url"), content=content, prompt=prompt)
    return Answer(body=shape, headers={"ETag": view.etag})


@endpoint(blueprint, "GET", "/jobs/{job_id}/status", Role.VIEWER)
def status(request: Request, job_id: str) -> Answer:
    """How a job stands, in short."""
    view = _view(request, job_id)
    if _is_known(request, view):
        return _not_modified(view)
    return Answer(body=_status_shape(view), headers={"ETag": view.etag})


@endpoint(blueprint, "GET", "/jobs/{job_id}/progress", Role.VIEWER)
def progress(request: Request, job_id: str) -> Answer:
    """How far a job has come: stages, milestones, figures."""
    view = _view(request, job_id)
    if _is_known(request, view):
        return _not_modified(view)
    content = request.caller.may_read_content(view.job)
    shape = shapes.progress(view.job, view.last, _position(view.job), wiring.adapters().clock.now(), content=content, speed=_speed(view))
    return Answer(body=shape, headers={"ETag": view.etag})


@endpoint(blueprint, "GET", "/jobs/{job_id}/progress-history", Role.USER)
def progress_history(request: Request, job_id: str) -> Answer:
    """What happened to a job, and in one of its attempts, in order: `?attempt=` for an earlier one."""
    job = _content(request, job_id)
    attempt = parse.attempt(request, 0) or job.attempt
    if attempt > job.attempt:
        raise InvalidRequest(details=(Detail("attempt", f"there were {job.attempt} so far"),))
    chunks = wiring.adapters().chunks.read(job.id, attempt) if attempt else []
    events = shapes.history(job, attempt, [event for chunk in chunks for event in chunk.events])
    return Answer(body={"job_id": job.id, "attempt": attempt, "data": events, "next_cursor": None})


@endpoint(blueprint, "GET", "/jobs/{job_id}/text", Role.USER)
def text(request: Request, job_id: str) -> Answer:
    """The transcript from an offset on, held for more with `?wait=`."""
    have, holding = wiring.adapters(), wiring.holding()
    offset, attempt, wait = parse.offset(request), parse.attempt(request, 0) or None, _wait(request)
    job, reader = _content(request, job_id), ReadAlong(holding)

    def look() -> dict[str, Any] | None:
        now = have.jobs.get(job.id) or job
        part = read_text(have.chunks, have.results, now, offset, attempt)
        if not part.text and not part.done and wait and (attempt or now.attempt) == now.attempt:
            reader.announce(now)
            return None
        return {"attempt": part.attempt, "offset": offset, "text": part.text, "next_offset": part.next_offset, "done": part.done}

    found = hold(holding, wait, look)
    empty = {"attempt": attempt or job.attempt, "offset": offset, "text": "", "next_offset": offset, "done": False}
    return Answer(body={"job_id": job.id, "status": (have.jobs.get(job.id) or job).status.value, **(found or empty)})


@endpoint(blueprint, "GET", "/jobs/{job_id}/result", Role.USER)
def result(request: Request, job_id: str) -> Answer:
    """The result; 202 while there is none yet, 307 to its text where that is very large."""
    job = _content(request, job_id)
    if job.status.is_terminal:
        return result_answer(job, wiring.adapters().results)
    return Answer(status=202, body=_status_shape(View(job, _last(job))), headers={"Retry-After": RETRY_AFTER})


@endpoint(blueprint, "GET", "/jobs/{job_id}/download", Role.USER)
def download(request: Request, job_id: str) -> Answer:
    """307 to the object that the job made, by a link that is good for five minutes; 202 while it is not made yet."""
    job, have = _content(request, job_id), wiring.adapters()
    found = find_object(wiring.job_type, have.results, have.job_files, job)
    if found is None:
        return Answer(status=202, body=_status_shape(View(job, _last(job))), headers={"Retry-After": RETRY_AFTER})
    return Answer(status=307, body={"job_id": job.id, "object": found.name, "location": found.link}, headers={"Location": found.link})


@endpoint(blueprint, "GET", "/jobs/{job_id}/attempts", Role.USER)
def attempts(request: Request, job_id: str) -> Answer:
    """The ledger of a job's attempts, and what of it was spent in vain."""
    job = _content(request, job_id)
    return Answer(body=shapes.attempts(job, wiring.adapters().results.attempts(job.id)))


@endpoint(blueprint, "GET", "/jobs/{job_id}/graph", Role.VIEWER)
def graph(request: Request, job_id: str) -> Answer:
    """What a job depends on and what depends on it, with how each stands."""
    have = wiring.adapters()
    job = request.caller.require_visible(have.jobs.get(job_id), job_id)
    found = read_graph(have.jobs, have.dependencies, request.caller, job)
    return Answer(body=shapes_graph.graph(job, found, content=request.caller.may_read_content(job)))


def _content(request: Request, job_id: str) -> Job:
    return request.caller.require_readable(wiring.adapters().jobs.get(job_id), job_id)


def _view(request: Request, job_id: str, *, log: bool = True) -> View:
    """The job as it is; with `?wait=` once it is no longer what If-None-Match names, or what it is now."""
    jobs, holding = wiring.adapters().jobs, wiring.holding()
    reader = ReadAlong(holding)

    def see(job: Job) -> View:
        return View(job, _last(job) if log else None)

    first = see(request.caller.require_visible(jobs.get(job_id), job_id))
    wait, known = _wait(request), parse.etags(request)
    if not wait or first.job.status.is_terminal or (known is not None and first.etag not in known):
        return first

    def look() -> View | None:
        view = see(jobs.get(job_id) or first.job)
        if view.etag != first.etag:
            return view
        if log:
            reader.announce(view.job)
        return None

    return hold(holding, wait, look) or first


def _wait(request: Request) -> int:
    return parse.number(request, "wait", 0, 0, LONGEST_WAIT)


def _last(job: Job) -> Chunk | None:
    return wiring.adapters().chunks.last(job.id, job.attempt) if job.attempt else None


def _position(job: Job) -> int | None:
    """About where a queued job stands: behind what waits in its lane."""
    return max(1, wiring.adapters().queues.depth(job.lane)) if job.status is Status.QUEUED else None


def _status_shape(view: View) -> shapes.Shape:
    return shapes.status(view.job, view.last, _position(view.job), wiring.adapters().clock.now(), _speed(view))


def _speed(view: View) -> Speed:
    """What was measured of jobs like it: asked for only where there is no text yet that says how fast it goes."""
    job = view.job
    if job.status.is_terminal or (view.last is not None and job.status is Status.PROCESSING):
        return UNMEASURED
    return wiring.known_speeds().get(job.type, job.asked_model)


def _is_known(request: Request, view: View) -> bool:
    return view.etag in (parse.etags(request) or ())


def _not_modified(view: View) -> Answer:
    return Answer(status=304, headers={"ETag": view.etag})
