"""What work that is no OpenAI call may use: the ports, whose calls go through `TaskRun.run_sync` because they are synchronous."""

from __future__ import annotations

from typing import Protocol

from chalicelib.ports import JobFiles, ResponseCache, Uploads
from chalicelib.services.batches.context import BatchContext


class TaskContext(BatchContext, Protocol):
    """Batches, notifications and all they need; besides, files."""

    @property
    def job_files(self) -> JobFiles: ...
    @property
    def uploads(self) -> Uploads: ...
    @property
    def cache(self) -> ResponseCache: ...
