"""WebSocket connections: who may open one, what it watches, and how it is told what has happened already."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from chalicelib.domain.auth.identity import Caller
from chalicelib.domain.errors import (
    ConnectionBusy,
    ConnectionGone,
    ConnectionRefused,
    InvalidRequest,
    NotFound,
    ResultExpired,
    Unauthenticated,
)
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.streaming import frames
from chalicelib.domain.streaming.subscriptions import CONNECTION_TTL_MS, GRACE_MS, SUBSCRIPTIONS_PER_CONNECTION, Connection, Subscription
from chalicelib.domain.text import MAX_FRAME_POINTS, split_text
from chalicelib.ports import Chunks, Connections, Jobs, Results, Sockets, Subscriptions
from chalicelib.services.context import Context
from chalicelib.services.streaming.drop_connection import drop_connection, drop_unreachable
from chalicelib.services.streaming.read_text import read_text


class StreamingContext(Context, Protocol):
    """What subscribing and broadcasting need. `caller_by_key_hash`: the caller of an API key, None if it is revoked or has expired."""

    @property
    def jobs(self) -> Jobs: ...
    @property
    def chunks(self) -> Chunks: ...
    @property
    def results(self) -> Results: ...
    @property
    def subscriptions(self) -> Subscriptions: ...
    @property
    def connections(self) -> Connections: ...
    @property
    def sockets(self) -> Sockets: ...
    def new_id(self) -> str: ...
    def caller_by_key_hash(self, key_hash: str) -> Caller | None: ...


def open_connection(ctx: StreamingContext, connection_id: str, endpoint: str, caller: Caller) -> None:
    """Remember a WebSocket and whom it speaks for."""
    now = ctx.clock.now()
    ctx.connections.open(
        Connection(id=connection_id, endpoint=endpoint, caller=caller, connected_at=now, expires_at=now + CONNECTION_TTL_MS + GRACE_MS)
    )


def close_connection(ctx: StreamingContext, connection_id: str) -> None:
    """Forget a WebSocket and its subscriptions."""
    drop_connection(ctx.connections, ctx.subscriptions, connection_id)


def get_connection(ctx: StreamingContext, connection_id: str) -> Connection:
    """The connection, with the rights that its key has now.

    Raises:
        NotFound: it is not known here.
        Unauthenticated: its key has been revoked or has expired meanwhile.
    """
    connection = ctx.connections.get(connection_id)
    if connection is None or ctx.clock.now() >= connection.expires_at:
        raise NotFound("This connection is not known here. Connect again.")
    present = ctx.caller_by_key_hash(connection.caller.key_hash)
    if present is None:
        raise Unauthenticated
    return replace(connection, caller=present.restricted_to(connection.caller))


def subscribe(ctx: StreamingContext, connection: Connection, job_id: str, attempt: int, offset: int, reply_to: str | None) -> None:
    """Let the connection follow a job from `offset` of `attempt` on.

    The row is written before the record is read [14]: so either the worker finds the row, or this finds that nobody works on the job and
    tells everything itself. A worker that is at it tells the rest.

    Raises:
        JobNotFound, Forbidden: as for reading its content.
        InvalidRequest: the connection has as many subscriptions as it may.
    """
    caller = connection.caller
    caller.require_readable(ctx.jobs.get(job_id), job_id)
    watcher = add_subscription(ctx, connection, job_id, attempt, offset)
    job = caller.require_readable(ctx.jobs.get(job_id), job_id)
    start = offset if attempt == job.attempt else 0
    more = {"reply_to": reply_to} if reply_to is not None else {}
    answer = {**frames.connected(job, start, ctx.clock.now()), **more}
    send_frame(ctx, watcher, answer)
    if job.status is not Status.PROCESSING:
        replay_to_subscriber(ctx, replace(watcher, attempt=job.attempt, offset=start), job)


def add_subscription(ctx: StreamingContext, connection: Connection, watched: str, attempt: int = 0, offset: int = 0) -> Subscription:
    """Put the row by which the connection is found: it watches a job, or a batch by the same rows.

    Raises:
        InvalidRequest: the connection has as many subscriptions as it may.
    """
    if not ctx.connections.subscribe(connection.id, watched):
        raise InvalidRequest(f"A connection may have {SUBSCRIPTIONS_PER_CONNECTION} subscriptions. Unsubscribe or open another one.")
    watcher = Subscription(
        job_id=watched,
        connection_id=connection.id,
        endpoint=connection.endpoint,
        key_hash=connection.caller.key_hash,
        attempt=attempt,
        offset=offset,
        subscription_id=ctx.new_id(),
        expires_at=connection.expires_at,
    )
    ctx.subscriptions.add(watcher)
    return watcher


def unsubscribe(ctx: StreamingContext, connection: Connection, job_id: str) -> None:
    """From a job, or a batch."""
    ctx.subscriptions.remove(job_id, connection.id)
    ctx.connections.unsubscribe(connection.id, job_id)


def replay_to_subscriber(ctx: StreamingContext, watcher: Subscription, job: Job) -> None:
    """Everything that is kept of a job that nobody works on, from the watcher's offset on, then its state."""
    offset, done = watcher.offset, False
    while not done:
        try:
            part = read_text(ctx.chunks, ctx.results, job, offset)
        except ResultExpired:
            send_frame(ctx, watcher, frames.gap(job, offset, None, ctx.clock.now()))
            break
        for text in split_text(part.text, MAX_FRAME_POINTS):
            send_frame(ctx, watcher, frames.tokens(job.id, job.attempt, job.version, offset, text, ctx.clock.now(), 0, None))
            offset += len(text)
        done = part.done or not part.text
    state = frames.state(job, ctx.clock.now())
    if state is not None:
        send_frame(ctx, watcher, state)


def broadcast_state(ctx: StreamingContext, job: Job) -> int:
    """Tell everybody who watches how the record stands, once more: the worker may have died before it could. How many were told."""
    state = frames.state(job, ctx.clock.now())
    told = 0
    now = ctx.clock.now()
    watchers = [watcher for watcher in ctx.subscriptions.for_job(job.id) if watcher.expires_at > now] if state else []
    for watcher in watchers:
        caller = ctx.caller_by_key_hash(watcher.key_hash)
        if caller is None or not caller.may_read_content(job):
            continue
        try:
            send_frame(ctx, watcher, state or {})
            told += 1
        except (ConnectionGone, ConnectionBusy):
            continue  # forgotten, or it asks by itself when it hears nothing
    return told


def send_reply(ctx: StreamingContext, endpoint: str, connection_id: str, frame: frames.Frame) -> None:
    """Answer a connection about no job.

    Raises:
        ConnectionGone: it is closed, and forgotten.
        ConnectionBusy: it asks again by itself when it hears nothing.
    """
    try:
        ctx.sockets.post(endpoint, connection_id, frames.encode(frame))
    except ConnectionRefused:
        raise
    except ConnectionGone:
        close_connection(ctx, connection_id)
        raise


def send_frame(ctx: StreamingContext, watcher: Subscription, frame: frames.Frame) -> None:
    """Tell a watcher something.

    Raises:
        ConnectionGone: it is closed, and forgotten.
        ConnectionBusy: it cannot take it now.
    """
    try:
        ctx.sockets.post(watcher.endpoint, watcher.connection_id, frames.encode(frame))
    except ConnectionGone as gone:
        drop_unreachable(ctx.connections, ctx.subscriptions, gone, watcher.connection_id, watcher.job_id)
        raise
