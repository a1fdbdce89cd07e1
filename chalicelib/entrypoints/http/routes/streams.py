"""Server-Sent Events in slices, and the tickets that browsers need for streams."""

from __future__ import annotations

from chalice import Blueprint

from chalicelib.domain.auth.identity import Role
from chalicelib.domain.errors import Detail, Forbidden, InvalidRequest
from chalicelib.domain.ids import checked_job_id
from chalicelib.domain.streaming import frames
from chalicelib.domain.units import rfc3339
from chalicelib.entrypoints.http.requests import jobs as job_requests
from chalicelib.entrypoints.http.requests import schemas
from chalicelib.entrypoints.http.server import ApiRequest, ApiResponse, endpoint
from chalicelib.services.auth.authenticate import issue_ticket
from chalicelib.services.streaming.long_polling import ReaderPresence, long_poll
from chalicelib.services.streaming.read_events import Position, events_since

blueprint = Blueprint(__name__)

SLICE_SECONDS = 20
RETRY_FLOWING, RETRY_QUIET = 250, 3_000  # milliseconds until EventSource asks for the next slice
EVENT_STREAM = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
NOTHING_YET = ApiResponse(body=f"retry: {RETRY_QUIET}\n: nothing yet\n\n", headers=EVENT_STREAM)
TRY_AGAIN = ApiResponse(
    body=f"retry: {RETRY_QUIET}\n: something did not answer, ask again\n\n", headers=EVENT_STREAM
)  # 5xx ends an EventSource


@endpoint(blueprint, "GET", "/jobs/{job_id}/stream", Role.USER, tickets=True, slows=True, instead=TRY_AGAIN)
def stream(request: ApiRequest, job_id: str) -> ApiResponse:
    """A slice of the job's event stream: what there is after Last-Event-ID, or the next that comes within 20 s."""
    ctx = request.container
    job = request.caller.require_readable(ctx.jobs.get(job_id), job_id)
    position = _position(request)
    if position is not None and position.has_all(job):
        return ApiResponse(status=204)
    ctx = request.container
    reader = ReaderPresence(ctx)

    def look() -> list[tuple[Position, frames.Frame]] | None:
        current = ctx.jobs.get(job.id) or job
        events = events_since(ctx.chunks, ctx.results, current, position, ctx.clock.now())
        if not events:
            reader.announce(current)
        return events or None

    events = long_poll(ctx, SLICE_SECONDS, look)
    if events is None:
        return NOTHING_YET
    retry = RETRY_QUIET if request.over_rate else RETRY_FLOWING
    return ApiResponse(body=f"retry: {retry}\n\n" + "".join(_event(at, frame) for at, frame in events), headers=EVENT_STREAM)


@endpoint(blueprint, "POST", "/stream-tickets", Role.USER)
def ticket(request: ApiRequest) -> ApiResponse:
    """A short-lived, read-only ticket for streams, to be used as `?ticket=`."""
    ctx, data = request.container, job_requests.check(schemas.TICKET, request.json())
    if request.caller.read_only:
        raise Forbidden("A ticket only reads.")
    named = data.get("jobs")
    if named is None and request.caller.all_tenants:
        raise InvalidRequest(details=(Detail("jobs", "must be named: this key is of all tenants"),))
    for job_id in named or ():
        request.caller.require_readable(ctx.jobs.get(checked_job_id(job_id)), job_id)
    lasts = round((data.get("expires_in") or 900) * 1000)
    secret, made = issue_ticket(ctx.tickets, ctx.clock, request.caller, frozenset(named) if named else None, lasts)
    return ApiResponse(status=201, body={"ticket": secret, "expires_at": rfc3339(made.expires_at), "jobs": named})


def _position(request: ApiRequest) -> Position | None:
    """Where the client is, None if it begins. EventSource says it in a header; a first request may say it in the query."""
    said = request.headers.get("last-event-id") or request.query.get("last_event_id")
    if said:
        return Position.parse(said)
    offset, attempt = job_requests.offset(request), job_requests.attempt(request, 1)
    return Position(attempt, offset) if offset else None


def _event(at: Position, frame: frames.Frame) -> str:
    name = "stream_error" if frame["event"] == "error" else frame["event"]
    return f"id: {at}\nevent: {name}\ndata: {frames.encode(frame).decode()}\n\n"
