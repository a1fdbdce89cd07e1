"""The answer that carries a result, however large its text is."""

from __future__ import annotations

import json

from chalicelib.domain.errors import ResultExpired
from chalicelib.domain.job import Job
from chalicelib.ports import Results
from chalicelib.routes import shapes
from chalicelib.routes.http import Answer

LARGEST_ANSWER = 5_500_000  # bytes as a function's runtime may encode them, which hands over 6 MB
SURELY_SMALL = 200_000  # code points of text: 12 bytes each at most, and as much again for what was parsed


def result_answer(job: Job, results: Results) -> Answer:
    """The result of an ended job; 307 to its text where it is too large for one answer: as an object, or in slices by offset.

    Raises:
        ResultExpired: it is no longer kept.
    """
    kept = results.get(job.id, job.attempt) if job.attempt else None
    if kept is None and job.length:
        raise ResultExpired
    shape = shapes.result(job, kept)
    if kept is None or _fits(shape):
        return Answer(body=shape)
    whole = len(kept.text) == len(shape["output"])
    location = (results.link(job.id, job.attempt) if whole else None) or "text"
    body = {"job_id": job.id, "status": job.status.value, "length": shape["length"], "location": location}
    return Answer(status=307, body=body, headers={"Location": location})


def fits(text: str) -> bool:
    """Whether a body is small enough for an answer, as a function's runtime may encode it."""
    return len(text) <= SURELY_SMALL or len(json.dumps(text)) <= LARGEST_ANSWER


def _fits(shape: shapes.Shape) -> bool:
    return len(shape["output"]) <= SURELY_SMALL or fits(json.dumps(shape, ensure_ascii=False))
