"""What a worker reaches for: the ports and policies of one environment, handed to every use case that runs jobs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from chalicelib.domain.jobs.job import Job
from chalicelib.domain.limits.circuit_breaker import CircuitBreaker
from chalicelib.domain.limits.type_limiter import TypeLimiter
from chalicelib.domain.units import Ms
from chalicelib.ports import CircuitBreakers, Leases, Offload, Provider, TypeLimiters
from chalicelib.services.worker.task_context import TaskContext


@dataclass
class LocalState:
    """The circuits by model, and the turnstiles by type, as this environment last saw them; and whether there is a key of OpenAI."""

    circuits: dict[str, CircuitBreaker] = field(default_factory=dict)
    read_at: Ms | None = None
    type_limiters: dict[str, TypeLimiter] = field(default_factory=dict)
    api_key_present: bool = True
    key_read_at: Ms | None = None
    api_key_reported_missing_at: Ms | None = None  # when operators were last told that there is none


class WorkerContext(TaskContext, Protocol):
    """What a worker needs.

    `offload` runs a synchronous store call beside the event loop; `offload_sends` likewise for sockets, on threads of
    their own, because a slow socket must not delay the stores.
    """

    @property
    def offload(self) -> Offload: ...
    @property
    def offload_sends(self) -> Offload: ...
    @property
    def leases(self) -> Leases: ...
    @property
    def circuit_breakers(self) -> CircuitBreakers: ...
    @property
    def type_limiters(self) -> TypeLimiters: ...
    @property
    def provider(self) -> Provider: ...
    @property
    def frames_per_second(self) -> float: ...
    @property
    def local_state(self) -> LocalState: ...
    def may_stream(self, key_hash: str, job: Job) -> bool: ...
