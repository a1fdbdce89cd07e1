"""In memory: what may vanish, and what an account is."""

from __future__ import annotations

import random
import threading
from dataclasses import replace

from chalicelib.domain.auth.identity import Key
from chalicelib.domain.errors import StaleVersion
from chalicelib.domain.execution.response_cache import CachedResponse
from chalicelib.domain.jobs.bulk_operation import BulkOperation
from chalicelib.domain.limits.circuit_breaker import CircuitBreaker
from chalicelib.domain.streaming.subscriptions import CONNECTION_SHARDS, SUBSCRIPTIONS_PER_CONNECTION, Connection, Ticket, connection_shard
from chalicelib.domain.units import Ms
from chalicelib.ports import Lease


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
            there = self._connections.get(connection_id)
            if there is None or (job_id not in there.jobs and len(there.jobs) >= SUBSCRIPTIONS_PER_CONNECTION):
                return False
            self._connections[connection_id] = replace(there, jobs=there.jobs | {job_id})
            return True

    def unsubscribe(self, connection_id: str, job_id: str) -> None:
        with self._lock:
            if there := self._connections.get(connection_id):
                self._connections[connection_id] = replace(there, jobs=there.jobs - {job_id})

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


class MemoryLeases:
    """`rows` is open to tests: the leases that are open or not buried yet."""

    def __init__(self) -> None:
        self.rows: dict[str, Lease] = {}
        self._lock = threading.Lock()

    def open(self, lease: Lease) -> None:
        with self._lock:
            self.rows[lease.id] = lease

    def renew(self, lease: Lease) -> None:
        with self._lock:
            there = self.rows.get(lease.id)
            if there is None or there.fenced:
                raise StaleVersion(there)
            self.rows[lease.id] = lease

    def close(self, lease: Lease) -> None:
        with self._lock:
            there = self.rows.get(lease.id)
            if there is not None and not there.fenced:
                del self.rows[lease.id]

    def fence(self, seen: Lease) -> bool:
        """Declare the lease dead if it has not been renewed since it was read."""
        with self._lock:
            there = self.rows.get(seen.id)
            if there is None or there.expires_at != seen.expires_at:
                return False
            self.rows[seen.id] = replace(there, fenced=True)
            return True

    def get(self, lease_id: str) -> Lease | None:
        with self._lock:
            return self.rows.get(lease_id)

    def all(self) -> list[Lease]:
        with self._lock:
            return list(self.rows.values())

    def delete_fenced(self, lease: Lease) -> None:
        with self._lock:
            there = self.rows.get(lease.id)
            if there is not None and there.fenced:
                del self.rows[lease.id]


class MemoryCircuitBreakers:
    def __init__(self) -> None:
        self._circuits: dict[str, CircuitBreaker] = {}
        self._lock = threading.Lock()

    def all(self) -> list[CircuitBreaker]:
        with self._lock:
            return sorted(self._circuits.values(), key=lambda circuit: circuit.model)

    def get(self, model: str) -> CircuitBreaker | None:
        with self._lock:
            return self._circuits.get(model)

    def replace(self, seen: CircuitBreaker, new: CircuitBreaker) -> None:
        with self._lock:
            current = self._circuits.get(seen.model)
            if current == new:
                return
            if (current.version if current else 0) != seen.version:
                raise StaleVersion(current)
            self._circuits[seen.model] = new


class MemoryResponseCache:
    """`rows` is open to tests: references by tenant and key."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], CachedResponse] = {}

    def get(self, tenant: str, key: str) -> CachedResponse | None:
        return self.rows.get((tenant, key))

    def put(self, tenant: str, key: str, cached: CachedResponse) -> None:
        self.rows[tenant, key] = cached


class MemoryBulkOperations:
    """`rows` is open to tests."""

    def __init__(self) -> None:
        self.rows: dict[str, BulkOperation] = {}
        self._lock = threading.Lock()

    def create(self, bulk: BulkOperation) -> None:
        with self._lock:
            self.rows.setdefault(bulk.id, bulk)

    def get(self, tenant: str, bulk_id: str) -> BulkOperation | None:
        with self._lock:
            found = self.rows.get(bulk_id)
        return found if found is not None and found.tenant == tenant else None

    def replace(self, seen: BulkOperation, new: BulkOperation) -> None:
        with self._lock:
            current = self.rows.get(seen.id)
            if current == new:
                return
            if current is None or current.version != seen.version:
                raise StaleVersion(current)
            self.rows[seen.id] = new

    def unfinished(self, now: Ms, limit: int) -> list[BulkOperation]:
        with self._lock:
            left = [bulk for bulk in self.rows.values() if bulk.finished_at is None and bulk.locked_until <= now]
        return sorted(left, key=lambda bulk: bulk.id)[:limit]


class MemorySemaphores:
    def __init__(self) -> None:
        self._taken: dict[tuple[str, int], Ms] = {}
        self._lock = threading.Lock()

    def acquire(self, name: str, size: int, until: Ms, now: Ms) -> int | None:
        with self._lock:
            for slot in range(size):
                if self._taken.get((name, slot), 0) <= now:
                    self._taken[name, slot] = until
                    return slot
        return None

    def release(self, name: str, slot: int) -> None:
        with self._lock:
            self._taken.pop((name, slot), None)


class MemoryRequestCounters:
    def __init__(self) -> None:
        self._counts: dict[tuple[str, int], int] = {}
        self._lock = threading.Lock()

    def increment(self, name: str, window: int, ttl: int) -> int:
        with self._lock:
            self._counts[name, window] = self._counts.get((name, window), 0) + 1
            return self._counts[name, window]


class MemoryApiKeys:
    """`addresses` is what a deployment would have written."""

    def __init__(self, addresses: dict[str, str] | None = None) -> None:
        self.addresses = addresses or {}
        self._keys: dict[str, Key] = {}
        self._lock = threading.Lock()

    def key(self, key_hash: str) -> Key | None:
        with self._lock:
            return self._keys.get(key_hash)

    def put_key(self, key: Key) -> None:
        with self._lock:
            self._keys[key.hash] = key

    def keys(self, tenant: str) -> list[Key]:
        with self._lock:
            return sorted((key for key in self._keys.values() if key.tenant == tenant), key=lambda key: key.id)

    def endpoints(self) -> dict[str, str]:
        return dict(self.addresses)
