"""What the services that run jobs need: ports, settings, and the state of the environment."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Protocol

from chalicelib.domain.bounded_cache import BoundedCache
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.limits.circuit_breaker import CircuitBreaker
from chalicelib.domain.limits.pauses import Pause, PauseBoard
from chalicelib.domain.limits.rate_limit import RateLimit
from chalicelib.domain.limits.tenant_limits import TenantLimits
from chalicelib.domain.units import Ms
from chalicelib.ports import CircuitBreakers, Leases, Lines, Offload, Pauses, Provider, Rates
from chalicelib.services.scheduling.slot_lines import SentForSlots
from chalicelib.services.worker.task_context import TaskContext

MAX_LINES_SEEN = 500
MAX_TENANTS = 1_000  # whose pauses an environment keeps, each with the version of the board when they were read


@dataclass
class LocalState:
    """What one Lambda environment read last, kept between its invocations to save requests."""

    circuit_breakers: dict[str, CircuitBreaker] = field(default_factory=dict)  # by model
    circuit_breakers_read_at: Ms | None = None  # when all of them were read last; None: not yet
    pause_board: PauseBoard | None = None  # as last read; None: not yet, or it could not be read
    pause_board_read_at: Ms | None = None
    tenant_pauses: BoundedCache[str, tuple[int, tuple[Pause, ...]]] = field(default_factory=lambda: BoundedCache(MAX_TENANTS))
    rate_limits: dict[str, RateLimit] = field(default_factory=dict)  # by model
    rate_limits_read_at: Ms | None = None  # when all of them were read last; None: not yet
    rates_learnt_at: dict[str, Ms] = field(default_factory=dict)  # by model: when something was last learnt from a header
    # When it was read which jobs of a tenant wait for a cause, and the first of them.
    lines_seen: BoundedCache[tuple[str, str], tuple[Ms, frozenset[str]]] = field(default_factory=lambda: BoundedCache(MAX_LINES_SEEN))
    sent_for_slots: SentForSlots = field(default_factory=SentForSlots)
    api_key_present: bool = True  # whether an OpenAI key is stored
    api_key_read_at: Ms | None = None  # when `api_key_present` was determined; None: not yet
    api_key_reported_missing_at: Ms | None = None  # when `openai_not_configured` was last logged


class WorkerContext(TaskContext, Protocol):
    """What a worker needs.

    `offload` runs a synchronous store call on a thread, off the event loop. `offload_sends` does
    the same for sockets, on threads of its own, because a slow socket must not delay the stores.
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
    def lines(self) -> Lines: ...
    @property
    def rates(self) -> Rates: ...
    @property
    def pauses(self) -> Pauses: ...
    @property
    def scheduler_shards(self) -> int: ...
    @property
    def provider(self) -> Provider: ...
    @property
    def isolates_prompt_cache(self) -> bool: ...
    @property
    def frames_per_second(self) -> float: ...
    @property
    def local_state(self) -> LocalState: ...
    def limits_of(self, tenant: str) -> TenantLimits:
        """Return the limits that hold for a tenant, at most half a minute old."""

    def readers_of(self, job: Job, key_hashes: Collection[str]) -> set[str]:
        """Return those of the API keys, by their hashes, that are valid and may read the job."""
