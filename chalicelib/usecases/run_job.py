"""Run one attempt of one job: from the claim to the terminal write, or to the retry."""

from __future__ import annotations

import asyncio
from typing import Any

from chalicelib.domain import frames, transitions
from chalicelib.domain.errors import AttemptFailed, AttemptTimedOut, ChunkConflict, ContentRefused
from chalicelib.domain.job import Job, JobError, Status
from chalicelib.domain.pacing import log_pace
from chalicelib.domain.result import Result
from chalicelib.domain.retry import GiveUp, RetryPolicy
from chalicelib.domain.transitions import Outcome
from chalicelib.domain.wakeup import WakeUp
from chalicelib.ports import Delta, Ended
from chalicelib.usecases.advance import advance
from chalicelib.usecases.attempt import Attempt
from chalicelib.usecases.audience import Audience
from chalicelib.usecases.engine import Engine
from chalicelib.usecases.keep_log import keep_log
from chalicelib.usecases.model_request import model_request, parsed_output
from chalicelib.usecases.usage import cost_of, counted

LONGEST_MESSAGE = 300  # it is part of the head, which is written whole at every change


async def claim_job(engine: Engine, wake_up: WakeUp, job: Job, owner: str) -> Attempt | None:
    """Take the job, and what it asks for. None: somebody else has it, or it has ended: the wake-up is dropped without harm."""
    now = engine.clock.now()
    claimed = await engine.offload(
        advance, engine.jobs, job, lambda seen: transitions.claim(seen, wake_up.generation, owner, engine.clock.now())
    )
    if claimed is None or not transitions.holds(claimed, wake_up.generation, owner):
        return None
    body = await engine.offload(engine.bodies.get, claimed.id)
    if body is None:
        failed = Outcome(status=Status.FAILED, length=0, error=_error(AttemptFailed("The content of this job is no longer kept."), claimed))
        await engine.offload(
            advance, engine.jobs, claimed, lambda seen: transitions.finish(seen, wake_up.generation, owner, failed, engine.clock.now())
        )
        return None
    return Attempt(claimed, body, engine.job_type(claimed.type), owner, now)


