"""Open or close a circuit by hand."""

from __future__ import annotations

from collections.abc import Callable

from chalicelib.domain import circuit as rules
from chalicelib.domain.circuit import Circuit
from chalicelib.domain.errors import StaleVersion, Throttled
from chalicelib.domain.job import Ms
from chalicelib.ports import Circuits
from chalicelib.usecases.circuits import tell
from chalicelib.usecases.engine import Log

ROUNDS = 10


def open_circuit(circuits: Circuits, log: Log, model: str, by: str, reason: str | None, mark: str, now: Ms) -> Circuit:
    """It stays open until somebody closes it; asking again for the same reason changes nothing.

    Raises:
        Unavailable: it may or may not be open.
    """

    def change(seen: Circuit) -> Circuit:
        same = seen.is_forced and reason in (None, seen.reason)
        return seen if same else rules.force_open(seen, by, reason, mark, now)

    return _force(circuits, log, model, change)


def close_circuit(circuits: Circuits, log: Log, model: str, by: str, mark: str, now: Ms) -> Circuit:
    """Let its jobs run again; those that wait come back within their next look. One that is calm stays as it is.

    Raises:
        Unavailable: it may or may not be closed.
    """
    return _force(circuits, log, model, lambda seen: seen if seen.is_healthy else rules.force_close(seen, by, mark, now))


def _force(circuits: Circuits, log: Log, model: str, change: Callable[[Circuit], Circuit]) -> Circuit:
    seen = circuits.get(model) or Circuit(model=model)
    for _ in range(ROUNDS):
        new = change(seen)
        if new is seen:
            return seen
        try:
            circuits.replace(seen, new)
        except StaleVersion as stale:
            seen = stale.current or Circuit(model=model)
        else:
            tell(log, seen, new)
            return new
    raise Throttled
