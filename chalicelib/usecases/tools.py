"""What work that is no OpenAI call may reach for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chalicelib.domain.job_type import JobType
from chalicelib.ports import Bodies, Cache, Clock, Files, Jobs, Pages, Queues, Results, Uploads, Watchers
from chalicelib.usecases.log import Log

if TYPE_CHECKING:
    from chalicelib.usecases.clerk import Clerk
    from chalicelib.usecases.post_office import PostOffice


@dataclass(frozen=True, kw_only=True)
class Tools:
    """The ports, whose every call goes through `Task.call`, because they are synchronous.

    `clerk` and `office` are made when somebody asks for them: most workers never do.
    """

    clock: Clock
    log: Log
    jobs: Jobs
    job_specs: Bodies
    results: Results
    job_data: Pages
    queues: Queues
    subscriptions: Watchers
    job_files: Files
    uploads: Uploads
    cache: Cache
    batch_context: Callable[[], Clerk]
    notification_context: Callable[[], PostOffice]
    new_id: Callable[[], str]
    job_type: Callable[[str], JobType]
