"""Read a provider's answer into the transcript: as it streams, and, where the response outlives its worker, however it can still be had.

A durable response goes on at the provider whether or not somebody listens. Its id is stored before anything of it is kept or shown [6]; a
stream that breaks is taken up again behind the last event that was read, by this worker or by a successor; where that is refused, the
answer is fetched when it has ended, and what is missing is added in one piece. So one attempt stays one text [5].
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, suppress

from chalicelib.domain.errors import HeadraceError
from chalicelib.domain.failures import (
    AttemptFailed,
    NotConfigured,
    ProviderConnectionLost,
    ProviderRateLimited,
    ProviderTimeout,
    ProviderUnavailable,
    ReattachRefused,
    StreamCut,
    StreamMalformed,
)
from chalicelib.domain.jobs import transitions
from chalicelib.ports import ModelRequest, Provider, ProviderEvent, ResponseEnded, ResponseStarted, TextDelta
from chalicelib.services.log import Log
from chalicelib.services.prompts.model_request import model_request
from chalicelib.services.update_job import update_job
from chalicelib.services.worker.admission.api_key_gate import answer_with_fallback
from chalicelib.services.worker.attempt import Attempt
from chalicelib.services.worker.context import WorkerContext
from chalicelib.services.worker.response_cache import serve_from_cache
from chalicelib.services.worker.retrying import call_with_retry

TRANSIENT_ERRORS = (ProviderConnectionLost, ProviderRateLimited, ProviderTimeout, ProviderUnavailable, StreamCut, StreamMalformed)
MAX_RESUMES = 3  # in a row without a new event; then the answer is fetched
INITIAL_BACKOFF, MAX_BACKOFF = 0.5, 15.0  # seconds, doubling
CANCEL_RETRY_DELAYS = (0.5, 1.0, 0.0)  # seconds after a response that could not be stopped
CANCEL_TIMEOUT_SECONDS = 10.0  # all in all: a cold start of the SDK takes some of them


class Fenced(HeadraceError):
    """Somebody else has the job: whatever this worker has in hand is of no use any more."""


async def stream_response(ctx: WorkerContext, attempt: Attempt) -> ResponseEnded:
    """The provider's final event, once all text is in the transcript.

    Raises:
        AttemptFailed: there will be none.
        Fenced: the response could not be stored, because somebody else has the job.
    """
    request = model_request(attempt.body, attempt.kind)
    if (ended := await serve_from_cache(ctx, attempt, request)) is not None:
        return ended
    try:
        if request.background:
            return await _Durable(ctx, attempt, request).read()
        attempt.calls += 1
        async with ctx.provider.stream(request) as events:
            return await _follow(ctx, attempt, events)
    except NotConfigured:
        ended = answer_with_fallback(ctx, attempt)
        if ended is None:
            raise
        return ended


async def cancel_if_owned(ctx: WorkerContext, attempt: Attempt) -> None:
    """Stop a response that nobody will read to its end: it would run on, and be charged [6]. Not if somebody else has the job by now."""
    if attempt.response_id is None:
        return
    job = await call_with_retry(ctx, ctx.jobs.get, attempt.job.id)
    if job is not None and transitions.owns(job, attempt.generation, attempt.owner):
        await cancel_response(ctx.provider, ctx.log, attempt.response_id)


async def cancel_response(provider: Provider, log: Log, response_id: str) -> None:
    """Stop a response at the provider, best of all before the record says that nobody wants it: whoever dies in between, another will.

    A provider that cannot be reached, or hangs, must keep neither a job from its end nor the sweep from all others: then this says so, and
    the response is charged to its own end.
    """
    problem: Exception = TimeoutError()
    with suppress(TimeoutError):
        async with asyncio.timeout(CANCEL_TIMEOUT_SECONDS):
            for pause in CANCEL_RETRY_DELAYS:
                try:
                    await provider.cancel(response_id)
                except AttemptFailed as exc:
                    problem = exc
                    await asyncio.sleep(pause)
                else:
                    return
    log("response_not_cancelled", response_id=response_id, error=problem)


async def _follow(ctx: WorkerContext, attempt: Attempt, events: AsyncIterator[ProviderEvent]) -> ResponseEnded:
    """Read one stream to its final event."""
    clock = ctx.clock
    attempt.start_stage(attempt.kind.stages[1], clock.now())
    ended: ResponseEnded | None = None
    async for event in events:
        if isinstance(event, TextDelta):
            attempt.refused = attempt.refused or event.refusal
            attempt.append(event.text, clock.now(), event.sequence)
        elif isinstance(event, ResponseEnded):
            ended = event
        else:
            await _begun(ctx, attempt, event)
    if ended is None:
        raise StreamCut
    return ended


async def _begun(ctx: WorkerContext, attempt: Attempt, event: ResponseStarted) -> None:
    """The provider has made a response. A durable one is stored, so that it can be found again, or else stopped.

    Where a provider that is only like OpenAI gives it no id it is like any other: it ends with its worker.
    """
    attempt.begun = True
    if not attempt.body.config.durable or attempt.response_id is not None or not event.response_id:
        return
    attempt.response_id = event.response_id
    generation, owner, now = attempt.generation, attempt.owner, ctx.clock.now()
    try:
        noted = await call_with_retry(
            ctx,
            update_job,
            ctx.jobs,
            attempt.job,
            lambda seen: transitions.store_response_id(seen, generation, owner, event.response_id, now),
        )
        if noted is None:
            raise Fenced
    except BaseException:  # stored or not: nobody is to count on it
        attempt.response_id = None
        await asyncio.shield(cancel_response(ctx.provider, ctx.log, event.response_id))
        raise
    attempt.job = noted


class _Durable:
    """One worker's part in reading a durable response."""

    def __init__(self, ctx: WorkerContext, attempt: Attempt, request: ModelRequest) -> None:
        self._ctx, self._attempt, self._request = ctx, attempt, request
        self._pause = INITIAL_BACKOFF

    async def read(self) -> ResponseEnded:
        """By streams as long as that goes on, then by fetching."""
        broken, before = 0, self._attempt.sequence
        while broken <= MAX_RESUMES:
            try:
                async with self._stream() as events:
                    return await _follow(self._ctx, self._attempt, events)
            except ReattachRefused:
                break
            except TRANSIENT_ERRORS as problem:
                if self._attempt.response_id is None:  # nothing was begun that could be taken up again
                    raise
                went_on = self._attempt.sequence != before
                broken, before = (0 if went_on else broken) + 1, self._attempt.sequence
                await self._wait(problem, anew=went_on)
        return await self._fetch()

    def _stream(self) -> AbstractAsyncContextManager[AsyncIterator[ProviderEvent]]:
        provider, attempt = self._ctx.provider, self._attempt
        attempt.calls += 1
        if attempt.response_id is None:
            return provider.stream(self._request)
        return provider.resume(attempt.response_id, -1 if attempt.sequence is None else attempt.sequence, self._request)

    async def _fetch(self) -> ResponseEnded:
        """Wait until the response has ended, and take what is missing of it in one piece."""
        attempt, self._pause = self._attempt, INITIAL_BACKOFF
        assert attempt.response_id is not None
        while True:
            attempt.calls += 1
            try:
                fetched = await self._ctx.provider.fetch(attempt.response_id)
            except TRANSIENT_ERRORS as problem:
                await self._wait(problem)
                continue
            if fetched.failure is not None:
                raise fetched.failure
            if fetched.ended is not None:
                attempt.refused = attempt.refused or fetched.refusal
                attempt.append_rest(fetched.text, self._ctx.clock.now())
                return fetched.ended
            await self._wait()

    async def _wait(self, problem: AttemptFailed | None = None, *, anew: bool = False) -> None:
        """Longer each time that nothing comes of it; as long as was asked for, if it was."""
        pause = INITIAL_BACKOFF if anew else self._pause
        self._pause = min(pause * 2, MAX_BACKOFF)
        await asyncio.sleep(max(pause, (problem.retry_after or 0) if problem else 0))
