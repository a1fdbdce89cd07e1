"""Look at every part of the system. What does not answer is a finding, not an error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from chalicelib.domain.health import Alive, LaneLoad, Part, changes_part, openai_part, queues_part, unknown_part, workers_part
from chalicelib.domain.lanes import LANES, STREAM
from chalicelib.ports import Circuits, Clock, Leases, Queues
from chalicelib.usecases.engine import Log


@dataclass(frozen=True, kw_only=True)
class Stethoscope:
    """What looking needs from outside."""

    clock: Clock
    log: Log
    circuit_breakers: Circuits
    queues: Queues
    leases: Leases


def system_health(scope: Stethoscope) -> dict[str, Part]:
    """Each part by its name: one read, nine questions to SQS that are remembered for some seconds, and eight reads."""
    looks: dict[str, Callable[[], Part]] = {
        "openai": lambda: openai_part(scope.circuit_breakers.all()),
        "queues": lambda: queues_part({lane: LaneLoad(scope.queues.depth(lane), scope.queues.dead_letters(lane)) for lane in LANES}),
        "workers": lambda: _workers(scope),
        "change_stream": lambda: changes_part(scope.queues.dead_letters(STREAM)),
    }
    return {name: _guarded(scope, name, look) for name, look in looks.items()}


def _workers(scope: Stethoscope) -> Part:
    leases = [Alive(lease.lane, len(lease.jobs), lease.expires_at) for lease in scope.leases.all()]
    return workers_part(leases, scope.clock.now())


def _guarded(scope: Stethoscope, name: str, look: Callable[[], Part]) -> Part:
    try:
        return look()
    except Exception as exc:  # noqa: BLE001 - whatever keeps it from being known is what people ask for here
        scope.log("a part of the system did not answer", part=name, error=exc)
        return unknown_part()
