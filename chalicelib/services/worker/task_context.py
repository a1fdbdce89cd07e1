"""The ports that a task handler may use.

Their calls are synchronous, so handlers make them with `TaskRun.run_sync`.
"""

from __future__ import annotations

from typing import Protocol

from chalicelib.ports import JobFiles, ResponseCache, Uploads
from chalicelib.services.batches.context import BatchContext


class TaskContext(BatchContext, Protocol):
    """What batches and notifications need, and files, uploads and the response cache."""

    @property
    def job_files(self) -> JobFiles: ...
    @property
    def uploads(self) -> Uploads: ...
    @property
    def cache(self) -> ResponseCache: ...
