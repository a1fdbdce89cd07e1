"""Run one attempt of one job: stream, keep, show, and end it or have it tried again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from chalicelib.domain import frames, transitions
from chalicelib.domain.errors import AttemptFailed, AttemptTimedOut, ChunkConflict, ProviderConnectionLost, StreamCut, Unavailable
from chalicelib.domain.job import Job, Status
from chalicelib.domain.pacing import log_pace
from chalicelib.domain.retry import GiveUp, RetryPolicy
from chalicelib.domain.wakeup import WakeUp
from chalicelib.ports import Delta, Ended
from chalicelib.usecases.advance import advance
from chalicelib.usecases.attempt import Attempt
from chalicelib.usecases.audience import Audience
from chalicelib.usecases.engine import Engine
from chalicelib.usecases.judge import Verdict, judge
from chalicelib.usecases.keep_log import keep_log
from chalicelib.usecases.model_request import model_request
from chalicelib.usecases.patience import all_of, patiently


class JobRun:
    """One attempt and its readers. `audience` is told by the batch when the job's bell rings."""

    def __init__(self, engine: Engine, attempt: Attempt) -> None:
        self.attempt = attempt
        self.audience = Audience(engine, attempt)
        self._engine = engine

    async def run(self) -> None:
        """Returns when every task of the attempt has ended. A worker that was fenced stops silently: its successor tells the rest.

        Raises:
            Unavailable: a store did not answer; the job stays as it is until the sweep finds it.
        """
        log = asyncio.create_task(keep_log(self._engine, self.attempt, log_pace(self.attempt.body.config.streaming_mode)))
        ahead = asyncio.create_task(self._engine.offload(self._work_out_ahead))
        try:
            verdict = self._judged(*await self._answer())
            await self._keep(verdict, log)
            await self._end(verdict)
        except ChunkConflict:
            self._engine.log("fenced while logging", job_id=self.attempt.job.id, attempt=self.attempt.number)
        finally:
            log.cancel()
            try:
                await asyncio.gather(log, ahead, return_exceptions=True)
            finally:  # the lease may be found fenced at this very moment
                await self.audience.dismiss()

    def _work_out_ahead(self) -> int:
        """What takes a while and is needed only later, off the event loop."""
        self.attempt.price = self._engine.prices.of(self.attempt.body.config.model)
        return self.attempt.input_tokens

    async def _answer(self) -> tuple[Ended | None, AttemptFailed | None]:
        """Everything up to the last character: the provider's final event or what went wrong; neither, if a cancel was asked."""
        attempt = self.attempt
        stream = asyncio.create_task(self._stream())
        stop = asyncio.create_task(attempt.cancelled.wait())
        try:
            await asyncio.wait({stream, stop}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
            stream.cancel()
            await asyncio.gather(stream, stop, return_exceptions=True)
        attempt.finish_text(self._engine.clock.now())
        if stream.cancelled():  # by our own wish, or by something below us that gave up
            return None, None if attempt.cancelled.is_set() else ProviderConnectionLost()
        problem = stream.exception()
        if problem is None:
            return stream.result(), None
        return None, problem if isinstance(problem, AttemptFailed) else self._broke(problem)

    def _judged(self, ended: Ended | None, failure: AttemptFailed | None) -> Verdict:
        try:
            return judge(self._engine, self.attempt, ended, failure)
        except Exception as exc:  # noqa: BLE001 - whatever a provider may answer, the job must not be left with nobody
            return judge(self._engine, self.attempt, None, self._broke(exc))

    def _broke(self, problem: BaseException) -> AttemptFailed:
        """A fault of ours, as a failure of the attempt."""
        self._engine.log("an attempt broke", job_id=self.attempt.job.id, attempt=self.attempt.number, error=problem)
        return AttemptFailed("The attempt broke on our side.")

    async def _stream(self) -> Ended:
        """Read the provider's answer into the transcript."""
        attempt, clock = self.attempt, self._engine.clock
        limit = attempt.body.config.timeout
        ended: Ended | None = None
        try:
            async with asyncio.timeout(limit), self._engine.provider.stream(model_request(attempt.body, attempt.kind)) as events:
                attempt.enter(attempt.kind.stages[1], clock.now())
                async for event in events:
                    if isinstance(event, Delta):
                        attempt.refused = attempt.refused or event.refusal
                        attempt.append(event.text, clock.now())
                    elif isinstance(event, Ended):
                        ended = event
                    else:
                        attempt.begun = True
        except TimeoutError as exc:
            raise AttemptTimedOut(f"The attempt took longer than {limit:g} s.") from exc
        if ended is None:
            raise StreamCut
        return ended

    async def _keep(self, verdict: Verdict, log: asyncio.Task[None]) -> None:
        """Have all of the text, then the result acknowledged before the head may say that it ended [8]; sockets get the text meanwhile.

        In this order, because the sweep ends by its result a job whose worker died here: its log is whole by then.
        """

        async def keep() -> None:
            await log
            await patiently(self._engine, self._engine.results.put, verdict.result, self.attempt.job.tenant)

        await all_of(keep(), self.audience.drain())

    async def _end(self, verdict: Verdict) -> None:
        """The write that says how it ended; then whoever watches, and the wake-up of another attempt [9]."""
        engine, attempt = self._engine, self.attempt
        job = await patiently(engine, advance, engine.jobs, attempt.job, self._change(verdict))
        if job is None:
            engine.log("fenced", job_id=attempt.job.id, attempt=attempt.number)
            return
        if job.status in (Status.COMPLETED, Status.INCOMPLETE):
            attempt.tracker.end(engine.clock.now())
        attempt.conclude(job, frames.state(job, engine.clock.now()))
        self._note(job, verdict)
        try:
            if job.status is Status.RETRYING:
                await self._wake_later(job)
            await self.audience.refresh()
        except Unavailable as exc:  # the record says it: the sweep wakes the job, and the change stream tells the watchers
            engine.log("an end was not announced in full", job_id=job.id, attempt=attempt.number, error=exc)

    async def _wake_later(self, job: Job) -> None:
        """Send the wake-up of the next attempt. Beyond what a message can be delayed by, the sweep sends it."""
        delay = transitions.wake_delay(job, self._engine.clock.now())
        if delay is not None:
            await self._engine.offload(self._engine.queues.send, job.lane, WakeUp(job.id, job.generation), job.tenant, delay)

    def _change(self, verdict: Verdict) -> Callable[[Job], Job | None]:
        """The change to the head: the end, or another attempt later."""
        engine, attempt, outcome = self._engine, self.attempt, verdict.outcome
        if verdict.failure is not None:
            policy = RetryPolicy(max_attempts=attempt.job.max_attempts, schedule=attempt.kind.retry_schedule)
            decision = policy.decide(verdict.failure, attempt.job.tries, engine.clock.now(), attempt.job.retry_until, engine.random())
            if not isinstance(decision, GiveUp):
                due = decision.due_ms
                return lambda job: transitions.retry_later(job, attempt.generation, attempt.owner, outcome, due, engine.clock.now())
        return lambda job: transitions.finish(job, attempt.generation, attempt.owner, outcome, engine.clock.now())

    def _note(self, job: Job, verdict: Verdict) -> None:
        self._engine.log(
            "attempt ended",
            job_id=job.id,
            tenant=job.tenant,
            attempt=self.attempt.number,
            status=job.status.value,
            length=verdict.outcome.length,
            reason=verdict.outcome.error.code if verdict.outcome.error else verdict.outcome.incomplete_reason,
        )
