"""WebSocket connections: who may open one, what it watches, and how it is told what has happened already."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from chalicelib.domain import frames
from chalicelib.domain.errors import (
    ConnectionBusy,
    ConnectionGone,
    ConnectionRefused,
    InvalidRequest,
    NotFound,
    ResultExpired,
    Unauthenticated,
)
from chalicelib.domain.identity import Caller
from chalicelib.domain.job import Job, Status
from chalicelib.domain.text import MAX_FRAME_POINTS, pieces
from chalicelib.domain.watching import CONNECTION_LASTS_MS, GRACE_MS, SUBSCRIPTIONS_PER_CONNECTION, Connection, Watcher
from chalicelib.ports import Chunks, Clock, Connections, Jobs, Results, Sockets, Watchers
from chalicelib.usecases.forget_connection import forget_connection, leave_out
from chalicelib.usecases.read_text import read_text


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """What watching needs from outside."""

    clock: Clock
    jobs: Jobs
    chunks: Chunks
    results: Results
    subscriptions: Watchers
    connections: Connections
    sockets: Sockets
    new_id: Callable[[], str]
    caller_by_key_hash: Callable[[str], Caller | None]


def open_connection(gallery: Gallery, connection_id: str, endpoint: str, caller: Caller) -> None:
    """Remember a WebSocket and whom it speaks for."""
    now = gallery.clock.now()
    gallery.connections.open(
        Connection(id=connection_id, endpoint=endpoint, caller=caller, connected_at=now, expires_at=now + CONNECTION_LASTS_MS + GRACE_MS)
    )


def close_connection(gallery: Gallery, connection_id: str) -> None:
    """Forget a WebSocket and its subscriptions."""
    forget_connection(gallery.connections, gallery.subscriptions, connection_id)


def connected(gallery: Gallery, connection_id: str) -> Connection:
    """The connection, with the rights that its key has now.

    Raises:
        NotFound: it is not known here.
        Unauthenticated: its key has been revoked or has expired meanwhile.
    """
    connection = gallery.connections.get(connection_id)
    if connection is None or gallery.clock.now() >= connection.expires_at:
        raise NotFound("This connection is not known here. Connect again.")
    present = gallery.caller_by_key_hash(connection.caller.key_hash)
    if present is None:
        raise Unauthenticated
    return replace(connection, caller=present.restricted_to(connection.caller))


def subscribe(gallery: Gallery, connection: Connection, job_id: str, attempt: int, offset: int, reply_to: str | None) -> None:
    """Let the connection follow a job from `offset` of `attempt` on.

    The row is written before the record is read [14]: so either the worker finds the row, or this finds that nobody works on the job and
    tells everything itself. A worker that is at it tells the rest.

    Raises:
        JobNotFound, Forbidden: as for reading its content.
        InvalidRequest: the connection has as many subscriptions as it may.
    """
    caller = connection.caller
    caller.require_readable(gallery.jobs.get(job_id), job_id)
    watcher = enrol(gallery, connection, job_id, attempt, offset)
    job = caller.require_readable(gallery.jobs.get(job_id), job_id)
    start = offset if attempt == job.attempt else 0
    more = {"reply_to": reply_to} if reply_to is not None else {}
    answer = {**frames.connected(job, start, gallery.clock.now()), **more}
    post(gallery, watcher, answer)
    if job.status is not Status.PROCESSING:
        tell(gallery, replace(watcher, attempt=job.attempt, offset=start), job)


def enrol(gallery: Gallery, connection: Connection, watched: str, attempt: int = 0, offset: int = 0) -> Watcher:
    """Put the row by which the connection is found: it watches a job, or a batch by the same rows.

    Raises:
        InvalidRequest: the connection has as many subscriptions as it may.
    """
    if not gallery.connections.subscribe(connection.id, watched):
        raise InvalidRequest(f"A connection may have {SUBSCRIPTIONS_PER_CONNECTION} subscriptions. Unsubscribe or open another one.")
    watcher = Watcher(
        job_id=watched,
        connection_id=connection.id,
        endpoint=connection.endpoint,
        key_hash=connection.caller.key_hash,
        attempt=attempt,
        offset=offset,
        subscription_id=gallery.new_id(),
        expires_at=connection.expires_at,
    )
    gallery.subscriptions.add(watcher)
    return watcher


def unsubscribe(gallery: Gallery, connection: Connection, job_id: str) -> None:
    """From a job, or a batch."""
    gallery.subscriptions.remove(job_id, connection.id)
    gallery.connections.unsubscribe(connection.id, job_id)


def tell(gallery: Gallery, watcher: Watcher, job: Job) -> None:
    """Everything that is kept of a job that nobody works on, from the watcher's offset on, then its state."""
    offset, done = watcher.offset, False
    while not done:
        try:
            part = read_text(gallery.chunks, gallery.results, job, offset)
        except ResultExpired:
            post(gallery, watcher, frames.gap(job, offset, None, gallery.clock.now()))
            break
        for text in pieces(part.text, MAX_FRAME_POINTS):
            post(gallery, watcher, frames.tokens(job.id, job.attempt, job.version, offset, text, gallery.clock.now(), 0, None))
            offset += len(text)
        done = part.done or not part.text
    state = frames.state(job, gallery.clock.now())
    if state is not None:
        post(gallery, watcher, state)


def announce(gallery: Gallery, job: Job) -> int:
    """Tell everybody who watches how the record stands, once more: the worker may have died before it could. How many were told."""
    state = frames.state(job, gallery.clock.now())
    told = 0
    now = gallery.clock.now()
    watchers = [watcher for watcher in gallery.subscriptions.for_job(job.id) if watcher.expires_at > now] if state else []
    for watcher in watchers:
        caller = gallery.caller_by_key_hash(watcher.key_hash)
        if caller is None or not caller.may_read_content(job):
            continue
        try:
            post(gallery, watcher, state or {})
            told += 1
        except (ConnectionGone, ConnectionBusy):
            continue  # forgotten, or it asks by itself when it hears nothing
    return told


def say(gallery: Gallery, endpoint: str, connection_id: str, frame: frames.Frame) -> None:
    """Answer a connection about no job.

    Raises:
        ConnectionGone: it is closed, and forgotten.
        ConnectionBusy: it asks again by itself when it hears nothing.
    """
    try:
        gallery.sockets.post(endpoint, connection_id, frames.encode(frame))
    except ConnectionRefused:
        raise
    except ConnectionGone:
        close_connection(gallery, connection_id)
        raise


def post(gallery: Gallery, watcher: Watcher, frame: frames.Frame) -> None:
    """Tell a watcher something.

    Raises:
        ConnectionGone: it is closed, and forgotten.
        ConnectionBusy: it cannot take it now.
    """
    try:
        gallery.sockets.post(watcher.endpoint, watcher.connection_id, frames.encode(frame))
    except ConnectionGone as gone:
        leave_out(gallery.connections, gallery.subscriptions, gone, watcher.connection_id, watcher.job_id)
        raise
