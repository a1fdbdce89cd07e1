"""Forget a WebSocket that is closed, wherever it was found to be."""

from __future__ import annotations

from chalicelib.domain.errors import ConnectionGone, ConnectionRefused
from chalicelib.ports import Connections, Subscriptions


def drop_connection(connections: Connections, watchers: Subscriptions, connection_id: str, job_id: str = "") -> None:
    """Its row and all its subscriptions; `job_id` is the one by which it was found, whose row may be there without the connection's.

    API Gateway gives each connection an id of its own and never gives it again, so whoever came back is another one and stays.
    """
    connection = connections.close(connection_id)
    jobs = set(connection.jobs) if connection else set()
    for watched in sorted(jobs | {job_id} - {""}):
        watchers.remove(watched, connection_id)


def drop_unreachable(connections: Connections, watchers: Subscriptions, gone: ConnectionGone, connection_id: str, job_id: str) -> None:
    """What is forgotten after a post that failed: all of a connection that is closed; one that only refuses loses this subscription."""
    if isinstance(gone, ConnectionRefused):
        watchers.remove(job_id, connection_id)
    else:
        drop_connection(connections, watchers, connection_id, job_id)
