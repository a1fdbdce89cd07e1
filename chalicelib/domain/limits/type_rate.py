"""The rate limit of a job type, as a limit of the sliding window."""

from __future__ import annotations

from chalicelib.domain.limits.sliding_window import Limits

ACCOUNT = "type"  # the account of the frames of job types: those of models have hashes


def rate_of(per_minute: int | None) -> Limits | None:
    """Return the limit of a type of which so many jobs may start in a minute; None: as many as like."""
    return Limits(requests=per_minute) if per_minute is not None else None
