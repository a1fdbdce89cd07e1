"""Find WebSockets that have gone without a `$disconnect`, which AWS does not promise, and to which nobody posts.

A post to such a connection finds it by itself. For the others, each run asks API Gateway about some: one part of eight a minute, so each
connection every eight minutes, and at most a hundred a run. Where there are more than 800, the rest are asked less often; the row of a
connection that is never asked about ends with its time, two hours after it was opened.
"""

from __future__ import annotations

from collections import Counter
from enum import StrEnum

from chalicelib.domain.errors import ConnectionBusy, ConnectionRefused
from chalicelib.domain.streaming.subscriptions import Connection
from chalicelib.domain.units import Ms
from chalicelib.ports import Clock, Connections, Sockets, Subscriptions
from chalicelib.services.streaming.drop_connection import drop_connection

INTERVAL_MS = 60_000  # another part each minute
MAX_PROBED = 100  # connections of one run
MIN_AGE_MS = 60_000  # until `$connect` was answered API Gateway says that there is no such connection
BUSY_ENOUGH = 3  # unanswered questions, after which this run asks no more


class ConnectionState(StrEnum):
    OPEN = "open"
    CLOSED = "closed"  # without a `$disconnect` that reached us
    EXPIRED = "expired"
    UNKNOWN = "unknown"  # API Gateway did not say


def prune_stale_connections(
    clock: Clock, connections: Connections, sockets: Sockets, subscriptions: Subscriptions, deadline: Ms
) -> Counter[ConnectionState]:
    """Forget connections of this minute's part that are closed or whose time is over. The answer counts them.

    Raises:
        Unavailable: a store did not answer; what is left is found another time.
    """
    found: Counter[ConnectionState] = Counter()
    for connection in connections.sample(clock.now() // INTERVAL_MS, MAX_PROBED):
        now = clock.now()
        if now >= deadline or found[ConnectionState.UNKNOWN] >= BUSY_ENOUGH:
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
