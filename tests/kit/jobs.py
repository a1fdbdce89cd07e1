"""Job records for the tests of the domain."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from chalicelib.domain.jobs.job import Job, JobError, Status

NOW = 1_800_000_000_000  # 2027-01-15T08:00:00Z
HOUR = 3_600_000
ERROR = JobError(
    code="stream_cut",
    error_class="stream",
    retryable=True,
    message="The stream was cut.",
    suggestion="Nothing to do.",
    attempt=1,
)
QUEUED = Job(
    id="job_01",
    tenant="acme",
    user="ann",
    key_id="key_1",
    type="general",
    lane="normal",
    model="gpt-4o-mini",
    status=Status.QUEUED,
    created_at=NOW - 5_000,
    queued_at=NOW - 5_000,
    expires_at=NOW + HOUR,
    retry_until=NOW + HOUR,
    due_at=NOW + 60_000,
)


def job(**changes: Any) -> Job:
    """Return a queued job record with these fields changed."""
    return replace(QUEUED, **changes)
