"""Limits: circuit breakers, pauses, semaphores, request counters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from chalicelib.domain.limits.circuit_breaker import CircuitBreaker
from chalicelib.domain.limits.pauses import PauseBoard, TenantPauses
from chalicelib.domain.units import Ms


class CircuitBreakers(Protocol):
    """Stores the circuit breaker of each model. A healthy one need not be stored."""

    def all(self) -> list[CircuitBreaker]:
        """Return all that are stored and can be read, not read consistently. One request."""

    def all_with_board(self) -> tuple[list[CircuitBreaker], PauseBoard | None]:
        """Like `all`, and the board of the pauses, in the same request.

        The board is None if this version of the code cannot read it.
        """

    def get(self, model: str) -> CircuitBreaker | None:
        """Return one circuit breaker, read consistently."""

    def replace(self, seen: CircuitBreaker, new: CircuitBreaker) -> None:
        """Swap `new` in for `seen` if the version is still that of `seen` (0: none is stored).

        A repeated swap succeeds.

        Raises:
            StaleVersion: the version has changed; `current` is the stored one.
        """


class Pauses(Protocol):
    """Stores the board of the pauses and the pauses of each tenant."""

    def board(self) -> PauseBoard:
        """Return the board, read consistently."""

    def of_tenant(self, tenant: str, *, consistent: bool = False) -> TenantPauses:
        """Return the pauses of a tenant; an empty record if there is none."""

    def replace_board(self, seen: PauseBoard, new: PauseBoard) -> None:
        """Swap `new` in for `seen` if the version is still that of `seen` (0: none is stored).

        A repeated swap succeeds.

        Raises:
            StaleVersion: the version has changed; `current` is the stored board.
        """

    def replace_tenant(self, seen: TenantPauses, new: TenantPauses, seen_board: PauseBoard, new_board: PauseBoard) -> None:
        """Swap both records in one transaction, if both versions are still those that were seen.

        A repeated swap succeeds.

        Raises:
            StaleVersion: one of the versions has changed; read both again, `current` is None.
        """

    def page(self, before: str | None, limit: int) -> tuple[list[TenantPauses], str | None]:
        """Return the pauses of tenants, the greatest name first, and the name to continue `before`.

        A page may hold records without pauses.
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
