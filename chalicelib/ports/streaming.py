"""Subscriptions, and the WebSocket connections and tickets of subscribers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from chalicelib.domain.streaming.subscriptions import Connection, JobControl, Subscription, Ticket
from chalicelib.domain.units import Ms


class Subscriptions(Protocol):
    """Stores subscriptions to jobs and batches, and the controls that workers read each second."""

    def add(self, subscription: Subscription, repeat_after: Ms = 0) -> bool:
        """Store the subscription, then change the job's `subscribers_version`.

        Two requests, in this order. A worker that sees the new version finds the subscription.

        Returns:
            False if the connection subscribed to the same position of the job less than
            `repeat_after` before: then that subscription stays.
        """

    def remove(self, job_id: str, connection_id: str) -> None:
        """Delete the subscription and change `subscribers_version`. Two requests."""

    def remove_closed(self, job_id: str, connection_id: str) -> None:
        """Delete the subscription of a connection that is closed.

        A worker that still sends to it learns that from API Gateway, so it need not be told.
        """

    def count(self, job_id: str, limit: int) -> int:
        """Count the subscriptions to a job, up to `limit`, not read consistently."""

    def for_job(self, job_id: str) -> list[Subscription]:
        """Return all readable subscriptions to a job, read consistently."""

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

    def charge(self, connection: Connection, window: int, units: int) -> int:
        """Add units to those that the connection, as it was read, has used in this minute.

        One request; two or three if other environments wrote meanwhile.

        Returns:
            All units that it has used in this minute; 0 if it is unknown.
        """

    def subscribe(self, connection: Connection, job_id: str, window: int, units: int) -> bool:
        """Add a job to the connection's subscriptions, and units to those of this minute.

        False if it has the maximum, or the connection is unknown. Requests as `charge`.
        """

    def unsubscribe(self, connection_id: str, job_id: str) -> None:
        """Remove a job from the connection's subscriptions."""

    def close(self, connection_id: str) -> Connection | None:
        """Delete the connection, free its slot if it has one, and return what was stored.

        One request, two with a slot.
        """

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
