"""Open or close a model's circuit by hand."""

from __future__ import annotations

from collections.abc import Callable

from chalicelib.domain.limits import circuit_breaker as circuit_rules
from chalicelib.domain.limits.circuit_breaker import CircuitBreaker
from chalicelib.domain.limits.rate_limit import ACCOUNT, unblock
from chalicelib.domain.units import Ms
from chalicelib.ports import CircuitBreakers, Rates
from chalicelib.services.compare_and_swap import update
from chalicelib.services.log import Log
from chalicelib.services.worker.admission.circuit_gate import log_state_change


def open_circuit(circuits: CircuitBreakers, log: Log, model: str, by: str, reason: str | None, mark: str, now: Ms) -> CircuitBreaker:
    """Force the circuit open until it is closed by hand. Idempotent for the same reason.

    Args:
        by: the user who asked for it.
        mark: a new id that makes this write recognisable.

    Raises:
        Unavailable: a store did not answer; the circuit may or may not be open.
    """

    def change(current: CircuitBreaker) -> CircuitBreaker:
        is_same = current.is_forced and reason in (None, current.reason)
        return current if is_same else circuit_rules.force_open(current, by, reason, mark, now)

    return _force(circuits, log, model, change)


def close_circuit(circuits: CircuitBreakers, log: Log, model: str, by: str, mark: str, now: Ms) -> CircuitBreaker:
    """Close the circuit, forced or not. Its held jobs start when the scheduler is asked for a visit, or within a minute.

    A healthy circuit is left unchanged.

    Raises:
        Unavailable: a store did not answer; the circuit may or may not be closed.
    """

    def change(current: CircuitBreaker) -> CircuitBreaker:
        return current if current.is_healthy else circuit_rules.force_close(current, by, mark, now)

    return _force(circuits, log, model, change)


def end_rate_wait(rates: Rates, model: str, now: Ms) -> None:
    """Let a model start requests again before the wait is over that the provider asked for.

    Raises:
        Unavailable: the store did not answer; the model may or may not wait.
    """
    if (seen := rates.limit(ACCOUNT, model)) is not None:
        update(rates.save_limit, seen, lambda limit: unblock(limit, now))


def _force(circuits: CircuitBreakers, log: Log, model: str, change: Callable[[CircuitBreaker], CircuitBreaker]) -> CircuitBreaker:
    closed = CircuitBreaker(model=model)
    before = [circuits.get(model) or closed]

    def remember(current: CircuitBreaker) -> CircuitBreaker:
        before[:] = [current]
        return change(current)

    after = update(circuits.replace, before[0], remember, missing=closed) or closed
    log_state_change(log, before[0], after)
    return after