class JobRun:
    """One attempt and its readers. `audience` is told by the batch when the job's bell rings."""

    def __init__(self, engine: Engine, attempt: Attempt) -> None:
        self.attempt = attempt
        self.audience = Audience(engine, attempt)
        self._engine = engine

    async def run(self) -> None:
        """Stream, keep, show, end. Returns when every task of the attempt has ended.

        A worker that was fenced stops silently: whoever took the job over tells the rest.
        """
        log = asyncio.create_task(keep_log(self._engine, self.attempt, log_pace(self.attempt.body.config.streaming_mode)))
        try:
            outcome, failure = await self._answer()
            await self._keep(outcome, log)
            await self._end(outcome, failure)
        except ChunkConflict:
            self._engine.log("fenced while logging", job_id=self.attempt.job.id, attempt=self.attempt.number)
        finally:
            log.cancel()
            await asyncio.gather(log, return_exceptions=True)
            await self.audience.dismiss()

    async def _answer(self) -> tuple[Outcome, AttemptFailed | None]:
        """Everything up to the last character, and what came of it."""
        attempt, engine = self.attempt, self._engine
        stream = asyncio.create_task(self._stream())
        stop = asyncio.create_task(attempt.cancelled.wait())
        try:
            await asyncio.wait({stream, stop}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
            if not stream.done():
                stream.cancel()
            await asyncio.gather(stream, stop, return_exceptions=True)
        attempt.finish_text(engine.clock.now())
        ended, failure = None, None
        if not stream.cancelled():
            problem = stream.exception()
            if problem is not None and not isinstance(problem, AttemptFailed):
                raise problem
            ended, failure = (None, problem) if problem is not None else (stream.result(), None)
        return self._outcome(ended, failure)

    async def _stream(self) -> Ended:
        """Read the provider's answer into the transcript."""
        attempt, engine = self.attempt, self._engine
        request = model_request(attempt.body, attempt.kind)
        ended: Ended | None = None
        try:
            async with asyncio.timeout(attempt.body.config.timeout), engine.provider.stream(request) as events:
                attempt.enter(attempt.kind.stages[1], engine.clock.now())
                async for event in events:
                    if isinstance(event, Delta):
                        attempt.refused = attempt.refused or event.refusal
                        attempt.append(event.text, engine.clock.now())
                    elif isinstance(event, Ended):
                        ended = event
        except TimeoutError as exc:
            raise AttemptTimedOut(f"The attempt took longer than {attempt.body.config.timeout:g} s.") from exc
        if ended is None:
            raise AttemptFailed("The provider's stream had no end.")
        return ended

    def _outcome(self, ended: Ended | None, failure: AttemptFailed | None) -> tuple[Outcome, AttemptFailed | None]:
        attempt, engine = self.attempt, self._engine
        parsed: Any = None
        if failure is None and ended is not None:
            attempt.enter("validation", engine.clock.now())
            try:
                if attempt.refused:
                    raise ContentRefused
                if ended.incomplete_reason is None:
                    parsed = parsed_output(attempt.transcript.text, attempt.body, attempt.kind)
            except AttemptFailed as problem:
                failure = problem
        attempt.enter("finalization", engine.clock.now())
        usage = counted(attempt, ended)
        status = Status.COMPLETED
        if ended is None and failure is None:
            status = Status.CANCELLED
        elif failure is not None:
            status = Status.FAILED
        elif ended is not None and ended.incomplete_reason:
            status = Status.INCOMPLETE
        self._parsed, self._model = parsed, (ended.model if ended else None) or attempt.body.config.model
        return Outcome(
            status=status,
            length=len(attempt.transcript),
            usage=usage,
            cost=cost_of(engine.prices, self._model, usage),
            error=_error(failure, attempt.job) if failure else None,
            incomplete_reason=ended.incomplete_reason if ended else None,
            first_token_at=attempt.first_token_at,
        ), failure

    async def _keep(self, outcome: Outcome, log: asyncio.Task[None]) -> None:
        """Acknowledge all of the text and the result, before the head may say that it ended [8]; the sockets get the text meanwhile."""
        attempt = self.attempt
        result = Result(
            job_id=attempt.job.id,
            attempt=attempt.number,
            text=attempt.transcript.text,
            parsed=self._parsed,
            finish_reason=outcome.incomplete_reason or ("stop" if outcome.status is Status.COMPLETED else outcome.status.value),
            model=self._model,
            usage=outcome.usage,
            cost=outcome.cost,
            started_at=attempt.started_at,
            first_token_at=attempt.first_token_at,
            finished_at=self._engine.clock.now(),
            error_code=outcome.error.code if outcome.error else None,
            ttl=self._engine.clock.now() // 1000 + transitions.KEEP_COMPLETED_DAYS * 86_400,
        )
        put = self._engine.offload(self._engine.results.put, result, attempt.job.tenant)
        await asyncio.gather(log, put, self.audience.drain())

    async def _end(self, outcome: Outcome, failure: AttemptFailed | None) -> None:
        """The write that says how it ended, then the wake-up if there is to be another attempt, then whoever watches [9]."""
        engine, attempt = self._engine, self.attempt
        change = self._decide(outcome, failure)
        job = await engine.offload(advance, engine.jobs, attempt.job, change)
        if job is None:
            engine.log("fenced", job_id=attempt.job.id, attempt=attempt.number)
            return
        if job.status is Status.RETRYING:
            delay = max(0, (job.due_at or 0) - engine.clock.now()) / 1000
            await engine.offload(engine.queues.send, job.lane, WakeUp(job.id, job.generation), job.tenant, min(900, round(delay + 0.5)))
        if job.status in (Status.COMPLETED, Status.INCOMPLETE):
            attempt.tracker.end(engine.clock.now())
        attempt.conclude(job, frames.state(job, engine.clock.now()))
        await self.audience.refresh()
        engine.log(
            "attempt ended",
            job_id=job.id,
            tenant=job.tenant,
            attempt=attempt.number,
            status=job.status.value,
            length=outcome.length,
            reason=outcome.error.code if outcome.error else outcome.incomplete_reason,
        )

    def _decide(self, outcome: Outcome, failure: AttemptFailed | None) -> Any:
        """The change to the head: the end, or another attempt later."""
        engine, attempt = self._engine, self.attempt
        if failure is not None:
            policy = RetryPolicy(max_attempts=attempt.job.max_attempts, schedule=attempt.kind.retry_schedule)
            now = engine.clock.now()
            decision = policy.decide(failure, attempt.job.tries, now, attempt.job.retry_until, engine.random())
            if not isinstance(decision, GiveUp):
                due = decision.due_ms
                return lambda job: transitions.retry_later(job, attempt.generation, attempt.owner, outcome, due, engine.clock.now())
        return lambda job: transitions.finish(job, attempt.generation, attempt.owner, outcome, engine.clock.now())


def _error(failure: AttemptFailed, job: Job) -> JobError:
    return JobError(
        code=failure.code,
        error_class=failure.error_class,
        retryable=failure.retryable,
        message=failure.message[:LONGEST_MESSAGE],
        suggestion=failure.suggestion,
        attempt=job.attempt,
        provider_status=failure.provider_status,
        provider_request_id=failure.provider_request_id,
    )
