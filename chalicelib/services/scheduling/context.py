"""What the scheduler of held jobs needs."""

from __future__ import annotations

from typing import Protocol

from chalicelib.domain.jobs.job_type import JobType
from chalicelib.domain.limits.tenant_limits import TenantLimits
from chalicelib.ports import CircuitBreakers, Jobs, Lines, Offload, Pauses, Provider, Rates
from chalicelib.services.context import QueueContext


class LineContext(QueueContext, Protocol):
    """What holding a job in a line needs."""

    @property
    def lines(self) -> Lines: ...
    @property
    def scheduler_shards(self) -> int: ...


class SchedulingContext(LineContext, Protocol):
    """What a loop of the scheduler needs."""

    @property
    def jobs(self) -> Jobs: ...
    @property
    def circuit_breakers(self) -> CircuitBreakers: ...
    @property
    def pauses(self) -> Pauses: ...
    @property
    def rates(self) -> Rates: ...
    @property
    def provider(self) -> Provider: ...
    @property
    def offload(self) -> Offload: ...
    def limits_of(self, tenant: str) -> TenantLimits: ...
    def job_type(self, name: str) -> JobType: ...
    def new_id(self) -> str: ...
