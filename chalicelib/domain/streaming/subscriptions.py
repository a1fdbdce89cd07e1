"""Connections, their subscriptions, and the control record that a worker polls."""

from __future__ import annotations

from dataclasses import dataclass
from zlib import crc32

from chalicelib.domain.auth.identity import Caller
from chalicelib.domain.units import Ms

SUBSCRIPTIONS_PER_CONNECTION = 50
# Code points; the end of a chunk is stored with ten digits and lies beyond its offset.
LAST_OFFSET = 9_999_999_998
CONNECTION_TTL_MS = 2 * 3600 * 1000  # AWS closes every WebSocket after two hours
GRACE_MS = 300_000  # how long the rows of a connection are kept after its end
# Partitions that hold all connections, so that they can be listed without a scan.
CONNECTION_SHARDS = 8
CLOSING_NOTICE_MS = 300_000  # how long before its end a client receives the `closing` frame


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """An open WebSocket."""

    id: str
    endpoint: str  # the URL to which its frames are posted, as API Gateway named it at the connect
    caller: Caller
    connected_at: Ms
    expires_at: Ms
    jobs: frozenset[str] = frozenset()  # that it is subscribed to
    window: int = 0  # the minute in which it last used units (`socket_budget`)
    used: int = 0  # units that it used in that minute, as far as they are written
    slot: int | None = None  # of its API key's connections; None: it was not sampled

    def used_in(self, window: int) -> int:
        """Return the units that it has used in this minute."""
        return self.used if self.window == window else 0


def slots_of(caller: Caller) -> str:
    """Return the semaphore of the connections of an API key."""
    return f"sockets#{caller.key_id}"


def connection_shard(connection_id: str) -> int:
    return crc32(connection_id.encode()) % CONNECTION_SHARDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """The subscription of one connection to one job or batch."""

    job_id: str  # or the id of a batch, for which attempt and offset have no meaning
    connection_id: str
    endpoint: str  # of the connection
    key_hash: str  # of the API key, which is checked again while frames are sent
    attempt: int
    offset: int  # frames start from here
    subscription_id: str  # changes when the connection subscribes again; sorts by time
    expires_at: Ms
    at: Ms = 0  # when it was made

    @property
    def closing_at(self) -> Ms:
        """When the client receives the `closing` frame."""
        return self.expires_at - GRACE_MS - CLOSING_NOTICE_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class JobControl:
    """What a worker reads once a second about the job that it runs."""

    subscribers_version: str = ""  # changes when the subscriptions change
    cancel: int = 0  # the generation to cancel, so that an old request does not stop a new run
    # Until then a client reads stored chunks (SSE, polling), so they are written more often.
    read_until: Ms = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """A short-lived, read-only credential, because browsers send no headers with streams.

    It is stored by its hash.
    """

    hash: str
    caller: Caller
    created_at: Ms
    expires_at: Ms
