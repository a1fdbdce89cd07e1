"""What work that is no OpenAI call may reach for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chalicelib.domain.jobs.job_type import JobType
from chalicelib.ports import Clock, JobData, JobFiles, Jobs, JobSpecs, Queues, ResponseCache, Results, Subscriptions, Uploads
from chalicelib.services.log import Log

if TYPE_CHECKING:
    from chalicelib.services.batches.context import BatchContext
    from chalicelib.services.notifications.outbox import NotificationContext


@dataclass(frozen=True, kw_only=True)
class TaskContext:
    """The ports, whose every call goes through `Task.call`, because they are synchronous.

    `clerk` and `office` are made when somebody asks for them: most workers never do.
    """

    clock: Clock
    log: Log
    jobs: Jobs
    job_specs: JobSpecs
    results: Results
    job_data: JobData
    queues: Queues
    subscriptions: Subscriptions
    job_files: JobFiles
    uploads: Uploads
    cache: ResponseCache
    batch_context: Callable[[], BatchContext]
    notification_context: Callable[[], NotificationContext]
    new_id: Callable[[], str]
    job_type: Callable[[str], JobType]
