"""Find WebSocket connections that closed without a `$disconnect`, which AWS does not guarantee.

A connection that gets frames is found when a post fails. For the others, each run asks API Gateway
about one shard of eight, at most a hundred connections: every connection is asked about every eight
minutes, less often if there are more than 800. Rows expire after two hours in any case.
"""

from __future__ import annotations

from collections import Counter
from enum import StrEnum

from chalicelib.domain.errors import ConnectionBusy, ConnectionRefused
from chalicelib.domain.streaming.subscriptions import Connection
from chalicelib.domain.units import Ms
from chalicelib.ports import Clock, Connections, Sockets, Subscriptions
from chalicelib.services.streaming.drop_connection import drop_connection

INTERVAL_MS = 60_000  # another shard each minute
MAX_PROBED = 100  # connections per run
MIN_AGE_MS = 60_000  # API Gateway does not know a connection until its `$connect` was answered
MAX_UNKNOWN = 3  # probes without an answer, after which the run stops


class ConnectionState(StrEnum):
    OPEN = "open"
    CLOSED = "closed"  # its `$disconnect` was lost
    EXPIRED = "expired"
    UNKNOWN = "unknown"  # API Gateway did not answer


def prune_stale_connections(
    clock: Clock, connections: Connections, sockets: Sockets, subscriptions: Subscriptions, deadline: Ms
) -> Counter[ConnectionState]:
    """Drop the closed and expired connections of this minute's shard.

    Returns:
        How many connections had each state, except open.

    Raises:
        Unavailable: a store did not answer; a later run finds the rest.
    """
    found: Counter[ConnectionState] = Counter()
    for connection in connections.sample(clock.now() // INTERVAL_MS, MAX_PROBED):
        now = clock.now()
        if now >= deadline or found[ConnectionState.UNKNOWN] >= MAX_UNKNOWN:
            break
        if now - connection.connected_at < MIN_AGE_MS:
            continue
        state = ConnectionState.EXPIRED if now >= connection.expires_at else _state_of(sockets, connection)
        if state in (ConnectionState.EXPIRED, ConnectionState.CLOSED):
            drop_connection(connections, subscriptions, connection.id)
        if state is not ConnectionState.OPEN:
            found[state] += 1
    return found


def _state_of(sockets: Sockets, connection: Connection) -> ConnectionState:
    try:
        return ConnectionState.OPEN if sockets.is_open(connection.endpoint, connection.id) else ConnectionState.CLOSED
    except (ConnectionBusy, ConnectionRefused):
        return ConnectionState.UNKNOWN
