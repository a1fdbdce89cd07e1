"""What limits the use of something: circuit breakers, type limiters, semaphores, request counters."""

from __future__ import annotations

from typing import Protocol

from chalicelib.domain.limits.circuit_breaker import CircuitBreaker
from chalicelib.domain.limits.type_limiter import TypeLimiter
from chalicelib.domain.units import Ms


class CircuitBreakers(Protocol):
    """What is known of each model's circuit. A model of which nothing is known is not there."""

    def all(self) -> list[CircuitBreaker]:
        """All that are known, in one request, not read consistently."""

    def get(self, model: str) -> CircuitBreaker | None:
        """One, read consistently."""

    def replace(self, seen: CircuitBreaker, new: CircuitBreaker) -> None:
        """Swap `new` in for `seen`, if the version is still the one seen (0: nothing is there). One that had been done succeeds.

        Raises:
            StaleVersion: it moved on; `current` is what is there.
        """


class TypeLimiters(Protocol):
    """What is known of each kind of work that has limits. A kind of which nothing is known is not there."""

    def get(self, job_type: str) -> TypeLimiter | None:
        """One, read consistently."""

    def replace(self, seen: TypeLimiter, new: TypeLimiter, now: Ms) -> None:
        """Swap `new` in for `seen`, if the version is still the one seen (0: nothing is there). One that had been done succeeds.

        Raises:
            StaleVersion: it moved on; `current` is what is there.
        """


class Semaphores(Protocol):
    """A bounded number of something, each taken for a time: a crash gives it back by itself."""

    def acquire(self, name: str, size: int, until: Ms, now: Ms) -> int | None:
        """A free slot of `size`, None if there seems to be none."""

    def release(self, name: str, slot: int) -> None: ...


class RequestCounters(Protocol):
    def increment(self, name: str, window: int, ttl: int) -> int:
        """Count one more in the window that is named, and say how many there are now."""
