"""Who watches what: connections, their subscriptions to jobs and batches, and the bell that tells a worker to look."""

from __future__ import annotations

from dataclasses import dataclass
from zlib import crc32

from chalicelib.domain.auth.identity import Caller
from chalicelib.domain.units import Ms

SUBSCRIPTIONS_PER_CONNECTION = 50
LAST_OFFSET = 9_999_999_998  # in code points: where chunks end has ten digits, and they end beyond an offset
CONNECTION_TTL_MS = 2 * 3600 * 1000  # AWS closes every WebSocket after two hours
GRACE_MS = 300_000  # how long rows of a connection outlive it
CONNECTION_SHARDS = 8  # in which all connections are found without a scan
CLOSING_NOTICE_MS = 300_000  # how long before its end a connection is told of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """An open WebSocket. `endpoint` is where frames for it are posted, as the connection itself was told at its start."""

    id: str
    endpoint: str
    caller: Caller
    connected_at: Ms
    expires_at: Ms
    jobs: frozenset[str] = frozenset()


def connection_shard(connection_id: str) -> int:
    return crc32(connection_id.encode()) % CONNECTION_SHARDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """One connection's subscription to one job, from `offset` of `attempt` on. `since` changes when it subscribes anew.

    To a batch likewise: then `job_id` is the batch's, and attempt and offset say nothing.
    """

    job_id: str
    connection_id: str
    endpoint: str
    key_hash: str
    attempt: int
    offset: int
    subscription_id: str
    expires_at: Ms

    @property
    def closing_at(self) -> Ms:
        """When the client is to be told that its socket will be closed."""
        return self.expires_at - GRACE_MS - CLOSING_NOTICE_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class JobControl:
    """What a worker looks at once a second: `bell` changes whenever the watchers do; `cancel` is the generation
    that is asked to stop, so that an old wish does not stop a new run.

    `read_until` says until when somebody reads the table (SSE, polling), so that chunks are written more often.
    """

    subscribers_version: str = ""
    cancel: int = 0
    read_until: Ms = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """A short-lived, read-only permission for browsers, which cannot send headers on a stream. Stored by its hash."""

    hash: str
    caller: Caller
    created_at: Ms
    expires_at: Ms
