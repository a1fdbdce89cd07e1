"""The response with a job's result, however large its text is."""

from __future__ import annotations

import json

from chalicelib.domain.errors import ResultExpired
from chalicelib.domain.jobs.job import Job
from chalicelib.entrypoints.http.responses import results as result_responses
from chalicelib.entrypoints.http.responses.jobs import Shape
from chalicelib.entrypoints.http.server import ApiResponse
from chalicelib.ports import Results

MAX_RESPONSE_BYTES = 5_500_000  # as Lambda encodes the response; its limit is 6 MB
SAFE_LENGTH = 200_000  # code points that always fit: at most 12 bytes each, twice if the text was parsed


def result_response(job: Job, results: Results) -> ApiResponse:
    """The result of an ended job.

    A result that is too large for one response becomes a 307: to the stored object, or to
    `GET /jobs/{job_id}/text`, which returns the text in slices.

    Raises:
        ResultExpired: the result is no longer stored.
    """
    stored = results.get(job.id, job.attempt) if job.attempt else None
    if stored is None and job.length:
        raise ResultExpired
    shape = result_responses.result(job, stored)
    if stored is None or _fits(shape):
        return ApiResponse(body=shape)
    is_whole = len(stored.text) == len(shape["output"])
    location = (results.link(job.id, job.attempt) if is_whole else None) or "text"
    body = {"job_id": job.id, "status": job.status.value, "length": shape["length"], "location": location}
    return ApiResponse(status=307, body=body, headers={"Location": location})


def fits(text: str) -> bool:
    """Whether a body is small enough for one response."""
    return len(text) <= SAFE_LENGTH or len(json.dumps(text)) <= MAX_RESPONSE_BYTES


def _fits(shape: Shape) -> bool:
    return len(shape["output"]) <= SAFE_LENGTH or fits(json.dumps(shape, ensure_ascii=False))
