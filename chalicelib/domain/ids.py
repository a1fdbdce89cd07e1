"""What the id of a job looks like: `job_` and a ULID. Whatever does not, names no job, and is not looked for.

A batch's is `batch_` and a ULID whose last 20 bits are zero; in the id of a job they are its row. So the rows of a batch need no index:
their ids are computed, are the same whoever computes them, and sort as the rows do.
"""

from __future__ import annotations

import re
from hashlib import sha256

from chalicelib.domain.errors import BatchNotFound, DeliveryNotFound, JobNotFound

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


MAX_ROWS = 1 << 20  # that 20 bits can tell apart
_LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_DIGITS = 4  # of five bits each
_OF_TIME, _DRAWN = 10, 12
_BATCH_ID = re.compile(r"batch_[0-9A-HJKMNP-TV-Z]{22}0000", re.ASCII)


def batch_id(ulid: str) -> str:
    """The id of a new batch, of a ULID that is used for nothing else."""
    return f"batch_{ulid[:-_DIGITS]}{'0' * _DIGITS}"


def batch_id_of_job(job_id: str) -> str:
    """The batch that a job makes: the same whoever computes it and however often.

    Its time is the job's, its other bits are drawn from the whole of the id: the job itself may be a row of a batch, or its neighbour.
    """
    drawn = int.from_bytes(sha256(job_id.encode()).digest()[:8])
    letters = "".join(_LETTERS[drawn >> 5 * place & 31] for place in range(_DRAWN))
    return batch_id(f"{job_id.removeprefix('job_')[:_OF_TIME]}{letters}{'0' * _DIGITS}")


def checked_batch_id(text: str) -> str:
    """`text`, if it may name a batch.

    Raises:
        BatchNotFound: it cannot.
    """
    if _BATCH_ID.fullmatch(text) is None:
        raise BatchNotFound
    return text


def checked_delivery_id(text: str) -> str:
    """`text`, if it may name a delivery.

    Raises:
        DeliveryNotFound: it cannot.
    """
    if not text.startswith("dlv_") or len(text) > 100:
        raise DeliveryNotFound
    return text


def job_id_of_row(batch: str, row: int) -> str:
    """The job of a row of a batch."""
    if not 0 <= row < MAX_ROWS:
        raise ValueError(f"a batch has rows 0 to {MAX_ROWS - 1}, not {row}")
    letters = "".join(_LETTERS[row >> 5 * place & 31] for place in reversed(range(_DIGITS)))
    return f"job_{batch.removeprefix('batch_')[:-_DIGITS]}{letters}"


def row_of_job_id(job_id: str) -> int:
    """Which row of its batch a job is."""
    row = 0
    for letter in job_id[-_DIGITS:]:
        row = row << 5 | _LETTERS.index(letter)
    return row
