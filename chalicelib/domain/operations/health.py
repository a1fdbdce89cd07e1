"""How well the system is, part by part: what is wrong, and what helps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from chalicelib.domain.limits.circuit_breaker import CircuitBreaker, CircuitState
from chalicelib.domain.units import Ms

BACKLOG_THRESHOLD = 100  # messages that wait in a lane: more than its workers take at once
STALE_MS = 120_000  # a lease that nobody renewed or buried for so long: the sweep, which runs every minute, does not


class Level(IntEnum):
    """Each is worse than the ones before it."""

    HEALTHY = 0
    DEGRADED = 1  # work goes on, more slowly or not all of it
    UNHEALTHY = 2  # somebody has to do something

    @property
    def label(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Issue:
    """What is wrong, and what helps."""

    level: Level
    message: str
    recommendation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """`facts` are what was looked at."""

    facts: Mapping[str, Any] = field(default_factory=dict)
    issues: Sequence[Issue] = ()

    @property
    def level(self) -> Level:
        return max((issue.level for issue in self.issues), default=Level.HEALTHY)


@dataclass(frozen=True, slots=True)
class LaneLoad:
    """Messages that wait in a lane, and those that lie in its dead-letter queue."""

    waiting: int
    dead: int


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """A worker's lease as it counts here."""

    lane: str
    jobs: int
    expires_at: Ms


def check_provider(circuits: Sequence[CircuitBreaker]) -> Part:
    """The provider, by the circuits of its models."""
    shut = [circuit for circuit in circuits if circuit.state is not CircuitState.CLOSED]
    return Part(
        facts={"circuits": {circuit.model: circuit.state.value for circuit in circuits}},
        issues=[_of_circuit(circuit) for circuit in shut],
    )


def check_queues(lanes: Mapping[str, LaneLoad]) -> Part:
    """The lanes, by what waits and what was given up."""
    issues = [
        Issue(
            Level.DEGRADED,
            f"{_count(load.waiting, 'job')} waiting in the {lane} lane.",
            "Wait, or use another lane. If it does not shrink, look at the errors and throttles of the lane's worker function.",
        )
        for lane, load in lanes.items()
        if load.waiting > BACKLOG_THRESHOLD
    ]
    issues += [_dead_letters(f"The {lane} lane", load.dead) for lane, load in lanes.items() if load.dead]
    return Part(facts={lane: {"waiting": load.waiting, "dead_letters": load.dead} for lane, load in lanes.items()}, issues=issues)


def check_workers(leases: Sequence[WorkerStatus], now: Ms) -> Part:
    """The workers, by their leases. None at all is well: workers come with work."""
    stale = [lease for lease in leases if lease.expires_at + STALE_MS < now]
    alive = [lease for lease in leases if lease.expires_at >= now]
    facts = {"active": len(alive), "stale": len(stale), "jobs": sum(lease.jobs for lease in alive)}
    issue = Issue(
        Level.UNHEALTHY,
        f"{_count(len(stale), 'worker')} died, and nobody has taken its jobs back.",
        "The sweep should have, within a minute: look whether its schedule is on, and at the errors of the function `sweep`.",
    )
    return Part(facts=facts, issues=[issue] if stale else [])


def check_change_stream(dead: int) -> Part:
    """The change stream, by the records that could not be dealt with."""
    return Part(facts={"dead_letters": dead}, issues=[_dead_letters("The change stream", dead)] if dead else [])


def unknown_health() -> Part:
    """A part of which nothing could be learnt."""
    issue = Issue(Level.UNHEALTHY, "It did not answer.", "Try again in a moment. If it stays so, look at the status of AWS in this region.")
    return Part(issues=[issue])


def _of_circuit(circuit: CircuitBreaker) -> Issue:
    if circuit.is_forced:
        helps = f"A person opened it. `headrace circuits close {circuit.model}` lets its jobs run again."
        return Issue(Level.DEGRADED, f"The circuit of {circuit.model} is kept open: its jobs wait.", helps)
    state = "is being tried out" if circuit.state is CircuitState.HALF_OPEN else "is open"
    return Issue(
        Level.DEGRADED,
        f"The circuit of {circuit.model} {state} ({circuit.reason}): its jobs wait.",
        _HELPS.get(circuit.reason or "", "Nothing to do: it is tried out again by itself. See OpenAI's status page if it goes on."),
    )


_HELPS = {
    "provider_quota_exhausted": "Add credit to the OpenAI account, or raise its limit; the circuit closes by itself.",
    "authentication_failed": "Store a valid OpenAI key (`make openai-key`); the circuit closes by itself.",
}


def _dead_letters(where: str, count: int) -> Issue:
    return Issue(
        Level.DEGRADED,
        f"{where} has set {_count(count, 'message')} aside.",
        "Read them in its dead-letter queue: docs/operations.md says what they mean. No job fails by them.",
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
