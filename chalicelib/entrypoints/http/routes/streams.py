"""Event streams in slices (Server-Sent Events), and the tickets that browsers use for them."""

from __future__ import annotations

from functools import partial

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
from chalicelib.services.scheduling.waits import describe_wait
from chalicelib.services.streaming.long_polling import ReaderPresence, long_poll
from chalicelib.services.streaming.read_events import Position, events_since

blueprint = Blueprint(__name__)

SLICE_SECONDS = 20
RETRY_ACTIVE_MS, RETRY_IDLE_MS = 250, 3_000  # until EventSource requests the next slice
EVENT_STREAM = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
NO_EVENTS = ApiResponse(body=f"retry: {RETRY_IDLE_MS}\n: nothing yet\n\n", headers=EVENT_STREAM)
# Sent instead of a 5xx response, which would make EventSource stop.
TEMPORARY_ERROR = ApiResponse(body=f"retry: {RETRY_IDLE_MS}\n: temporary error, ask again\n\n", headers=EVENT_STREAM)


@endpoint(
    blueprint,
    "GET",
    "/jobs/{job_id}/stream",
    Role.USER,
    query=("attempt", "offset", "last_event_id", "lastEventId", "ticket"),
    tickets=True,
    rate_limited=False,
    fallback=TEMPORARY_ERROR,
)
def stream(request: ApiRequest, job_id: str) -> ApiResponse:
    """Read a slice of a job's event stream: events after Last-Event-ID, or the next within 20 s."""
    ctx = request.container
    job = request.caller.require_readable(ctx.jobs.get(job_id), job_id)
    position = _position(request)
    if position is not None and position.has_all(job):
        return ApiResponse(status=204)
    ctx = request.container
    reader = ReaderPresence(ctx)

    def check() -> list[tuple[Position, frames.Frame]] | None:
        current = ctx.jobs.get(job.id) or job
        events = events_since(ctx.chunks, ctx.results, current, position, ctx.clock.now(), partial(describe_wait, ctx))
        if not events:
            reader.announce(current)
        return events or None

    events = long_poll(ctx, request.caller.tenant, SLICE_SECONDS, check)
    if events is None:
        return NO_EVENTS
    retry = RETRY_IDLE_MS if request.over_rate else RETRY_ACTIVE_MS
    return ApiResponse(body=f"retry: {retry}\n\n" + "".join(_event(at, frame) for at, frame in events), headers=EVENT_STREAM)


@endpoint(blueprint, "POST", "/stream-tickets", Role.USER)
def ticket(request: ApiRequest) -> ApiResponse:
    """Create a short-lived, read-only ticket for streams, to be sent as `?ticket=`."""
    ctx, data = request.container, job_requests.check(schemas.TICKET, request.json())
    if request.caller.read_only:
        raise Forbidden("A ticket is read-only.")
    job_ids = data.get("jobs")
    if job_ids is None and request.caller.all_tenants:
        raise InvalidRequest(details=(Detail("jobs", "must be given, because this key reads the jobs of all tenants"),))
    for job_id in job_ids or ():
        request.caller.require_readable(ctx.jobs.get(checked_job_id(job_id)), job_id)
    ttl_ms = round((data.get("expires_in") or 900) * 1000)
    secret, issued = issue_ticket(ctx.tickets, ctx.clock, request.caller, frozenset(job_ids) if job_ids else None, ttl_ms)
    return ApiResponse(status=201, body={"ticket": secret, "expires_at": rfc3339(issued.expires_at), "jobs": job_ids})


def _position(request: ApiRequest) -> Position | None:
    """The client's position, None for a new client.

    EventSource sends it in a header; a first request may send it in the query. Polyfills that cannot
    set a header add `lastEventId` to the address of their first request.
    """
    ids = (request.headers.get("last-event-id"), request.query.get("lastEventId"), request.query.get("last_event_id"))
    positions = [Position.parse(event_id) for event_id in ids if event_id]
    if positions:
        return positions[0]
    offset, attempt = job_requests.offset(request), job_requests.attempt(request, 1)
    return Position(attempt, offset) if offset else None


def _event(at: Position, frame: frames.Frame) -> str:
    name = "stream_error" if frame["event"] == "error" else frame["event"]  # EventSource itself emits `error` events
    return f"id: {at}\nevent: {name}\ndata: {frames.encode(frame).decode()}\n\n"
