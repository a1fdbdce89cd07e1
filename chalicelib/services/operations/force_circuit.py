"""Open or close a circuit by hand."""

from __future__ import annotations

from collections.abc import Callable

from chalicelib.domain.limits import circuit_breaker as circuit_rules
from chalicelib.domain.limits.circuit_breaker import CircuitBreaker
from chalicelib.domain.units import Ms
from chalicelib.ports import CircuitBreakers
from chalicelib.services.compare_and_swap import update
from chalicelib.services.log import Log
from chalicelib.services.worker.admission.circuit_gate import log_state_change


def open_circuit(circuits: CircuitBreakers, log: Log, model: str, by: str, reason: str | None, mark: str, now: Ms) -> CircuitBreaker:
    """It stays open until somebody closes it; asking again for the same reason changes nothing.

    Raises:
        Unavailable: it may or may not be open.
    """

    def change(seen: CircuitBreaker) -> CircuitBreaker:
        same = seen.is_forced and reason in (None, seen.reason)
        return seen if same else circuit_rules.force_open(seen, by, reason, mark, now)

    return _force(circuits, log, model, change)


def close_circuit(circuits: CircuitBreakers, log: Log, model: str, by: str, mark: str, now: Ms) -> CircuitBreaker:
    """Let its jobs run again; those that wait come back within their next look. One that is calm stays as it is.

    Raises:
        Unavailable: it may or may not be closed.
    """
    return _force(circuits, log, model, lambda seen: seen if seen.is_healthy else circuit_rules.force_close(seen, by, mark, now))


def _force(circuits: CircuitBreakers, log: Log, model: str, change: Callable[[CircuitBreaker], CircuitBreaker]) -> CircuitBreaker:
    closed = CircuitBreaker(model=model)
    before = [circuits.get(model) or closed]

    def remember(seen: CircuitBreaker) -> CircuitBreaker:
        before[:] = [seen]
        return change(seen)

    after = update(circuits.replace, before[0], remember, missing=closed) or closed
    log_state_change(log, before[0], after)
    return after
