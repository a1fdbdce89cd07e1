"""Read a provider's response into the transcript, from its stream or by fetching it at its end.

A durable response continues at the provider without a reader. Its id is stored before any of its
text is stored or sent (protocol rule 6: the response id is stored first). A broken stream is
resumed after the last event that was read, by this worker or a successor. If the provider refuses
to resume it, the worker waits until the response has ended, fetches it and appends the missing text
in one piece, so that one attempt remains one text (protocol rule 5: one attempt, one response, one
text).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
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
from chalicelib.services.prompts.cache_scope import scope_to_tenant
from chalicelib.services.prompts.model_request import corrected, model_request
from chalicelib.services.retrying import CANCEL_RETRY_DELAYS, offload_with_retry
from chalicelib.services.update_job import update_job
from chalicelib.services.worker.admission.api_key_gate import answer_with_fallback
from chalicelib.services.worker.admission.rate_gate import learn_from_answer
from chalicelib.services.worker.attempt import Attempt
from chalicelib.services.worker.context import WorkerContext
from chalicelib.services.worker.response_cache import serve_from_cache

TRANSIENT_ERRORS = (ProviderConnectionLost, ProviderRateLimited, ProviderTimeout, ProviderUnavailable, StreamCut, StreamMalformed)
MAX_RESUMES = 3  # in a row without a new event; then the response is fetched
INITIAL_BACKOFF, MAX_BACKOFF = 0.5, 15.0  # seconds, doubling
CANCEL_TIMEOUT_SECONDS = 10.0  # for all tries together; a cold start of the SDK takes some of it


class Fenced(HeadraceError):
    """Another worker owns the job, so nothing that this worker still writes would count."""


async def stream_response(ctx: WorkerContext, attempt: Attempt) -> ResponseEnded:
    """Read the whole response into the transcript and return the provider's final event.

    Raises:
        AttemptFailed: the response failed or broke off.
        Fenced: the response id could not be stored, because another worker owns the job.
    """
    request = model_request(attempt.spec, attempt.kind)
    if (ended := await serve_from_cache(ctx, attempt, request)) is not None:
        return ended
    if attempt.wrong_before is not None:
        request = corrected(request, attempt.wrong_before)
    request = scope_to_tenant(request, attempt.job.tenant, isolated=ctx.isolates_prompt_cache)
    try:
        if request.background:
            return await _DurableReader(ctx, attempt, request).read()
        attempt.calls += 1
        async with ctx.provider.stream(request) as events:
            return await _read_stream(ctx, attempt, events)
    except NotConfigured:
        ended = answer_with_fallback(ctx, attempt)
        if ended is None:
            raise
        return ended


async def cancel_if_owned(ctx: WorkerContext, attempt: Attempt) -> None:
    """Cancel the attempt's response, unless another worker owns the job now and may be reading it.

    Otherwise it would run to its end and be charged (protocol rule 6: the response id is stored
    first).
    """
    if attempt.response_id is None:
        return
    job = await offload_with_retry(ctx, ctx.jobs.get, attempt.job.id)
    if job is not None and transitions.owns(job, attempt.generation, attempt.owner):
        await cancel_response(ctx.provider, ctx.log, attempt.response_id)


async def cancel_response(provider: Provider, log: Log, response_id: str) -> None:
    """Cancel a response at the provider, with a few retries.

    Call it before writing the record that abandons the response: if the process dies in between,
    the next worker or the sweeper finds the response id and cancels it again. If the provider does
    not answer within the timeout, this logs it and returns, because the end of the job and the rest
    of a sweep must not wait; the response is then charged in full.
    """
    await _ask_provider(lambda: provider.cancel(response_id), log, "response_not_cancelled", response_id)


async def delete_response(provider: Provider, log: Log, response_id: str) -> None:
    """Delete a response at the provider, which would keep it and its prompt for thirty days.

    Call it after the record that ends the attempt is written: no worker needs the response any
    more, because the text is stored here. With a few retries; then this logs it and returns,
    because the end of the job and the rest of a sweep must not wait.
    """
    await _ask_provider(lambda: provider.delete(response_id), log, "response_not_deleted", response_id)


async def _ask_provider(ask: Callable[[], Awaitable[None]], log: Log, event: str, response_id: str) -> None:
    error: Exception = TimeoutError()
    with suppress(TimeoutError):
        async with asyncio.timeout(CANCEL_TIMEOUT_SECONDS):
            for pause in CANCEL_RETRY_DELAYS:
                try:
                    await ask()
                except AttemptFailed as exc:
                    error = exc
                    await asyncio.sleep(pause)
                else:
                    return
    log(event, response_id=response_id, error=error)


async def _read_stream(ctx: WorkerContext, attempt: Attempt, events: AsyncIterator[ProviderEvent]) -> ResponseEnded:
    """Read one stream to its final event.

    Raises:
        StreamCut: it ended without one.
    """
    clock = ctx.clock
    attempt.output.start_stage(attempt.kind.stages[1], clock.now())
    ended: ResponseEnded | None = None
    async for event in events:
        if isinstance(event, TextDelta):
            attempt.refused = attempt.refused or event.refusal
            if event.message:
                attempt.last_message_at = len(attempt.output.transcript)
            attempt.output.append(event.text, clock.now(), event.sequence, event.tokens)
        elif isinstance(event, ResponseEnded):
            ended = event
        else:
            await _record_started(ctx, attempt, event)
    if ended is None:
        raise StreamCut
    return ended


async def _record_started(ctx: WorkerContext, attempt: Attempt, event: ResponseStarted) -> None:
    """Record that the provider created the response, and store the id of a durable one.

    If the id cannot be stored, the response is cancelled.

    An OpenAI-compatible provider may give no id. Such a response is not durable: it ends with its
    worker.

    Raises:
        Fenced: another worker owns the job.
        Unavailable: it is unknown whether the id was stored.
    """
    attempt.response_started = True
    await learn_from_answer(ctx, attempt.spec.config.model, event.rate)
    if not attempt.spec.config.durable or attempt.response_id is not None or not event.response_id:
        return
    attempt.response_id = event.response_id
    generation, owner, now = attempt.generation, attempt.owner, ctx.clock.now()
    try:
        updated = await offload_with_retry(
            ctx,
            update_job,
            ctx.jobs,
            attempt.job,
            lambda seen: transitions.store_response_id(seen, generation, owner, event.response_id, now),
        )
        if updated is None:
            raise Fenced
    except BaseException:  # whether or not the id was stored, no successor may resume this response
        attempt.response_id = None
        await asyncio.shield(cancel_response(ctx.provider, ctx.log, event.response_id))
        await asyncio.shield(delete_response(ctx.provider, ctx.log, event.response_id))
        raise
    attempt.job = updated


class _DurableReader:
    """Reads a durable response, from where an earlier worker stopped if there was one."""

    def __init__(self, ctx: WorkerContext, attempt: Attempt, request: ModelRequest) -> None:
        self._ctx, self._attempt, self._request = ctx, attempt, request
        self._pause = INITIAL_BACKOFF

    async def read(self) -> ResponseEnded:
        """Stream the response, resuming it after errors; fetch it if resuming is refused or brings
        nothing new.
        """
        failures, last_sequence = 0, self._attempt.output.sequence
        while failures <= MAX_RESUMES:
            try:
                async with self._stream() as events:
                    return await _read_stream(self._ctx, self._attempt, events)
            except ReattachRefused:
                if self._attempt.response_id is None:
                    raise
                break
            except TRANSIENT_ERRORS as error:
                if self._attempt.response_id is None:  # there is no response to resume
                    raise
                progressed = self._attempt.output.sequence != last_sequence
                failures, last_sequence = (0 if progressed else failures) + 1, self._attempt.output.sequence
                await self._back_off(error, reset=progressed)
        return await self._fetch()

    def _stream(self) -> AbstractAsyncContextManager[AsyncIterator[ProviderEvent]]:
        provider, attempt = self._ctx.provider, self._attempt
        attempt.calls += 1
        if attempt.response_id is None:
            return provider.stream(self._request)
        return provider.resume(attempt.response_id, -1 if attempt.output.sequence is None else attempt.output.sequence, self._request)

    async def _fetch(self) -> ResponseEnded:
        """Wait until the response has ended and append the missing text in one piece."""
        attempt, self._pause = self._attempt, INITIAL_BACKOFF
        assert attempt.response_id is not None
        while True:
            attempt.calls += 1
            try:
                fetched = await self._ctx.provider.fetch(attempt.response_id)
            except TRANSIENT_ERRORS as error:
                await self._back_off(error)
                continue
            if fetched.failure is not None:
                raise fetched.failure
            if fetched.ended is not None:
                attempt.refused = attempt.refused or fetched.refusal
                attempt.output.append_rest(fetched.text, self._ctx.clock.now())
                return fetched.ended
            await self._back_off()

    async def _back_off(self, error: AttemptFailed | None = None, *, reset: bool = False) -> None:
        """Sleep twice as long as last time unless `reset`; at least as long as the provider asks."""
        pause = INITIAL_BACKOFF if reset else self._pause
        self._pause = min(pause * 2, MAX_BACKOFF)
        await asyncio.sleep(max(pause, (error.retry_after or 0) if error else 0))
