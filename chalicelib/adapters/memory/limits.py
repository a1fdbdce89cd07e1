"""Circuit breakers, type limiters, semaphores and request counters in memory."""

from __future__ import annotations

import threading

from chalicelib.domain.errors import StaleVersion
from chalicelib.domain.limits.circuit_breaker import CircuitBreaker
from chalicelib.domain.limits.type_limiter import TypeLimiter
from chalicelib.domain.units import Ms


class MemoryCircuitBreakers:
    def __init__(self) -> None:
        self._by_model: dict[str, CircuitBreaker] = {}
        self._lock = threading.Lock()

    def all(self) -> list[CircuitBreaker]:
        with self._lock:
            return sorted(self._by_model.values(), key=lambda circuit: circuit.model)

    def get(self, model: str) -> CircuitBreaker | None:
        with self._lock:
            return self._by_model.get(model)

    def replace(self, seen: CircuitBreaker, new: CircuitBreaker) -> None:
        with self._lock:
            current = self._by_model.get(seen.model)
            if current == new:
                return
            if (current.version if current else 0) != seen.version:
                raise StaleVersion(current)
            self._by_model[seen.model] = new


class MemoryTypeLimiters:
    """Tests may use `rows`, the limiters by job type."""

    def __init__(self) -> None:
        self.rows: dict[str, TypeLimiter] = {}
        self._lock = threading.Lock()

    def get(self, job_type: str) -> TypeLimiter | None:
        with self._lock:
            return self.rows.get(job_type)

    def replace(self, seen: TypeLimiter, new: TypeLimiter, now: Ms) -> None:
        with self._lock:
            stored = self.rows.get(new.type)
            if stored == new:
                return
            if (stored.version if stored else 0) != seen.version:
                raise StaleVersion(stored)
            self.rows[new.type] = new


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
