"""What work that is no OpenAI call may reach for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from chalicelib.domain.job_type import JobType
from chalicelib.ports import Bodies, Clock, Files, Jobs, Pages, Queues, Results, Watchers
from chalicelib.usecases.log import Log


@dataclass(frozen=True, kw_only=True)
class Tools:
    """The ports, whose every call goes through `Task.call`, because they are synchronous."""

    clock: Clock
    log: Log
    jobs: Jobs
    bodies: Bodies
    results: Results
    pages: Pages
    queues: Queues
    watchers: Watchers
    files: Files
    new_id: Callable[[], str]
    job_type: Callable[[str], JobType]
