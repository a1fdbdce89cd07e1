"""Answer a request with the response to an equal request of the tenant, if `config.cache` allows.

The cache holds references: the job and attempt whose result is the answer. It must never fail a
job: an entry that cannot be read is a miss, and one that cannot be written is a later miss.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import fields

from chalicelib.domain.errors import UnreadableRecord
from chalicelib.domain.execution.response_cache import CachedResponse, CacheLookup
from chalicelib.domain.execution.result import Result
from chalicelib.domain.jobs.job import Job, Status, Usage
from chalicelib.domain.units import Ms
from chalicelib.ports import Jobs, ModelRequest, ResponseCache, ResponseEnded
from chalicelib.services.worker.attempt import Attempt
from chalicelib.services.worker.context import WorkerContext

TRANSPORT_FIELDS = frozenset({"timeout", "background", "stream"})  # request fields that do not affect the response
STORE_TIMEOUT_SECONDS = 3.0  # for all three reads; in that time the provider would have started to answer


def cache_key(tenant: str, job_type: str, request: ModelRequest) -> str:
    """Return the hash of everything that affects the response.

    New request fields are included unless `TRANSPORT_FIELDS` names them, so a forgotten field
    causes misses, not wrong answers.
    """
    content = {field.name: getattr(request, field.name) for field in fields(request) if field.name not in TRANSPORT_FIELDS}
    return hashlib.sha256(json.dumps([tenant, job_type, content], sort_keys=True).encode()).hexdigest()


async def serve_from_cache(ctx: WorkerContext, attempt: Attempt, request: ModelRequest) -> ResponseEnded | None:
    """Append a cached response to the transcript and return its end.

    The cache is not read if the job does not allow it, if the attempt resumes a response, or if the
    previous answer was invalid, because it may have come from here. A valid answer is stored for
    later requests all the same.

    Returns: None if the provider has to be asked.
    """
    if attempt.spec.config.cache is None or attempt.response_id is not None:
        return None
    attempt.cache_lookup = CacheLookup()
    if attempt.wrong_before is not None:
        attempt.cache_key = await ctx.offload(cache_key, attempt.job.tenant, attempt.job.type, request)
        return None
    try:
        async with asyncio.timeout(STORE_TIMEOUT_SECONDS):
            found = await _look_up(ctx, attempt, request)
    except Exception as exc:  # noqa: BLE001 - no fault of the cache may fail the job: the provider answers
        ctx.log("response_cache_unavailable", job_id=attempt.job.id, error=exc)
        return None
    if found is None:
        return None
    cached, result = found
    attempt.use_cached_response(cached, result, ctx.clock.now())
    return ResponseEnded(Usage(), result.model)


def is_cached(jobs: Jobs, cache: ResponseCache, tenant: str, key: str, seconds: float, now: Ms) -> bool:
    """Return whether an equal request would very likely be a hit. Makes two reads at most.

    An entry that names an unreadable job is a miss.

    Raises:
        Unavailable: a store did not answer.
    """
    cached = cache.get(tenant, key)
    if cached is None or not cached.is_fresh(seconds, now):
        return False
    try:
        source = jobs.get(cached.job_id)
    except UnreadableRecord:
        return False
    return source is not None and _is_valid(source, tenant, cached, now // 1000)


async def store_in_cache(ctx: WorkerContext, attempt: Attempt, result: Result) -> None:
    """Store a reference to the result of a completed job, for later equal requests.

    A response that came from the cache is not stored again: its lifetime would start anew each
    time.
    """
    seconds = attempt.spec.config.cache
    if seconds is None or attempt.cache_lookup is None or attempt.cache_lookup.hit or not _is_cacheable(result):
        return
    now = ctx.clock.now()
    cached = CachedResponse(job_id=result.job_id, attempt=result.attempt, stored_at=now, expires_at=now + round(seconds * 1000))
    try:
        await ctx.offload(ctx.cache.put, attempt.job.tenant, attempt.cache_key, cached)
    except Exception as exc:  # noqa: BLE001 - the job has ended: no fault of the cache may fail it
        ctx.log("response_not_cached", job_id=result.job_id, error=exc)


async def _look_up(ctx: WorkerContext, attempt: Attempt, request: ModelRequest) -> tuple[CachedResponse, Result] | None:
    """Read the reference, the job record that it names, and that job's result.

    Returns: None if one of them is missing or no longer valid.
    """
    job, seconds, now = attempt.job, attempt.spec.config.cache or 0, ctx.clock.now()
    attempt.cache_key = await ctx.offload(cache_key, job.tenant, job.type, request)  # of a prompt of up to a megabyte
    cached = await ctx.offload(ctx.cache.get, job.tenant, attempt.cache_key)
    if cached is None or not cached.is_fresh(seconds, now):
        return None
    source = await ctx.offload(ctx.jobs.get, cached.job_id)
    if source is None or not _is_valid(source, job.tenant, cached, now // 1000):
        return None
    result = await ctx.offload(ctx.results.get, cached.job_id, cached.attempt)
    if result is None or len(result.text) != source.length or not _is_cacheable(result):
        return None
    return cached, result


def _is_valid(source: Job, tenant: str, cached: CachedResponse, now: int) -> bool:
    """Return whether the attempt is still the answer of a completed job that is not deleted."""
    matches = source.tenant == tenant and source.attempt == cached.attempt and not source.is_deleted
    return matches and source.status is Status.COMPLETED and (source.ttl is None or now < source.ttl)


def _is_cacheable(result: Result) -> bool:
    """Return whether the provider's final event was received and reports output tokens."""
    counted = result.usage is not None and not result.usage.estimated and result.usage.output > 0
    return result.status == Status.COMPLETED and result.is_exact and counted
