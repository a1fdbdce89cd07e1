"""WebSocket connections: open and close them, subscribe to jobs, replay text, send frames."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from chalicelib.domain.auth.identity import Caller
from chalicelib.domain.errors import (
    ConnectionGone,
    ConnectionRefused,
    ConnectionUnknown,
    InvalidRequest,
    ResultExpired,
    TooManyWatchers,
    Unauthenticated,
)
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.streaming import frames
from chalicelib.domain.streaming.socket_budget import (
    MAX_WATCHERS,
    POLL_SECONDS,
    RESUBSCRIBE_MS,
    SUBSCRIBE_UNITS,
    replay_units,
    window_of,
)
from chalicelib.domain.streaming.subscriptions import CONNECTION_TTL_MS, GRACE_MS, SUBSCRIPTIONS_PER_CONNECTION, Connection, Subscription
from chalicelib.domain.text import MAX_FRAME_POINTS, split_text
from chalicelib.ports import Chunks, Jobs, Results
from chalicelib.services.scheduling.waits import WaitContext, describe_wait
from chalicelib.services.streaming.drop_connection import drop_connection, drop_unreachable
from chalicelib.services.streaming.read_text import read_text
from chalicelib.services.streaming.socket_meter import MeterContext, admit_connection


class StreamingContext(MeterContext, WaitContext, Protocol):
    """What subscribing and broadcasting need.

    `caller_by_key_hash` returns the caller of an API key, None if it is revoked or has expired.
    """

    @property
    def jobs(self) -> Jobs: ...
    @property
    def chunks(self) -> Chunks: ...
    @property
    def results(self) -> Results: ...
    def new_id(self) -> str: ...
    def caller_by_key_hash(self, key_hash: str) -> Caller | None: ...


def open_connection(ctx: StreamingContext, connection_id: str, endpoint: str, caller: Caller) -> Connection:
    """Store a WebSocket connection with its caller, and return it.

    Raises:
        TooManyConnections: the API key has about as many open ones as it may.
        RateLimited: it has opened too many in this minute.
    """
    now = ctx.clock.now()
    connection = Connection(
        id=connection_id, endpoint=endpoint, caller=caller, connected_at=now, expires_at=now + CONNECTION_TTL_MS + GRACE_MS
    )
    connection = admit_connection(ctx, connection)
    ctx.connections.open(connection)
    return connection


def close_connection(ctx: StreamingContext, connection_id: str) -> None:
    """Delete a WebSocket connection and its subscriptions."""
    drop_connection(ctx.connections, ctx.subscriptions, connection_id)


def get_connection(ctx: StreamingContext, connection_id: str) -> Connection:
    """The connection, with the present rights of its API key.

    Raises:
        ConnectionUnknown: there is no such connection, or it has expired.
        Unauthenticated: the key has been revoked or has expired.
    """
    connection = ctx.connections.get(connection_id)
    if connection is None or ctx.clock.now() >= connection.expires_at:
        raise ConnectionUnknown
    present = ctx.caller_by_key_hash(connection.caller.key_hash)
    if present is None:
        raise Unauthenticated
    return replace(connection, caller=present.restricted_to(connection.caller))


def subscribe(ctx: StreamingContext, connection: Connection, job_id: str, attempt: int, offset: int, reply_to: str | None) -> None:
    """Subscribe the connection to a job from `offset` of `attempt` on.

    The subscription is stored before the record is read (protocol rule 14: write first, then read).
    So either the worker finds the subscription and sends the rest, or the record shows that no
    worker processes the job, and its text is replayed here.

    A subscription that repeats the one before within seconds changes nothing: what that one began
    continues.

    Raises:
        JobNotFound, Forbidden: the caller may not read the job's content.
        InvalidRequest: the connection has the maximum number of subscriptions.
        TooManyWatchers: the job has the maximum number of live subscribers.
    """
    caller = connection.caller
    before = caller.require_readable(ctx.jobs.get(job_id), job_id)
    replayed = 0 if before.status is Status.PROCESSING else (before.length or 0) - (offset if attempt == before.attempt else 0)
    subscription, is_new = add_subscription(ctx, connection, job_id, attempt, offset, replay_units(replayed))
    job = caller.require_readable(ctx.jobs.get(job_id), job_id)
    start = offset if attempt == job.attempt else 0
    reply = {"reply_to": reply_to} if reply_to is not None else {}
    send_frame(ctx, subscription, {**frames.connected(job, start, ctx.clock.now()), **reply})
    if is_new and job.status is not Status.PROCESSING:
        replay_to_subscriber(ctx, replace(subscription, attempt=job.attempt, offset=start), job)


def add_subscription(
    ctx: StreamingContext, connection: Connection, subject_id: str, attempt: int = 0, offset: int = 0, units: int = 0
) -> tuple[Subscription, bool]:
    """Store a subscription of the connection to a job or a batch.

    Args:
        units: what it will send, for the connection's budget, which is written together with it.

    Returns:
        The subscription, and False if it only repeats the one before.

    Raises:
        InvalidRequest: the connection has the maximum number of subscriptions.
        TooManyWatchers: the subject has the maximum number of live subscribers.
    """
    now = ctx.clock.now()
    if subject_id not in connection.jobs and ctx.subscriptions.count(subject_id, MAX_WATCHERS) >= MAX_WATCHERS:
        raise TooManyWatchers(subject_id, retry_after=POLL_SECONDS)
    window = window_of(now)
    spent = ctx.socket_meter.take(connection.id, window) + SUBSCRIBE_UNITS + units
    if not ctx.connections.subscribe(connection, subject_id, window, spent):
        raise InvalidRequest(f"A connection may have {SUBSCRIPTIONS_PER_CONNECTION} subscriptions. Unsubscribe or open another one.")
    subscription = Subscription(
        job_id=subject_id,
        connection_id=connection.id,
        endpoint=connection.endpoint,
        key_hash=connection.caller.key_hash,
        attempt=attempt,
        offset=offset,
        subscription_id=ctx.new_id(),
        expires_at=connection.expires_at,
        at=now,
    )
    return subscription, ctx.subscriptions.add(subscription, RESUBSCRIBE_MS)


def unsubscribe(ctx: StreamingContext, connection: Connection, subject_id: str) -> None:
    """End the connection's subscription to a job or a batch."""
    ctx.subscriptions.remove(subject_id, connection.id)
    ctx.connections.unsubscribe(connection.id, subject_id)


