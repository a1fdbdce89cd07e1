"""The order of lists: by creation, which ids say, or by the end where jobs that have ended badly are asked for."""

from __future__ import annotations

from chalicelib.domain.job import Job, Status

LISTED_BY_END = frozenset({Status.FAILED, Status.EXPIRED, Status.CANCELLED, Status.INCOMPLETE})


def place(job: Job, *, by_end: bool) -> str:
    """Where a job stands in a list; sorts as text."""
    return f"{job.finished_at or 0:013d}#{job.id}" if by_end else job.id
