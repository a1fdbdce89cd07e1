"""Subscriptions, and the WebSocket connections to which text is streamed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from chalicelib.domain.streaming.subscriptions import Connection, JobControl, Subscription, Ticket
from chalicelib.domain.units import Ms


class Subscriptions(Protocol):
    """Subscriptions of connections to jobs, and each job's bell."""

    def add(self, watcher: Subscription) -> None:
        """Put the row, then ring the bell: two requests, in this order."""

    def remove(self, job_id: str, connection_id: str) -> None: ...

    def for_job(self, job_id: str) -> list[Subscription]:
        """Everybody who watches, read consistently."""

    def request_cancel(self, job_id: str, generation: int, ttl: int) -> None:
        """Tell the worker of this generation, which looks here once a second, to stop."""

    def announce_reader(self, job_id: str, until: Ms) -> None:
        """Tell the worker that somebody reads the log."""

    def controls(self, job_ids: Sequence[str]) -> dict[str, JobControl]:
        """The controls of many jobs in one request; those without one are left out."""


class Connections(Protocol):
    def open(self, connection: Connection) -> None: ...

    def get(self, connection_id: str) -> Connection | None: ...

    def subscribe(self, connection_id: str, job_id: str) -> bool:
        """Note the subscription. False: the connection has as many as it may, or is not known."""

    def unsubscribe(self, connection_id: str, job_id: str) -> None: ...

    def close(self, connection_id: str) -> Connection | None:
        """Forget the connection; the answer says what it was subscribed to."""

    def sample(self, part: int, limit: int) -> list[Connection]:
        """At most `limit` connections of one of the eight parts that all are in: one or two requests.

        If there are more, others each time.
        """


class Tickets(Protocol):
    def put(self, ticket: Ticket) -> None: ...

    def get(self, ticket_hash: str) -> Ticket | None: ...

    def use(self, ticket_hash: str, connection_id: str) -> bool:
        """Mark it as used by one connection. False: another has used it."""


class Sockets(Protocol):
    def post(self, endpoint: str, connection_id: str, data: bytes) -> None:
        """Post one frame.

        Raises:
            ConnectionGone: forget it.
            ConnectionRefused: it is not known to be closed, but no post to it would fare better.
            ConnectionBusy: slow down, and post from the last acknowledged offset again.
        """

    def is_open(self, endpoint: str, connection_id: str) -> bool:
        """Whether the connection is still there.

        Raises:
            ConnectionRefused, ConnectionBusy: it cannot be told.
        """

    def close(self, endpoint: str, connection_id: str) -> None: ...
