"""Answer a request with what was answered to an equal one of the tenant, where its job asks for that.

The cache may only ever help: what cannot be read, or is no longer there, is a miss, and what cannot be written is a miss later.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import fields

from chalicelib.domain.execution.response_cache import CachedResponse, CacheLookup
from chalicelib.domain.execution.result import Result
from chalicelib.domain.jobs.job import Job, Status, Usage
from chalicelib.domain.units import Ms
from chalicelib.ports import Jobs, ModelRequest, ResponseCache, ResponseEnded
from chalicelib.services.worker.attempt import Attempt
from chalicelib.services.worker.context import WorkerContext

TRANSPORT_FIELDS = frozenset({"timeout", "background"})  # of a request: all the rest is what is asked
STORE_TIMEOUT_SECONDS = 3.0  # for three reads, all in all: the provider would have answered by then


def cache_key(tenant: str, job_type: str, request: ModelRequest) -> str:
    """What makes two requests equal. Whatever a request may have one day counts as well, unless it is named above."""
    asked = {field.name: getattr(request, field.name) for field in fields(request) if field.name not in TRANSPORT_FIELDS}
    return hashlib.sha256(json.dumps([tenant, job_type, asked], sort_keys=True).encode()).hexdigest()


async def serve_from_cache(ctx: WorkerContext, attempt: Attempt, request: ModelRequest) -> ResponseEnded | None:
    """The end of an answer that is there already, once all of it is in the transcript; None: the provider has to be asked.

    No request is made where the job does not ask for it, or where the attempt goes on with a response that has begun.
    """
    if attempt.body.config.cache is None or attempt.response_id is not None:
        return None
    attempt.looked_up = CacheLookup()
    try:
        async with asyncio.timeout(STORE_TIMEOUT_SECONDS):
            found = await _find(ctx, attempt, request)
    except Exception as exc:  # noqa: BLE001 - whatever is wrong with the cache, the provider answers
        ctx.log("response_cache_unavailable", job_id=attempt.job.id, error=exc)
        return None
    if found is None:
        return None
    cached, result = found
    attempt.use_cached_response(cached, result, ctx.clock.now())
    return ResponseEnded(Usage(), result.model)


def is_cached(jobs: Jobs, cache: ResponseCache, tenant: str, key: str, seconds: float, now: Ms) -> bool:
    """Whether an equal request would very likely be answered from here; two reads at most.

    Raises:
        Unavailable: nobody can tell.
    """
    cached = cache.get(tenant, key)
    if cached is None or not cached.is_fresh(seconds, now):
        return False
    source = jobs.get(cached.job_id)
    return source is not None and _stands(source, tenant, cached, now // 1000)


async def store_in_cache(ctx: WorkerContext, attempt: Attempt, result: Result) -> None:
    """Let the answer of a job that has completed, which everybody may read by now, serve the next who ask the same.

    Not one that was itself found here, so that no answer outlives the time it was kept for; nor one that no provider has given.
    """
    seconds = attempt.body.config.cache
    if seconds is None or attempt.looked_up is None or attempt.looked_up.hit or not _is_worth_keeping(result):
        return
    now = ctx.clock.now()
    cached = CachedResponse(job_id=result.job_id, attempt=result.attempt, stored_at=now, expires_at=now + round(seconds * 1000))
    try:
        await ctx.offload(ctx.cache.put, attempt.job.tenant, attempt.looked_up_by, cached)
    except Exception as exc:  # noqa: BLE001 - the job has ended, and is none the worse for it
        ctx.log("response_not_cached", job_id=result.job_id, error=exc)


async def _find(ctx: WorkerContext, attempt: Attempt, request: ModelRequest) -> tuple[CachedResponse, Result] | None:
    """The reference, then the head of the job that it names, then its result: each as it is now."""
    job, seconds, now = attempt.job, attempt.body.config.cache or 0, ctx.clock.now()
    attempt.looked_up_by = cache_key(job.tenant, job.type, request)
    cached = await ctx.offload(ctx.cache.get, job.tenant, attempt.looked_up_by)
    if cached is None or not cached.is_fresh(seconds, now):
        return None
    source = await ctx.offload(ctx.jobs.get, cached.job_id)
    if source is None or not _stands(source, job.tenant, cached, now // 1000):
        return None
    result = await ctx.offload(ctx.results.get, cached.job_id, cached.attempt)
    if result is None or len(result.text) != source.length or not _is_worth_keeping(result):
        return None
    return cached, result


def _stands(source: Job, tenant: str, cached: CachedResponse, now: int) -> bool:
    """Whether the job still says that this attempt was its answer. A deleted one is gone from the first moment."""
    there = source.tenant == tenant and source.attempt == cached.attempt and not source.is_deleted
    return there and source.status is Status.COMPLETED and (source.ttl is None or now < source.ttl)


def _is_worth_keeping(result: Result) -> bool:
    """Whole, by the provider's own account: its final event was seen, and it charged for what it wrote."""
    return result.status == Status.COMPLETED and result.is_exact and result.usage is not None and result.usage.output > 0
