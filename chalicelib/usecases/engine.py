"""What a worker reaches for: the ports and policies of one environment, handed to every use case that runs jobs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from chalicelib.domain.circuit import Circuit
from chalicelib.domain.job import Job, Ms
from chalicelib.domain.job_type import JobType
from chalicelib.domain.speed import Speed
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
    Watchers,
)


class Log(Protocol):
    def __call__(self, fact: str, **fields: Any) -> None: ...


@dataclass
class Board:
    """The circuits as this environment last saw them, by model; and whether there is a key of OpenAI, when it was last looked for."""

    circuits: dict[str, Circuit] = field(default_factory=dict)
    read_at: Ms | None = None
    has_key: bool = True
    key_read_at: Ms | None = None
    key_missed_at: Ms | None = None  # when operators were last told that there is none


@dataclass(frozen=True, kw_only=True)
class Engine:
    """`offload_posts` is for sockets, which may be slow and many, so that they never keep the stores waiting.

    `is_welcome` says whether the key of this hash may still read the job's content. `new_id` gives ids that sort by time, `random`
    numbers in [0, 1). `speed_of` a job type and a model is what was measured of them.
    """

    clock: Clock
    offload: Offload
    offload_posts: Offload
    log: Log
    jobs: Jobs
    bodies: Bodies
    chunks: Chunks
    results: Results
    watchers: Watchers
    connections: Connections
    leases: Leases
    circuits: Circuits
    cache: Cache
    queues: Queues
    sockets: Sockets
    provider: Provider
    prices: Prices
    job_type: Callable[[str], JobType]
    speed_of: Callable[[str, str], Speed]
    is_welcome: Callable[[str, Job], bool]
    new_id: Callable[[], str]
    random: Callable[[], float]
    frames_per_second: float = 4.0
    board: Board = field(default_factory=Board)
