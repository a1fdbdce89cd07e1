"""Leases in memory."""

from __future__ import annotations

import threading
from dataclasses import replace

from chalicelib.domain.errors import StaleVersion
from chalicelib.ports import Lease


class MemoryLeases:
    """Tests may use `rows`, the leases by id."""

    def __init__(self) -> None:
        self.rows: dict[str, Lease] = {}
        self._lock = threading.Lock()

    def open(self, lease: Lease) -> None:
        with self._lock:
            self.rows[lease.id] = lease

    def renew(self, lease: Lease) -> None:
        with self._lock:
            stored = self.rows.get(lease.id)
            if stored is None or stored.fenced:
                raise StaleVersion(stored)
            self.rows[lease.id] = lease

    def close(self, lease: Lease) -> None:
        with self._lock:
            stored = self.rows.get(lease.id)
            if stored is not None and not stored.fenced:
                del self.rows[lease.id]

    def fence(self, seen: Lease) -> bool:
        with self._lock:
            stored = self.rows.get(seen.id)
            if stored is None or stored.expires_at != seen.expires_at:
                return False
            self.rows[seen.id] = replace(stored, fenced=True)
            return True

    def get(self, lease_id: str) -> Lease | None:
        with self._lock:
            return self.rows.get(lease_id)

    def all(self) -> list[Lease]:
        with self._lock:
            return list(self.rows.values())

    def delete_fenced(self, lease: Lease) -> None:
        with self._lock:
            stored = self.rows.get(lease.id)
            if stored is not None and stored.fenced:
                del self.rows[lease.id]
