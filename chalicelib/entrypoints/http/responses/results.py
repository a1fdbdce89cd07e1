"""JSON of results and attempts. The field names are public: see docs/api.md."""

from __future__ import annotations

from chalicelib.domain.execution.result import Result
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.streaming.frames import error_shape, incomplete_shape, usage_shape
from chalicelib.domain.units import dollars, rfc3339, seconds
from chalicelib.entrypoints.http.responses.jobs import Shape, first_queued_at, model


def result(job: Job, stored: Result | None) -> Shape:
    """The result of an ended job, with its text even if it failed.

    Text beyond `job.length` is cut off: a fenced worker may have stored it after the end.
    """
    length, text = job.length or 0, stored.text if stored else ""
    return {
        "job_id": job.id,
        "status": job.status.value,
        "output": text[:length],
        "parsed": stored.parsed if stored and len(text) <= length else None,
        "finish_reason": stored.finish_reason if stored else None,
        "model": model(stored.model if stored else job.asked_model),
        "usage": usage_shape(job.usage),
        "cost": dollars(job.cost),
        "currency": "USD",
        "timings": timings(job, stored),
        "cache": cache_lookup(stored),
        "fallback": bool(stored and stored.fallback),
        "error": error_shape(job),
        "incomplete_details": incomplete_shape(job),
        "attempt": job.attempt,
        "length": length,
    }


def cache_lookup(stored: Result | None) -> Shape | None:
    """The outcome of the cache lookup; null without a lookup."""
    lookup = stored.looked_up if stored else None
    if lookup is None:
        return None
    return {"hit": True, "job_id": lookup.job_id, "cached_at": rfc3339(lookup.at)} if lookup.hit else {"hit": False}


def timings(job: Job, stored: Result | None) -> Shape:
    """Durations in seconds. `queued` ends at the first claim; `processing` is the last attempt."""
    started, first, ended = (stored.started_at, stored.first_token_at, stored.finished_at) if stored else (None, None, None)
    streaming = (ended - first) / 1000 if ended and first else None
    return {
        "queued": seconds(job.started_at - first_queued_at(job)) if job.started_at else None,
        "time_to_first_token": seconds(first - started) if first and started else None,
        "processing": seconds(ended - started) if ended and started else None,
        "total": seconds(job.finished_at - job.created_at) if job.finished_at else None,
        "tokens_per_second": round(job.usage.output / streaming, 1) if streaming and job.usage and job.usage.output else None,
    }


def attempts(job: Job, results: list[Result]) -> Shape:
    """The attempt records of a job, with the sums of their known costs."""
    rows = [attempt(each, wasted=is_wasted(job, each.attempt)) for each in results]
    costs = [(each.cost, is_wasted(job, each.attempt)) for each in results if each.cost is not None]
    return {
        "job_id": job.id,
        "data": rows,
        "next_cursor": None,
        "total_cost": dollars(sum(cost for cost, _ in costs)) if costs else None,
        "wasted_cost": dollars(sum(cost for cost, wasted in costs if wasted)) if costs else None,
        "currency": "USD",
    }


def is_wasted(job: Job, number: int) -> bool:
    """Whether the attempt's text is not and cannot become the job's result.

    That is every attempt but the last, and the last one too if the job failed.
    """
    useful = (Status.PROCESSING, Status.COMPLETED, Status.INCOMPLETE, Status.CANCELLED)
    return number != job.attempt or not (job.status in useful or job.is_resumable)


def attempt(stored: Result, *, wasted: bool) -> Shape:
    """An attempt record."""
    return {
        "attempt": stored.attempt,
        "wasted": wasted,
        "finish_reason": stored.finish_reason,
        "error_code": stored.error_code,
        "model": model(stored.model),
        "usage": usage_shape(stored.usage),
        "cost": dollars(stored.cost),
        "currency": "USD",
        "cache": cache_lookup(stored),
        "started_at": rfc3339(stored.started_at),
        "first_token_at": rfc3339(stored.first_token_at),
        "finished_at": rfc3339(stored.finished_at),
    }
