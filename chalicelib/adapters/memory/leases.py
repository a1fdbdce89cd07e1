"""Leases in memory."""

from __future__ import annotations

import threading
from dataclasses import replace

from chalicelib.domain.errors import StaleVersion
from chalicelib.ports import Lease


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
