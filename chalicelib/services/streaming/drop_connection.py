"""Remove WebSocket connections that are closed, with their subscriptions."""

from __future__ import annotations

from chalicelib.domain.errors import ConnectionGone, ConnectionRefused
from chalicelib.ports import Connections, Subscriptions


def drop_connection(connections: Connections, subscriptions: Subscriptions, connection_id: str, job_id: str = "") -> None:
    """Delete a connection and all its subscriptions.

    API Gateway never reuses a connection id, so a client that reconnects is not affected.

    Args:
        job_id: the job whose subscription led to the connection; that row may exist without the
            connection's own.
    """
    connection = connections.close(connection_id)
    jobs = set(connection.jobs) if connection else set()
    for subscribed in sorted(jobs | {job_id} - {""}):
        subscriptions.remove_closed(subscribed, connection_id)


def drop_unreachable(connections: Connections, subscriptions: Subscriptions, gone: ConnectionGone, connection_id: str, job_id: str) -> None:
    """Clean up after a frame that could not be posted.

    A closed connection is deleted. One that API Gateway refuses frames for may still be open, so it
    loses only this subscription.
    """
    if isinstance(gone, ConnectionRefused):
        subscriptions.remove(job_id, connection_id)
    else:
        drop_connection(connections, subscriptions, connection_id, job_id)