def replay_to_subscriber(ctx: StreamingContext, subscription: Subscription, job: Job) -> None:
    """Send the stored text from the subscription's offset on, then the state.

    Only for a job that is not being processed: otherwise its worker sends the rest.
    """
    offset, done = subscription.offset, False
    while not done:
        try:
            part = read_text(ctx.chunks, ctx.results, job, offset)
        except ResultExpired:
            send_frame(ctx, subscription, frames.gap(job, offset, None, ctx.clock.now()))
            break
        for text in split_text(part.text, MAX_FRAME_POINTS):
            send_frame(ctx, subscription, frames.tokens(job.id, job.attempt, job.version, offset, text, ctx.clock.now(), 0, None))
            offset += len(text)
        done = part.done or not part.text
    state = frames.state(job, ctx.clock.now(), describe_wait(ctx, job))
    if state is not None:
        send_frame(ctx, subscription, state)


def send_reply(ctx: StreamingContext, endpoint: str, connection_id: str, frame: frames.Frame) -> None:
    """Send a frame that belongs to no subscription. A closed connection is deleted.

    Raises:
        ConnectionGone: the connection is closed or refuses frames.
        ConnectionBusy: the connection takes no frames now; the client asks again after silence.
    """
    try:
        ctx.sockets.post(endpoint, connection_id, frames.encode(frame))
    except ConnectionRefused:
        raise
    except ConnectionGone:
        close_connection(ctx, connection_id)
        raise


def send_frame(ctx: StreamingContext, subscription: Subscription, frame: frames.Frame) -> None:
    """Send a frame to a subscriber. A subscriber that cannot be reached is dropped.

    Raises:
        ConnectionGone: the connection is closed or refuses frames.
        ConnectionBusy: the connection takes no frames now.
    """
    try:
        ctx.sockets.post(subscription.endpoint, subscription.connection_id, frames.encode(frame))
    except ConnectionGone as gone:
        drop_unreachable(ctx.connections, ctx.subscriptions, gone, subscription.connection_id, subscription.job_id)
        raise
