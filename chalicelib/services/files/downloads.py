"""The object that a job made, for whoever wants to download it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from chalicelib.domain.errors import JobTypeNotFound, NothingToDownload, ResultExpired
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.jobs.job_type import JobType
from chalicelib.ports import JobFiles, Results

LINK_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Download:
    """Its name, and an address from which anybody who has it may save it for some minutes."""

    name: str
    link: str


def find_object(job_type: Callable[[str], JobType], results: Results, files: JobFiles, job: Job) -> Download | None:
    """What the job made, or None while it may still make it. Only work says by its output what it made: a model may say anything.

    Raises:
        NothingToDownload: it makes, or made, no object.
        ResultExpired: it is no longer kept.
    """
    if not _is_work(job_type, job) or (job.status.is_terminal and job.status is not Status.COMPLETED):
        raise NothingToDownload
    if not job.status.is_terminal:
        return None
    kept = results.get(job.id, job.attempt)
    if kept is None:
        raise ResultExpired
    name = kept.parsed.get("object") if isinstance(kept.parsed, dict) else None
    if not isinstance(name, str):
        raise NothingToDownload
    if files.size(job.tenant, job.id, name) is None:
        raise ResultExpired
    return Download(name, files.link(job.tenant, job.id, name, LINK_SECONDS))


def _is_work(job_type: Callable[[str], JobType], job: Job) -> bool:
    try:
        return job_type(job.type).handler is not None
    except JobTypeNotFound:  # taken away since
        return False
