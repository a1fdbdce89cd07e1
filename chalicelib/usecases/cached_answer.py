"""Answer a request with what was answered to an equal one of the tenant, where its job asks for that.

The cache may only ever help: what cannot be read, or is no longer there, is a miss, and what cannot be written is a miss later.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import fields

from chalicelib.domain.cached import Cached, LookedUp
from chalicelib.domain.job import Job, Ms, Status, Usage
from chalicelib.domain.result import Result
from chalicelib.ports import Cache, Ended, Jobs, ModelRequest
from chalicelib.usecases.attempt import Attempt
from chalicelib.usecases.engine import Engine

HOW_IT_IS_ASKED = frozenset({"timeout", "background"})  # of a request: all the rest is what is asked
PATIENCE_SECONDS = 3.0  # for three reads, all in all: the provider would have answered by then


def key_of(tenant: str, job_type: str, request: ModelRequest) -> str:
    """What makes two requests equal. Whatever a request may have one day counts as well, unless it is named above."""
    asked = {field.name: getattr(request, field.name) for field in fields(request) if field.name not in HOW_IT_IS_ASKED}
    return hashlib.sha256(json.dumps([tenant, job_type, asked], sort_keys=True).encode()).hexdigest()


async def cached_answer(engine: Engine, attempt: Attempt, request: ModelRequest) -> Ended | None:
    """The end of an answer that is there already, once all of it is in the transcript; None: the provider has to be asked.

    No request is made where the job does not ask for it, or where the attempt goes on with a response that has begun.
    """
    if attempt.body.config.cache is None or attempt.response_id is not None:
        return None
    attempt.looked_up = LookedUp()
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            found = await _find(engine, attempt, request)
    except Exception as exc:  # noqa: BLE001 - whatever is wrong with the cache, the provider answers
        engine.log("the cache could not be read", job_id=attempt.job.id, error=exc)
        return None
    if found is None:
        return None
    cached, result = found
    attempt.use_cached_response(cached, result, engine.clock.now())
    return Ended(Usage(), result.model)


def is_cached(jobs: Jobs, cache: Cache, tenant: str, key: str, seconds: float, now: Ms) -> bool:
    """Whether an equal request would very likely be answered from here; two reads at most.

    Raises:
        Unavailable: nobody can tell.
    """
    cached = cache.get(tenant, key)
    if cached is None or not cached.is_fresh(seconds, now):
        return False
    source = jobs.get(cached.job_id)
    return source is not None and _stands(source, tenant, cached, now // 1000)


async def remember(engine: Engine, attempt: Attempt, result: Result) -> None:
    """Let the answer of a job that has completed, which everybody may read by now, serve the next who ask the same.

    Not one that was itself found here, so that no answer outlives the time it was kept for; nor one that no provider has given.
    """
    seconds = attempt.body.config.cache
    if seconds is None or attempt.looked_up is None or attempt.looked_up.hit or not _is_worth_keeping(result):
        return
    now = engine.clock.now()
    cached = Cached(job_id=result.job_id, attempt=result.attempt, stored_at=now, expires_at=now + round(seconds * 1000))
    try:
        await engine.offload(engine.cache.put, attempt.job.tenant, attempt.looked_up_by, cached)
    except Exception as exc:  # noqa: BLE001 - the job has ended, and is none the worse for it
        engine.log("an answer was not cached", job_id=result.job_id, error=exc)


async def _find(engine: Engine, attempt: Attempt, request: ModelRequest) -> tuple[Cached, Result] | None:
    """The reference, then the head of the job that it names, then its result: each as it is now."""
    job, seconds, now = attempt.job, attempt.body.config.cache or 0, engine.clock.now()
    attempt.looked_up_by = key_of(job.tenant, job.type, request)
    cached = await engine.offload(engine.cache.get, job.tenant, attempt.looked_up_by)
    if cached is None or not cached.is_fresh(seconds, now):
        return None
    source = await engine.offload(engine.jobs.get, cached.job_id)
    if source is None or not _stands(source, job.tenant, cached, now // 1000):
        return None
    result = await engine.offload(engine.results.get, cached.job_id, cached.attempt)
    if result is None or len(result.text) != source.length or not _is_worth_keeping(result):
        return None
    return cached, result


def _stands(source: Job, tenant: str, cached: Cached, now: int) -> bool:
    """Whether the job still says that this attempt was its answer. A deleted one is gone from the first moment."""
    there = source.tenant == tenant and source.attempt == cached.attempt and not source.is_deleted
    return there and source.status is Status.COMPLETED and (source.ttl is None or now < source.ttl)


def _is_worth_keeping(result: Result) -> bool:
    """Whole, by the provider's own account: its final event was seen, and it charged for what it wrote."""
    return result.status == Status.COMPLETED and result.is_exact and result.usage is not None and result.usage.output > 0
