"""Run one attempt of one job: stream, keep, show, and end it or have it tried again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from chalicelib.domain.errors import ChunkConflict, Unavailable
from chalicelib.domain.execution.deadline import Deadline
from chalicelib.domain.execution.retry_policy import GiveUp, RetryPolicy, counts_as_attempt
from chalicelib.domain.failures import AttemptFailed, AttemptTimedOut, ProviderConnectionLost, WorkerShutdown
from chalicelib.domain.jobs import transitions
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.streaming import frames
from chalicelib.domain.streaming.pacing import log_pace
from chalicelib.ports import ResponseEnded
from chalicelib.services.update_job import update_job
from chalicelib.services.wake_up import send_wake_up
from chalicelib.services.worker.admission.api_key_gate import hold_if_not_configured
from chalicelib.services.worker.admission.circuit_gate import close_on_first_token, record_outcome
from chalicelib.services.worker.admission.type_limit_gate import release_permit, renew_permit
from chalicelib.services.worker.attempt import Attempt
from chalicelib.services.worker.context import WorkerContext
from chalicelib.services.worker.evaluate_attempt import Evaluation, evaluate_attempt
from chalicelib.services.worker.log_events import log_job_failed
from chalicelib.services.worker.output.broadcaster import Broadcaster
from chalicelib.services.worker.output.transcript_writer import write_transcript
from chalicelib.services.worker.response_cache import store_in_cache
from chalicelib.services.worker.retrying import call_with_retry, gather_or_cancel
from chalicelib.services.worker.run_task import run_task
from chalicelib.services.worker.stream_response import Fenced, cancel_if_owned, stream_response


class AttemptRunner:
    """One attempt and its readers. `audience` is told by the batch when the job's bell rings; at `deadline` the worker's time is over."""

    def __init__(self, ctx: WorkerContext, attempt: Attempt, deadline: Deadline | None = None) -> None:
        self.attempt = attempt
        self.audience = Broadcaster(ctx, attempt)
        self._ctx = ctx
        self._deadline = deadline

    async def run(self) -> None:
        """Returns when every task of the attempt has ended. A worker that was fenced stops silently: its successor tells the rest.

        Raises:
            Unavailable: a store did not answer; the job stays as it is until the sweep finds it.
        """
        log = asyncio.create_task(write_transcript(self._ctx, self.attempt, log_pace(self.attempt.body.config.streaming_mode)))
        ahead = asyncio.create_task(self._ctx.offload(self._work_out_ahead))
        proof = asyncio.create_task(close_on_first_token(self._ctx, self.attempt))
        turn = asyncio.create_task(renew_permit(self._ctx, self.attempt))
        try:
            ended, failure = await self._answer()
            if isinstance(failure, WorkerShutdown) and self.attempt.job.is_resumable:
                await self._hand_over(log)
            else:
                await self._conclude(ended, failure, log, proof)
        except (ChunkConflict, Fenced) as exc:
            self._ctx.log("attempt_fenced", job_id=self.attempt.job.id, attempt=self.attempt.number, by=type(exc).__name__)
        finally:
            log.cancel()
            proof.cancel()
            turn.cancel()
            try:
                await asyncio.gather(log, ahead, proof, turn, return_exceptions=True)
                await release_permit(self._ctx, self.attempt.kind.name, self.attempt.turn)
            finally:  # the lease may be found fenced at this very moment
                await self.audience.close()

    def _work_out_ahead(self) -> int:
        """What takes a while and is needed only later, off the event loop."""
        attempt, config = self.attempt, self.attempt.body.config
        if attempt.kind.handler is not None:
            return 0
        attempt.tracker.calibrate(self._ctx.throughput_of(attempt.kind.name, config.model), config.max_tokens)
        attempt.price = self._ctx.prices.of(config.model)
        return self.attempt.input_tokens

    async def _conclude(
        self, ended: ResponseEnded | None, failure: AttemptFailed | None, log: asyncio.Task[None], proof: asyncio.Task[None]
    ) -> None:
        """Nothing more comes of this attempt."""
        self.attempt.finish_text(self._ctx.clock.now())
        if ended is None:
            await cancel_if_owned(self._ctx, self.attempt)
        verdict = self._judged(ended, failure)
        await proof
        said = record_outcome(self._ctx, self.attempt, verdict.failure, answered=ended is not None and not self.attempt.is_free)
        await gather_or_cancel(self._keep(verdict, log), said)
        hold_if_not_configured(self._ctx, self.attempt, verdict.failure)
        await self._end(verdict)

    async def _answer(self) -> tuple[ResponseEnded | None, AttemptFailed | None]:
        """Everything up to the last character: the provider's final event or what went wrong; neither, if a cancel was asked."""
        attempt = self.attempt
        if attempt.cancelled.is_set():
            return None, None
        stream = asyncio.create_task(self._stream())
        stop = asyncio.create_task(attempt.cancelled.wait())
        late = asyncio.create_task(self._time_is_over())
        try:
            await asyncio.wait({stream, stop, late}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (stream, stop, late):
                task.cancel()
            await asyncio.gather(stream, stop, late, return_exceptions=True)
        if stream.cancelled():  # by our own wish, or by something below us that gave up
            if attempt.cancelled.is_set():
                return None, None
            return None, ProviderConnectionLost() if late.cancelled() else WorkerShutdown()
        problem = stream.exception()
        if problem is None:
            return stream.result(), None
        if isinstance(problem, Fenced):
            raise problem
        return None, problem if isinstance(problem, AttemptFailed) else self._broke(problem)

    async def _time_is_over(self) -> None:
        """Return when what is not done has to be handed on."""
        if self._deadline is None:
            await asyncio.Event().wait()
        else:
            await asyncio.sleep(max(0, self._deadline.handover_at - self._ctx.clock.now()) / 1000)

    def _judged(self, ended: ResponseEnded | None, failure: AttemptFailed | None) -> Evaluation:
        try:
            return evaluate_attempt(self._ctx, self.attempt, ended, failure)
        except Exception as exc:  # noqa: BLE001 - whatever a provider may answer, the job must not be left with nobody
            return evaluate_attempt(self._ctx, self.attempt, None, self._broke(exc))

    def _broke(self, problem: BaseException) -> AttemptFailed:
        """A fault of ours, as a failure of the attempt."""
        self._ctx.log("attempt_error", job_id=self.attempt.job.id, attempt=self.attempt.number, error=problem)
        return AttemptFailed("The attempt broke on our side.")

    async def _stream(self) -> ResponseEnded:
        """Read the provider's answer, or do the work, within the attempt's time, which a durable one takes along from worker to worker."""
        attempt = self.attempt
        limit = attempt.body.config.timeout
        spent = (self._ctx.clock.now() - attempt.started_at) / 1000
        try:
            async with asyncio.timeout(max(0.0, limit - spent)):
                return await (stream_response if attempt.kind.handler is None else run_task)(self._ctx, attempt)
        except TimeoutError as exc:
            raise AttemptTimedOut(f"The attempt took longer than {limit:g} s.") from exc

    async def _hand_over(self, log: asyncio.Task[None]) -> None:
        """Let the next worker go on with the response, once all that was read of it is kept [8]. Watchers notice nothing."""
        ctx, attempt = self._ctx, self.attempt
        attempt.detach()
        await gather_or_cancel(log, self.audience.drain())
        generation, owner = attempt.generation, attempt.owner
        job = await call_with_retry(
            ctx, update_job, ctx.jobs, attempt.job, lambda seen: transitions.hand_over(seen, generation, owner, ctx.clock.now())
        )
        if job is None:
            raise Fenced
        attempt.finish(job, None)
        ctx.log("attempt_handed_over", job_id=job.id, tenant=job.tenant, attempt=attempt.number, length=len(attempt.transcript))
        await call_with_retry(ctx, send_wake_up, ctx.queues, job, ctx.clock.now())

    async def _keep(self, verdict: Evaluation, log: asyncio.Task[None]) -> None:
        """Have all of the text, then the result acknowledged before the head may say that it ended [8]; sockets get the text meanwhile.

        In this order, because the sweep ends by its result a job whose worker died here: its log is whole by then.
        """

        async def keep() -> None:
            await log
            await call_with_retry(self._ctx, self._ctx.results.put, verdict.result, self.attempt.job.tenant)

        await gather_or_cancel(keep(), self.audience.drain())

    async def _end(self, verdict: Evaluation) -> None:
        """The write that says how it ended; then whoever watches, and the wake-up of another attempt [9]."""
        ctx, attempt = self._ctx, self.attempt
        job = await call_with_retry(ctx, update_job, ctx.jobs, attempt.job, self._change(verdict))
        if job is None:
            ctx.log("attempt_fenced", job_id=attempt.job.id, attempt=attempt.number)
            return
        if job.status in (Status.COMPLETED, Status.INCOMPLETE):
            attempt.tracker.end(ctx.clock.now())
        attempt.finish(job, frames.state(job, ctx.clock.now()))
        self._note(job, verdict)
        try:
            if job.status in (Status.RETRYING, Status.HELD):
                await ctx.offload(send_wake_up, ctx.queues, job, ctx.clock.now())
            await self.audience.sync_followers()
        except Unavailable as exc:  # the record says it: the sweep wakes the job, and the change stream tells the watchers
            ctx.log("job_end_not_broadcast", job_id=job.id, attempt=attempt.number, error=exc)
        if job.status is Status.COMPLETED:
            await store_in_cache(ctx, attempt, verdict.result)

    def _change(self, verdict: Evaluation) -> Callable[[Job], Job | None]:
        """The change to the head: the end, or another attempt later."""
        ctx, attempt, outcome = self._ctx, self.attempt, verdict.outcome
        if (until := attempt.held_until) is not None:
            generation, owner, why = attempt.generation, attempt.owner, attempt.held_why
            return lambda job: transitions.hold_after_attempt(job, generation, owner, outcome, why, until, ctx.clock.now())
        if verdict.failure is not None:
            policy = RetryPolicy(max_attempts=attempt.job.max_attempts, schedule=attempt.kind.retry_schedule)
            job, failure = attempt.job, verdict.failure
            again = job.error is not None and (job.error.code, job.error.attempt) == (failure.code, job.attempt - 1)
            decision = policy.decide(failure, job.tries, ctx.clock.now(), job.retry_until, ctx.random(), again=again)
            if not isinstance(decision, GiveUp):
                due, counts = decision.due_ms, counts_as_attempt(failure, again=again)
                return lambda job: transitions.retry_later(
                    job, attempt.generation, attempt.owner, outcome, due, ctx.clock.now(), counts_as_attempt=counts
                )
        return lambda job: transitions.finish(job, attempt.generation, attempt.owner, outcome, ctx.clock.now())

    def _note(self, job: Job, verdict: Evaluation) -> None:
        self._ctx.log(
            "attempt_ended",
            job_id=job.id,
            tenant=job.tenant,
            attempt=self.attempt.number,
            status=job.status.value,
            length=verdict.outcome.length,
            reason=verdict.outcome.error.code if verdict.outcome.error else verdict.outcome.incomplete_reason,
        )
        log_job_failed(self._ctx.log, job)
