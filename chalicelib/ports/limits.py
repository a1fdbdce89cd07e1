"""Limits: circuit breakers, semaphores, request counters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from chalicelib.domain.limits.circuit_breaker import CircuitBreaker
from chalicelib.domain.units import Ms


class CircuitBreakers(Protocol):
    """Stores the circuit breaker of each model. A healthy one need not be stored."""

    def all(self) -> list[CircuitBreaker]:
        """Return all that are stored and can be read, not read consistently. One request."""

    def get(self, model: str) -> CircuitBreaker | None:
        """Return one circuit breaker, read consistently."""

    def replace(self, seen: CircuitBreaker, new: CircuitBreaker) -> None:
        """Swap `new` in for `seen` if the version is still that of `seen` (0: none is stored).

        A repeated swap succeeds.

        Raises:
            StaleVersion: the version has changed; `current` is the stored one.
        """


class Semaphores(Protocol):
    """Stores which slots of a bounded resource are in use.

    A slot is free again after `until`, also after a crash.
    """

    def acquire(self, name: str, slots: Sequence[int], until: Ms, now: Ms, holder: str | None = None) -> int | None:
        """Take a free one of these slots of a semaphore; None if none was found.

        One to three requests.

        Args:
            holder: who takes it, if another process will free it; None: this process.
        """

    def release(self, name: str, slot: int, holder: str | None = None) -> None:
        """Free a slot that this process, or `holder`, took."""


class RequestCounters(Protocol):
    """Counts requests in fixed windows of time."""

    def increment(self, name: str, window: int, ttl: int, by: int = 1) -> int:
        """Add to the counter of a window and return its value. `ttl` in seconds since 1970."""
