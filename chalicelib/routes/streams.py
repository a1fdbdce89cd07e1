"""Server-Sent Events in slices, and the tickets that browsers need for streams."""

from __future__ import annotations

from chalice import Blueprint

from chalicelib import wiring
from chalicelib.domain import frames
from chalicelib.domain.errors import Forbidden
from chalicelib.domain.identity import Role
from chalicelib.domain.job import Job
from chalicelib.domain.units import rfc3339
from chalicelib.routes import parse, schemas
from chalicelib.routes.http import Answer, Request, endpoint
from chalicelib.usecases.authenticate import issue_ticket
from chalicelib.usecases.hold import hold
from chalicelib.usecases.read_events import Position, events_since

blueprint = Blueprint(__name__)

SLICE_SECONDS = 20
READER_MS = 10_000  # how long a slice counts as a reader, so that the log is written more often
RETRY_FLOWING, RETRY_QUIET = 250, 3_000  # milliseconds until EventSource asks for the next slice
EVENT_STREAM = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}


@endpoint(blueprint, "GET", "/jobs/{job_id}/stream", Role.USER, tickets=True, metered=False)
def stream(request: Request, job_id: str) -> Answer:
    """A slice of the job's event stream: what there is after Last-Event-ID, or the next that comes within 20 s."""
    have = wiring.adapters()
    job = request.caller.check_reads(have.jobs.get(job_id), job_id)
    position = _position(request)
    if position is not None and position.ended:
        return Answer(status=204)

    def look() -> list[tuple[Position, frames.Frame]] | None:
        now = have.clock.now()
        current = have.jobs.get(job.id) or job
        events = events_since(have.chunks, have.results, current, position, now)
        if not events and not current.status.is_terminal:
            _note_reader(current, now)
        return events or None

    events = hold(wiring.holding(), SLICE_SECONDS, look)
    if events is None:
        return Answer(body=f"retry: {RETRY_QUIET}\n: nothing yet\n\n", headers=EVENT_STREAM)
    return Answer(body=f"retry: {RETRY_FLOWING}\n\n" + "".join(_event(at, frame) for at, frame in events), headers=EVENT_STREAM)


@endpoint(blueprint, "POST", "/stream-tickets", Role.USER)
def ticket(request: Request) -> Answer:
    """A short-lived, read-only ticket for streams, to be used as `?ticket=`."""
    have, data = wiring.adapters(), parse.check(schemas.TICKET, request.json())
    if request.caller.read_only:
        raise Forbidden("A ticket only reads.")
    named = data.get("jobs")
    for job_id in named or ():
        request.caller.check_reads(have.jobs.get(job_id), job_id)
    lasts = round((data.get("expires_in") or 900) * 1000)
    secret, made = issue_ticket(have.tickets, have.clock, request.caller, frozenset(named) if named else None, lasts)
    return Answer(status=201, body={"ticket": secret, "expires_at": rfc3339(made.expires_at), "jobs": named})


def _position(request: Request) -> Position | None:
    """Where the client is, None if it begins. EventSource says it in a header; a first request may say it in the query."""
    said = request.headers.get("last-event-id") or request.query.get("last_event_id")
    if said:
        return Position.parse(said)
    offset, attempt = parse.number(request, "offset", 0, 0, 10**10), parse.number(request, "attempt", 1, 1, 10**9)
    return Position(attempt, offset) if offset else None


def _note_reader(job: Job, now: int) -> None:
    """Ask the worker to keep the text every second while somebody reads it here."""
    wiring.adapters().watchers.note_reader(job.id, now + READER_MS)


def _event(at: Position, frame: frames.Frame) -> str:
    name = "stream_error" if frame["event"] == "error" else frame["event"]
    return f"id: {at}\nevent: {name}\ndata: {frames.encode(frame).decode()}\n\n"
