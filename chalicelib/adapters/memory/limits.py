"""Circuit breakers, pauses, limits of tenants, semaphores and request counters in memory."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from chalicelib.adapters.memory.record_table import RecordTable
from chalicelib.domain.errors import StaleVersion
from chalicelib.domain.limits.circuit_breaker import CircuitBreaker
from chalicelib.domain.limits.pauses import PauseBoard, TenantPauses
from chalicelib.domain.limits.tenant_limits import TenantLimits
from chalicelib.domain.units import Ms


class MemoryPauses:
    """Tests may use `tenants`, the records by tenant."""

    def __init__(self) -> None:
        self._board, self.tenants = PauseBoard(), dict[str, TenantPauses]()
        self._lock = threading.Lock()

    def board(self) -> PauseBoard:
        with self._lock:
            return self._board

    def of_tenant(self, tenant: str, *, consistent: bool = False) -> TenantPauses:
        with self._lock:
            return self.tenants.get(tenant) or TenantPauses(tenant=tenant)

    def replace_board(self, seen: PauseBoard, new: PauseBoard) -> None:
        with self._lock:
            if self._board == new:
                return
            if self._board.version != seen.version:
                raise StaleVersion(self._board if self._board.version else None)
            self._board = new

    def replace_tenant(self, seen: TenantPauses, new: TenantPauses, seen_board: PauseBoard, new_board: PauseBoard) -> None:
        with self._lock:
            current = self.tenants.get(new.tenant) or TenantPauses(tenant=new.tenant)
            if (current, self._board) == (new, new_board):
                return
            if (current.version, self._board.version) != (seen.version, seen_board.version):
                raise StaleVersion(None)
            self.tenants[new.tenant], self._board = new, new_board

    def page(self, before: str | None, limit: int) -> tuple[list[TenantPauses], str | None]:
        with self._lock:
            names = sorted((name for name in self.tenants if before is None or name < before), reverse=True)
            page = [self.tenants[name] for name in names[:limit]]
        return page, page[-1].tenant if len(names) > limit else None


class MemoryCircuitBreakers:
    def __init__(self, pauses: MemoryPauses | None = None) -> None:
        self._pauses = pauses or MemoryPauses()
        self._table: RecordTable[str, CircuitBreaker] = RecordTable(lambda circuit: circuit.model, absent_version=0)
        self.get, self.replace = self._table.get, self._table.replace

    def all(self) -> list[CircuitBreaker]:
        return self._table.select(lambda _: True, lambda circuit: circuit.model)

    def all_with_board(self) -> tuple[list[CircuitBreaker], PauseBoard | None]:
        return self.all(), self._pauses.board()


class MemoryTenantLimits:
    """Tests may use `reads`, the tenants whose limits were read."""

    def __init__(self) -> None:
        self._table: RecordTable[str, TenantLimits] = RecordTable(lambda limits: limits.tenant, absent_version=0)
        self.replace = self._table.replace
        self.reads: list[str] = []

    def tenants(self) -> frozenset[str]:
        return frozenset(self._table.rows)

    def get(self, tenant: str) -> TenantLimits | None:
        self.reads.append(tenant)
        return self._table.get(tenant)

    def shards_of(self, tenant: str) -> int:
        """In how many shards the indexes may have the jobs of a tenant."""
        limits = self._table.get(tenant)
        return limits.shards if limits is not None else 1

    def all(self) -> list[TenantLimits]:
        return self._table.select(lambda _: True, lambda limits: limits.tenant)


class MemorySemaphores:
    def __init__(self) -> None:
        self._taken: dict[tuple[str, int], tuple[Ms, str | None]] = {}
        self._lock = threading.Lock()

    def acquire(self, name: str, slots: Sequence[int], until: Ms, now: Ms, holder: str | None = None) -> int | None:
        with self._lock:
            for slot in slots:
                if self._taken.get((name, slot), (0, None))[0] <= now:
                    self._taken[name, slot] = until, holder
                    return slot
        return None

    def release(self, name: str, slot: int, holder: str | None = None) -> None:
        with self._lock:
            if self._taken.get((name, slot), (0, holder))[1] == holder:
                self._taken.pop((name, slot), None)


class MemoryRequestCounters:
    def __init__(self) -> None:
        self._counts: dict[tuple[str, int], int] = {}
        self._lock = threading.Lock()

    def increment(self, name: str, window: int, ttl: int, by: int = 1) -> int:
        with self._lock:
            self._counts[name, window] = self._counts.get((name, window), 0) + by
            return self._counts[name, window]
