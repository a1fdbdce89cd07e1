"""Subscriptions, and the WebSocket connections and tickets of subscribers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from chalicelib.domain.streaming.subscriptions import Connection, JobControl, Subscription, Ticket
from chalicelib.domain.units import Ms


class Subscriptions(Protocol):
    """Stores subscriptions to jobs and batches, and the controls that workers read each second."""

    def add(self, subscription: Subscription) -> None:
        """Store the subscription, then change the job's `subscribers_version`.

        Two requests, in this order. A worker that sees the new version finds the subscription.
        """

    def remove(self, job_id: str, connection_id: str) -> None:
        """Delete the subscription and change `subscribers_version`. Two requests."""

    def for_job(self, job_id: str) -> list[Subscription]:
        """Return all subscriptions to a job, read consistently."""

    def request_cancel(self, job_id: str, generation: int, ttl: int) -> None:
        """Ask the worker of this generation to stop. `ttl` in seconds since 1970."""

    def announce_reader(self, job_id: str, until: Ms) -> None:
        """Tell the worker that a client polls the text until then.

        It then writes chunks more often.
        """

    def controls(self, job_ids: Sequence[str], *, consistent: bool = False) -> dict[str, JobControl]:
        """Return the controls of those jobs that have any. One request for each hundred.

        Read consistently, a job without a `subscribers_version` has no subscription that was
        stored before.
        """


class Connections(Protocol):
    """Stores the open WebSocket connections."""

    def open(self, connection: Connection) -> None:
        """Store a new connection."""

    def get(self, connection_id: str) -> Connection | None:
        """Return the connection, read consistently."""

    def subscribe(self, connection_id: str, job_id: str) -> bool:
        """Add a job to the connection's subscriptions.

        False if it has the maximum, or the connection is unknown.
        """

    def unsubscribe(self, connection_id: str, job_id: str) -> None:
        """Remove a job from the connection's subscriptions."""

    def close(self, connection_id: str) -> Connection | None:
        """Delete the connection and return what was stored."""

    def sample(self, part: int, limit: int) -> list[Connection]:
        """Return at most `limit` connections of one of eight partitions, from a random position on.

        One or two requests.
        """


class Tickets(Protocol):
    """Stores tickets by the hash of their secret. A ticket opens one connection."""

    def put(self, ticket: Ticket) -> None:
        """Store a new ticket."""

    def get(self, ticket_hash: str) -> Ticket | None:
        """Return the ticket, read consistently, also a used or expired one."""

    def use(self, ticket_hash: str, connection_id: str) -> bool:
        """Mark the ticket as used by a connection. False if another connection has used it.

        Repeatable.
        """


class Sockets(Protocol):
    """Sends frames to WebSocket connections.

    `endpoint` is the one that the connection recorded when it opened.
    """

    def post(self, endpoint: str, connection_id: str, data: bytes) -> None:
        """Send one frame.

        Raises:
            ConnectionGone: the connection is closed; delete it.
            ConnectionRefused: it may be open, but no frame to it would be accepted.
            ConnectionBusy: send again later, from the last acknowledged offset.
        """

    def is_open(self, endpoint: str, connection_id: str) -> bool:
        """Return whether the connection is still open.

        Raises:
            ConnectionRefused, ConnectionBusy: the gateway did not say.
        """

    def close(self, endpoint: str, connection_id: str) -> None:
        """Close the connection, if it is open."""
