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

from chalicelib.adapters.memory.limits import MemorySemaphores
from chalicelib.domain.errors import ConnectionBusy, ConnectionGone, ConnectionRefused
from chalicelib.domain.streaming.subscriptions import (
    CONNECTION_SHARDS,
    SUBSCRIPTIONS_PER_CONNECTION,
    Connection,
    JobControl,
    Subscription,
    Ticket,
    connection_shard,
    slots_of,
)
from chalicelib.domain.units import Ms


class MemorySubscriptions:
    def __init__(self) -> None:
        self._subscriptions: dict[str, dict[str, Subscription]] = {}
        self._controls: dict[str, JobControl] = {}
        self._lock = threading.RLock()

    def add(self, subscription: Subscription, repeat_after: Ms = 0) -> bool:
        with self._lock:
            rows = self._subscriptions.setdefault(subscription.job_id, {})
            stored = rows.get(subscription.connection_id)
            if repeat_after and stored is not None and stored.subscription_id != subscription.subscription_id:
                is_same = (stored.attempt, stored.offset) == (subscription.attempt, subscription.offset)
                if is_same and stored.at > subscription.at - repeat_after:
                    return False
            rows[subscription.connection_id] = subscription
            self._change_version(subscription.job_id)
            return True

    def count(self, job_id: str, limit: int) -> int:
        with self._lock:
            return min(limit, len(self._subscriptions.get(job_id, {})))

    def remove(self, job_id: str, connection_id: str) -> None:
        with self._lock:
            self._subscriptions.get(job_id, {}).pop(connection_id, None)
            if job_id in self._controls:
                self._change_version(job_id)

    def remove_closed(self, job_id: str, connection_id: str) -> None:
        with self._lock:
            self._subscriptions.get(job_id, {}).pop(connection_id, None)

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
    def __init__(self, semaphores: MemorySemaphores | None = None) -> None:
        self._semaphores = semaphores or MemorySemaphores()
        self._connections: dict[str, Connection] = {}
        self._lock = threading.Lock()

    def open(self, connection: Connection) -> None:
        with self._lock:
            self._connections[connection.id] = connection

    def get(self, connection_id: str) -> Connection | None:
        with self._lock:
            return self._connections.get(connection_id)

    def charge(self, connection: Connection, window: int, units: int) -> int:
        with self._lock:
            stored = self._connections.get(connection.id)
            if stored is None:
                return 0
            self._connections[connection.id] = _spend(stored, window, units)
            return self._connections[connection.id].used_in(window)

    def subscribe(self, connection: Connection, job_id: str, window: int, units: int) -> bool:
        with self._lock:
            stored = self._connections.get(connection.id)
            if stored is None or (job_id not in stored.jobs and len(stored.jobs) >= SUBSCRIPTIONS_PER_CONNECTION):
                return False
            self._connections[connection.id] = replace(_spend(stored, window, units), jobs=stored.jobs | {job_id})
            return True

    def unsubscribe(self, connection_id: str, job_id: str) -> None:
        with self._lock:
            if stored := self._connections.get(connection_id):
                self._connections[connection_id] = replace(stored, jobs=stored.jobs - {job_id})

    def close(self, connection_id: str) -> Connection | None:
        with self._lock:
            closed = self._connections.pop(connection_id, None)
        if closed is not None and closed.slot is not None:
            self._semaphores.release(slots_of(closed.caller), closed.slot, closed.id)
        return closed

    def sample(self, part: int, limit: int) -> list[Connection]:
        with self._lock:
            found = [one for one in self._connections.values() if connection_shard(one.id) == part % CONNECTION_SHARDS]
        return random.sample(found, min(limit, len(found)))


def _spend(stored: Connection, window: int, units: int) -> Connection:
    current = max(window, stored.window)
    return replace(stored, window=current, used=stored.used_in(current) + units)


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
