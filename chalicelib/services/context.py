"""What use cases share. Each declares a Protocol of the ports it uses; the one `Container` of `bootstrap` satisfies them all."""

from __future__ import annotations

from typing import Protocol

from chalicelib.ports import Clock, Jobs, JobSpecs, Queues
from chalicelib.services.log import Log


class Context(Protocol):
    """The time, and the log."""

    @property
    def clock(self) -> Clock: ...
    @property
    def log(self) -> Log: ...


class QueueContext(Context, Protocol):
    """The queues that wake workers, and those of tasks."""

    @property
    def queues(self) -> Queues: ...


class JobContext(QueueContext, Protocol):
    """The job records and the job specs."""

    @property
    def jobs(self) -> Jobs: ...
    @property
    def job_specs(self) -> JobSpecs: ...
