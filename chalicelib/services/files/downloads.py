"""Find the object that a task created, and sign a link to download it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from chalicelib.domain.errors import JobTypeNotFound, NothingToDownload, ResultExpired
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.jobs.job_type import JobType
from chalicelib.ports import JobFiles, Results

LINK_SECONDS = 300  # how long the link works


@dataclass(frozen=True, slots=True)
class Download:
    """An object of a job."""

    name: str
    link: str  # signed: works without a key for `LINK_SECONDS`


def find_object(job_type: Callable[[str], JobType], results: Results, files: JobFiles, job: Job) -> Download | None:
    """Return the object that the job created; None while the job has not ended.

    Only the output of a task names its object; the output of a model is not trusted for that.

    Raises:
        NothingToDownload: the job creates no object, or ended without one.
        ResultExpired: the result or the object is no longer stored.
    """
    if not _is_task(job_type, job) or (job.status.is_terminal and job.status is not Status.COMPLETED):
        raise NothingToDownload
    if not job.status.is_terminal:
        return None
    result = results.get(job.id, job.attempt)
    if result is None:
        raise ResultExpired
    name = result.parsed.get("object") if isinstance(result.parsed, dict) else None
    if not isinstance(name, str):
        raise NothingToDownload
    if files.size(job.tenant, job.id, name) is None:
        raise ResultExpired
    return Download(name, files.link(job.tenant, job.id, name, LINK_SECONDS))


def _is_task(job_type: Callable[[str], JobType], job: Job) -> bool:
    try:
        return job_type(job.type).handler is not None
    except JobTypeNotFound:  # the type was removed after the job was submitted
        return False
