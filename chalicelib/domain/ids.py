"""Make and check ids.

A job's id is `job_` and a ULID; text of another form is answered as "not found" without a read.

A batch's id is `batch_` and a ULID whose last 20 bits are zero. The id of a job of the batch has
the row number in those bits. So the rows of a batch need no index: every caller computes the same
ids, and they sort as the rows do.
"""

from __future__ import annotations

import re
from hashlib import sha256

from chalicelib.domain.errors import BatchNotFound, DeliveryNotFound, JobNotFound
from chalicelib.domain.units import Ms

_JOB_ID = re.compile(r"job_[0-9A-HJKMNP-TV-Z]{26}", re.ASCII)  # Crockford's letters: no I, L, O, U


def is_job_id(text: str) -> bool:
    return _JOB_ID.fullmatch(text) is not None


def checked_job_id(text: str) -> str:
    """Return `text` if it has the form of a job id.

    Raises:
        JobNotFound: it does not.
    """
    if not is_job_id(text):
        raise JobNotFound(text)
    return text


MAX_ROWS = 1 << 20  # what 20 bits can number
_LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_ROW_DIGITS = 4  # of five bits each
_TIME_DIGITS, _RANDOM_DIGITS = 10, 12
_BATCH_ID = re.compile(r"batch_[0-9A-HJKMNP-TV-Z]{22}0000", re.ASCII)


def batch_id(ulid: str) -> str:
    """Return the id of a new batch. `ulid` must not be used for anything else."""
    return f"batch_{ulid[:-_ROW_DIGITS]}{'0' * _ROW_DIGITS}"


def time_digits(at: Ms) -> str:
    """Return the first digits of the ULIDs of this moment. They sort as the moments do."""
    return "".join(_LETTERS[at >> shift & 31] for shift in range(5 * (_TIME_DIGITS - 1), -1, -5))


def batch_id_of_job(job_id: str) -> str:
    """Return the id of the batch that a job creates.

    Deterministic, so a repeated attempt creates the same batch.

    The time part is the job's. The other digits are a hash of the whole job id, because the job may
    itself be a row of a batch, whose neighbours differ only in their last digits.
    """
    digest = int.from_bytes(sha256(job_id.encode()).digest()[:8])
    letters = "".join(_LETTERS[digest >> 5 * digit & 31] for digit in range(_RANDOM_DIGITS))
    return batch_id(f"{job_id.removeprefix('job_')[:_TIME_DIGITS]}{letters}{'0' * _ROW_DIGITS}")


def checked_batch_id(text: str) -> str:
    """Return `text` if it has the form of a batch id.

    Raises:
        BatchNotFound: it does not.
    """
    if _BATCH_ID.fullmatch(text) is None:
        raise BatchNotFound
    return text


def checked_delivery_id(text: str) -> str:
    """Return `text` if it may be the id of a delivery.

    Raises:
        DeliveryNotFound: it cannot be one.
    """
    if not text.startswith("dlv_") or len(text) > 100:
        raise DeliveryNotFound
    return text


def job_id_of_row(batch: str, row: int) -> str:
    """Return the id of the job of a row of a batch."""
    if not 0 <= row < MAX_ROWS:
        raise ValueError(f"a batch has rows 0 to {MAX_ROWS - 1}, not {row}")
    letters = "".join(_LETTERS[row >> 5 * digit & 31] for digit in reversed(range(_ROW_DIGITS)))
    return f"job_{batch.removeprefix('batch_')[:-_ROW_DIGITS]}{letters}"


def batch_id_of_row(job_id: str) -> str:
    """Return the id of the batch to which a job belongs, if it is the job of a row."""
    return batch_id(job_id.removeprefix("job_"))


def row_of_job_id(job_id: str) -> int:
    """Return the row number of a job within its batch."""
    row = 0
    for letter in job_id[-_ROW_DIGITS:]:
        row = row << 5 | _LETTERS.index(letter)
    return row
