"""Subscriptions, WebSocket connections and tickets in memory."""

from __future__ import annotations

import json
import random
import threading
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from ulid import ULID

from chalicelib.domain.errors import ConnectionBusy, ConnectionGone, ConnectionRefused
from chalicelib.domain.streaming.subscriptions import (
    CONNECTION_SHARDS,
    SUBSCRIPTIONS_PER_CONNECTION,
    Connection,
    JobControl,
    Subscription,
    Ticket,
    connection_shard,
)
from chalicelib.domain.units import Ms


class MemorySubscriptions:
    def __init__(self) -> None:
        self._subscriptions: dict[str, dict[str, Subscription]] = {}
        self._controls: dict[str, JobControl] = {}
        self._lock = threading.RLock()

    def add(self, subscription: Subscription) -> None:
        with self._lock:
            self._subscriptions.setdefault(subscription.job_id, {})[subscription.connection_id] = subscription
            self._change_version(subscription.job_id)

    def remove(self, job_id: str, connection_id: str) -> None:
        with self._lock:
            self._subscriptions.get(job_id, {}).pop(connection_id, None)
            if job_id in self._controls:
                self._change_version(job_id)

    def for_job(self, job_id: str) -> list[Subscription]:
        with self._lock:
            subscriptions = self._subscriptions.get(job_id, {})
            return [subscriptions[connection] for connection in sorted(subscriptions)]

    def request_cancel(self, job_id: str, generation: int, ttl: int) -> None:
        with self._lock:
            self._controls[job_id] = replace(self._control(job_id), cancel=generation)

    def announce_reader(self, job_id: str, until: Ms) -> None:
        with self._lock:
            self._controls[job_id] = replace(self._control(job_id), read_until=until)

    def controls(self, job_ids: Sequence[str], *, consistent: bool = False) -> dict[str, JobControl]:
        with self._lock:
            return {job_id: self._controls[job_id] for job_id in job_ids if job_id in self._controls}

    def delete_all(self, job_id: str) -> None:
        with self._lock:
            self._subscriptions.pop(job_id, None)
            self._controls.pop(job_id, None)

    def _change_version(self, job_id: str) -> None:
        self._controls[job_id] = replace(self._control(job_id), subscribers_version=str(ULID()))

    def _control(self, job_id: str) -> JobControl:
        return self._controls.get(job_id, JobControl())


class MemoryConnections:
    def __init__(self) -> None:
        self._connections: dict[str, Connection] = {}
        self._lock = threading.Lock()

    def open(self, connection: Connection) -> None:
        with self._lock:
            self._connections[connection.id] = connection

    def get(self, connection_id: str) -> Connection | None:
        with self._lock:
            return self._connections.get(connection_id)

    def subscribe(self, connection_id: str, job_id: str) -> bool:
        with self._lock:
            stored = self._connections.get(connection_id)
            if stored is None or (job_id not in stored.jobs and len(stored.jobs) >= SUBSCRIPTIONS_PER_CONNECTION):
                return False
            self._connections[connection_id] = replace(stored, jobs=stored.jobs | {job_id})
            return True

    def unsubscribe(self, connection_id: str, job_id: str) -> None:
        with self._lock:
            if stored := self._connections.get(connection_id):
                self._connections[connection_id] = replace(stored, jobs=stored.jobs - {job_id})

    def close(self, connection_id: str) -> Connection | None:
        with self._lock:
            return self._connections.pop(connection_id, None)

    def sample(self, part: int, limit: int) -> list[Connection]:
        with self._lock:
            found = [one for one in self._connections.values() if connection_shard(one.id) == part % CONNECTION_SHARDS]
        return random.sample(found, min(limit, len(found)))


class MemoryTickets:
    def __init__(self) -> None:
        self._tickets: dict[str, Ticket] = {}
        self._used: dict[str, str] = {}
        self._lock = threading.Lock()

    def put(self, ticket: Ticket) -> None:
        with self._lock:
            self._tickets[ticket.hash] = ticket

    def get(self, ticket_hash: str) -> Ticket | None:
        with self._lock:
            return self._tickets.get(ticket_hash)

    def use(self, ticket_hash: str, connection_id: str) -> bool:
        with self._lock:
            return ticket_hash in self._tickets and self._used.setdefault(ticket_hash, connection_id) == connection_id


class MemorySockets:
    """Tests may use `frames`, decoded and by connection, and set `gone`, `refused` and `busy`."""

    def __init__(self) -> None:
        self.frames: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        self.endpoints: dict[str, str] = {}
        self.closed: list[str] = []
        self.gone: set[str] = set()
        self.refused: set[str] = set()
        self.busy: defaultdict[str, int] = defaultdict(int)  # how many more calls raise `ConnectionBusy`
        self._lock = threading.Lock()

    def post(self, endpoint: str, connection_id: str, data: bytes) -> None:
        with self._lock:
            self._raise_if_unreachable(connection_id)
            if connection_id in self.gone:
                raise ConnectionGone
            self.endpoints[connection_id] = endpoint
            self.frames[connection_id].append(json.loads(data))

    def close(self, endpoint: str, connection_id: str) -> None:
        with self._lock:
            self.closed.append(connection_id)
            self.gone.add(connection_id)

    def is_open(self, endpoint: str, connection_id: str) -> bool:
        with self._lock:
            self._raise_if_unreachable(connection_id)
            return connection_id not in self.gone

    def _raise_if_unreachable(self, connection_id: str) -> None:
        if connection_id in self.refused:
            raise ConnectionRefused
        if self.busy[connection_id] > 0:
            self.busy[connection_id] -= 1
            raise ConnectionBusy

    def events(self, connection_id: str, names: Iterable[str] = ()) -> list[dict[str, Any]]:
        """Return the frames of one connection with these events, or all."""
        wanted = set(names)
        with self._lock:
            return [frame for frame in self.frames[connection_id] if not wanted or frame["event"] in wanted]
