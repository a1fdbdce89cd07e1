"""What a worker reaches for: the ports and policies of one environment, handed to every use case that runs jobs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from chalicelib.domain.circuit import Circuit
from chalicelib.domain.job import Job, Ms
from chalicelib.domain.job_type import JobType
from chalicelib.domain.speed import Speed
from chalicelib.domain.turnstile import Turnstile
from chalicelib.ports import (
    Bodies,
    Cache,
    Chunks,
    Circuits,
    Clock,
    Connections,
    Jobs,
    Leases,
    Offload,
    Prices,
    Provider,
    Queues,
    Results,
    Sockets,
    Turnstiles,
    Watchers,
)
from chalicelib.usecases.log import Log
from chalicelib.usecases.tools import Tools

__all__ = ["Board", "Engine", "Log"]


@dataclass
class Board:
    """The circuits by model, and the turnstiles by type, as this environment last saw them; and whether there is a key of OpenAI."""

    circuits: dict[str, Circuit] = field(default_factory=dict)
    read_at: Ms | None = None
    type_limiters: dict[str, Turnstile] = field(default_factory=dict)
    api_key_present: bool = True
    key_read_at: Ms | None = None
    api_key_reported_missing_at: Ms | None = None  # when operators were last told that there is none


@dataclass(frozen=True, kw_only=True)
class Engine:
    """`offload_sends` is for sockets, which may be slow and many, so that they never keep the stores waiting.

    `is_welcome` says whether the key of this hash may still read the job's content. `new_id` gives ids that sort by time, `random`
    numbers in [0, 1). `speed_of` a job type and a model is what was measured of them. `tools` are for work that is no OpenAI call.
    """

    clock: Clock
    offload: Offload
    offload_sends: Offload
    log: Log
    jobs: Jobs
    job_specs: Bodies
    chunks: Chunks
    results: Results
    subscriptions: Watchers
    connections: Connections
    leases: Leases
    circuit_breakers: Circuits
    cache: Cache
    type_limiters: Turnstiles
    queues: Queues
    sockets: Sockets
    provider: Provider
    prices: Prices
    task_context: Tools
    job_type: Callable[[str], JobType]
    throughput_of: Callable[[str, str], Speed]
    may_stream: Callable[[str, Job], bool]
    new_id: Callable[[], str]
    random: Callable[[], float]
    frames_per_second: float = 4.0
    local_state: Board = field(default_factory=Board)
