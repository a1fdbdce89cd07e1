"""Assess the health of the system part by part: what is wrong, and what the operator can do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from chalicelib.domain.limits.circuit_breaker import CircuitBreaker, CircuitState
from chalicelib.domain.queues.lanes import JOB_QUEUES, WORK
from chalicelib.domain.units import Ms

BACKLOG_THRESHOLD = 100  # messages waiting in a queue: more than its workers take at once
_REMEDY_OF_A_LANE = "Wait or use another lane."
_REMEDY_OF_TASKS = "Wait: tasks run one in an environment, and the limits of their types hold the rest."
# How long an expired lease may exist: the sweeper runs every minute and deletes it.
STALE_MS = 120_000


class Level(IntEnum):
    """The health of a part, from best to worst."""

    HEALTHY = 0
    DEGRADED = 1  # jobs still run, but slower or not all of them
    UNHEALTHY = 2  # the operator has to act

    @property
    def label(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Issue:
    """A problem and its remedy."""

    level: Level
    message: str
    recommendation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The health of one part of the system."""

    facts: Mapping[str, Any] = field(default_factory=dict)  # the figures that were checked
    issues: Sequence[Issue] = ()

    @property
    def level(self) -> Level:
        return max((issue.level for issue in self.issues), default=Level.HEALTHY)


@dataclass(frozen=True, slots=True)
class QueueLoad:
    """The messages of a queue of jobs."""

    waiting: int
    dead: int | None  # in its dead-letter queue; None: not counted


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """A worker's lease."""

    lane: str  # the queue whose worker it is
    jobs: int  # how many it runs
    expires_at: Ms


def check_provider(circuits: Sequence[CircuitBreaker], *, may_close: bool = True) -> Part:
    """Check the provider by the circuits of its models.

    Args:
        may_close: whether the reader may close a circuit by hand.
    """
    not_closed = [circuit for circuit in circuits if circuit.state is not CircuitState.CLOSED]
    return Part(
        facts={"circuits": {circuit.model: circuit.state.value for circuit in circuits}},
        issues=[_circuit_issue(circuit, may_close) for circuit in not_closed],
    )


def check_queues(queues: Mapping[str, QueueLoad], *, figures: bool = True) -> Part:
    """Check the queues of jobs by their waiting messages and dead letters.

    Args:
        figures: whether the reader may know how many there are, of all tenants.
    """
    issues = [
        Issue(
            Level.DEGRADED,
            f"{_count(load.waiting, 'job') if figures else 'Many jobs are'} waiting in the queue `{queue}`.",
            f"{_REMEDY_OF_TASKS if queue == WORK.name else _REMEDY_OF_A_LANE} If the backlog does not shrink, "
            f"check errors and throttles of the function `{JOB_QUEUES[queue].function}`.",
        )
        for queue, load in queues.items()
        if load.waiting > BACKLOG_THRESHOLD
    ]
    issues += [_dead_letter_issue(f"the queue `{queue}`", load.dead) for queue, load in queues.items() if load.dead]
    facts = {queue: {"waiting": load.waiting if figures else None, "dead_letters": load.dead} for queue, load in queues.items()}
    return Part(facts=facts, issues=issues)


def check_workers(leases: Sequence[WorkerStatus], now: Ms, *, figures: bool = True) -> Part:
    """Check the workers by their leases.

    No worker at all is healthy: workers start when there are jobs.

    Args:
        figures: whether the reader may know how many there are, of all tenants.
    """
    stale = [lease for lease in leases if lease.expires_at + STALE_MS < now]
    alive = [lease for lease in leases if lease.expires_at >= now]
    counted = {"active": len(alive), "stale": len(stale), "jobs": sum(lease.jobs for lease in alive)}
    facts = {name: number if figures else None for name, number in counted.items()}
    issue = Issue(
        Level.UNHEALTHY,
        f"{_count(len(stale), 'worker') if figures else 'Workers'} died, and the jobs were not recovered.",
        "The sweeper recovers jobs within a minute: check that its schedule is enabled, and the errors of the function `sweep`.",
    )
    return Part(facts=facts, issues=[issue] if stale else [])


def check_change_stream(dead: int | None) -> Part:
    """Check the change stream by its dead letters: the changes that could not be processed.

    None: they were not counted.
    """
    return Part(facts={"dead_letters": dead}, issues=[_dead_letter_issue("the change stream", dead)] if dead else [])


def unknown_health() -> Part:
    """Return the health of a part that could not be checked."""
    issue = Issue(Level.UNHEALTHY, "It did not answer.", "Retry in a minute. If it still fails, check the status of AWS in this region.")
    return Part(issues=[issue])


def _circuit_issue(circuit: CircuitBreaker, may_close: bool) -> Issue:
    if circuit.is_forced:
        close = (
            f"`headrace circuits close {circuit.model}` lets its jobs run again." if may_close else "Its jobs run again when it is closed."
        )
        remedy = f"An operator opened it. {close}"
        return Issue(Level.DEGRADED, f"The circuit of {circuit.model} is forced open: its jobs wait.", remedy)
    state = "is half-open" if circuit.state is CircuitState.HALF_OPEN else "is open"
    return Issue(
        Level.DEGRADED,
        f"The circuit of {circuit.model} {state} ({circuit.reason}): its jobs wait.",
        _REMEDIES.get(circuit.reason or "", "No action needed: it is probed automatically. If this continues, check OpenAI's status page."),
    )


_REMEDIES = {
    "provider_quota_exhausted": "Add credit to the OpenAI account, or raise its limit; the circuit closes automatically.",
    "authentication_failed": "Store a valid OpenAI key (`make openai-key`); the circuit closes automatically.",
}


def _dead_letter_issue(source: str, count: int) -> Issue:
    return Issue(
        Level.DEGRADED,
        f"{_count(count, 'message')} in the dead-letter queue of {source}.",
        "Read the messages; docs/operations.md explains them. No job fails because of a dead letter.",
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
