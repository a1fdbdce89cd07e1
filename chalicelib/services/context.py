"""Define the contexts that services share.

Each service declares a Protocol with the ports that it uses; the one `Container` of `bootstrap`
satisfies all of them.
"""

from __future__ import annotations

from typing import Protocol

from chalicelib.ports import Clock, Jobs, JobSpecs, Queues
from chalicelib.services.log import Log


class Context(Protocol):
    """The clock and the log."""

    @property
    def clock(self) -> Clock: ...
    @property
    def log(self) -> Log: ...


class QueueContext(Context, Protocol):
    """The queues of wake-ups and tasks as well."""

    @property
    def queues(self) -> Queues: ...


class JobContext(QueueContext, Protocol):
    """The job records and the job specs as well."""

    @property
    def jobs(self) -> Jobs: ...
    @property
    def job_specs(self) -> JobSpecs: ...
