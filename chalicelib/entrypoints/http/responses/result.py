"""The answer that carries a result, however large its text is."""

from __future__ import annotations

import json

from chalicelib.domain.errors import ResultExpired
from chalicelib.domain.jobs.job import Job
from chalicelib.entrypoints.http.responses import jobs as job_responses
from chalicelib.entrypoints.http.server import ApiResponse
from chalicelib.ports import Results

MAX_RESPONSE_BYTES = 5_500_000  # bytes as a function's runtime may encode them, which hands over 6 MB
ALWAYS_FITS = 200_000  # code points of text: 12 bytes each at most, and as much again for what was parsed


def result_response(job: Job, results: Results) -> ApiResponse:
    """The result of an ended job; 307 to its text where it is too large for one answer: as an object, or in slices by offset.

    Raises:
        ResultExpired: it is no longer kept.
    """
    kept = results.get(job.id, job.attempt) if job.attempt else None
    if kept is None and job.length:
        raise ResultExpired
    shape = job_responses.result(job, kept)
    if kept is None or _fits(shape):
        return ApiResponse(body=shape)
    whole = len(kept.text) == len(shape["output"])
    location = (results.link(job.id, job.attempt) if whole else None) or "text"
    body = {"job_id": job.id, "status": job.status.value, "length": shape["length"], "location": location}
    return ApiResponse(status=307, body=body, headers={"Location": location})


def fits(text: str) -> bool:
    """Whether a body is small enough for an answer, as a function's runtime may encode it."""
    return len(text) <= ALWAYS_FITS or len(json.dumps(text)) <= MAX_RESPONSE_BYTES


def _fits(shape: job_responses.Shape) -> bool:
    return len(shape["output"]) <= ALWAYS_FITS or fits(json.dumps(shape, ensure_ascii=False))
