"""What a worker reaches for: the ports and policies of one environment, handed to every use case that runs jobs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from chalicelib.domain.jobs.job import Job
from chalicelib.domain.jobs.job_type import JobType
from chalicelib.domain.limits.circuit_breaker import CircuitBreaker
from chalicelib.domain.limits.type_limiter import TypeLimiter
from chalicelib.domain.metrics.throughput import Throughput
from chalicelib.domain.units import Ms
from chalicelib.ports import (
    Chunks,
    CircuitBreakers,
    Clock,
    Connections,
    Jobs,
    JobSpecs,
    Leases,
    Offload,
    Prices,
    Provider,
    Queues,
    ResponseCache,
    Results,
    Sockets,
    Subscriptions,
    TypeLimiters,
)
from chalicelib.services.log import Log
from chalicelib.services.worker.task_context import TaskContext

__all__ = ["LocalState", "Log", "WorkerContext"]


@dataclass
class LocalState:
    """The circuits by model, and the turnstiles by type, as this environment last saw them; and whether there is a key of OpenAI."""

    circuits: dict[str, CircuitBreaker] = field(default_factory=dict)
    read_at: Ms | None = None
    type_limiters: dict[str, TypeLimiter] = field(default_factory=dict)
    api_key_present: bool = True
    key_read_at: Ms | None = None
    api_key_reported_missing_at: Ms | None = None  # when operators were last told that there is none


@dataclass(frozen=True, kw_only=True)
class WorkerContext:
    """`offload_sends` is for sockets, which may be slow and many, so that they never keep the stores waiting.

    `is_welcome` says whether the key of this hash may still read the job's content. `new_id` gives ids that sort by time, `random`
    numbers in [0, 1). `speed_of` a job type and a model is what was measured of them. `tools` are for work that is no OpenAI call.
    """

    clock: Clock
    offload: Offload
    offload_sends: Offload
    log: Log
    jobs: Jobs
    job_specs: JobSpecs
    chunks: Chunks
    results: Results
    subscriptions: Subscriptions
    connections: Connections
    leases: Leases
    circuit_breakers: CircuitBreakers
    cache: ResponseCache
    type_limiters: TypeLimiters
    queues: Queues
    sockets: Sockets
    provider: Provider
    prices: Prices
    task_context: TaskContext
    job_type: Callable[[str], JobType]
    throughput_of: Callable[[str, str], Throughput]
    may_stream: Callable[[str, Job], bool]
    new_id: Callable[[], str]
    random: Callable[[], float]
    frames_per_second: float = 4.0
    local_state: LocalState = field(default_factory=LocalState)
