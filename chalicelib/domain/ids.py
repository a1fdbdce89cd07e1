"""What the id of a job looks like: `job_` and a ULID. Whatever does not, names no job, and is not looked for."""

from __future__ import annotations

import re

from chalicelib.domain.errors import JobNotFound

_JOB_ID = re.compile(r"job_[0-9A-HJKMNP-TV-Z]{26}", re.ASCII)  # Crockford's letters: no I, L, O, U


def is_job_id(text: str) -> bool:
    return _JOB_ID.fullmatch(text) is not None


def checked_job_id(text: str) -> str:
    """`text`, if it may name a job.

    Raises:
        JobNotFound: it cannot.
    """
    if not is_job_id(text):
        raise JobNotFound(text)
    return text
