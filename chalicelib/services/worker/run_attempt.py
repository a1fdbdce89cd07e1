"""Run one attempt of a job.

Stream the response, store and send its text, then end the job or schedule another attempt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from chalicelib.domain.errors import ChunkConflict, Unavailable
from chalicelib.domain.execution.deadline import Deadline
from chalicelib.domain.execution.retry_policy import GiveUp, RetryPolicy, counts_as_attempt
from chalicelib.domain.failures import (
    AttemptFailed,
    AttemptTimedOut,
    OutputInvalid,
    ProviderConnectionLost,
    ProviderRateLimited,
    WorkerMisconfigured,
    WorkerShutdown,
)
from chalicelib.domain.jobs import transitions
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.limits.admission import HoldReason, WaitUntil
from chalicelib.domain.streaming import frames
from chalicelib.domain.streaming.pacing import log_pace
from chalicelib.ports import ResponseEnded
from chalicelib.services.retrying import gather_or_cancel, offload_with_retry
from chalicelib.services.scheduling.slot_lines import release_after
from chalicelib.services.update_job import update_job
from chalicelib.services.wake_up import send_wake_up
from chalicelib.services.worker.admission.api_key_gate import hold_if_not_configured
from chalicelib.services.worker.admission.circuit_gate import close_on_first_token, record_outcome
from chalicelib.services.worker.admission.gates import announce_hold, join_line
from chalicelib.services.worker.admission.rate_gate import give_back, learn_from_refusal, wait_for_rate
from chalicelib.services.worker.admission.refused_fallback import refused_fallback, skip_refused_fallback
from chalicelib.services.worker.attempt import Attempt
from chalicelib.services.worker.background import background
from chalicelib.services.worker.context import WorkerContext
from chalicelib.services.worker.evaluate_attempt import Evaluation, evaluate_attempt
from chalicelib.services.worker.log_events import log_job_failed
from chalicelib.services.worker.output.broadcaster import Broadcaster
from chalicelib.services.worker.output.transcript_writer import write_transcript
from chalicelib.services.worker.response_cache import store_in_cache
from chalicelib.services.worker.run_task import run_task
from chalicelib.services.worker.stream_response import Fenced, cancel_if_owned, delete_response, stream_response


class AttemptRunner:
    """Runs one attempt with its transcript writer and its socket writers.

    Attributes:
        broadcaster: the socket writers; the caller reports changes of the job's
            `subscribers_version` to it.
    """

    def __init__(self, ctx: WorkerContext, attempt: Attempt, deadline: Deadline | None = None) -> None:
        self.attempt = attempt
        self.broadcaster = Broadcaster(ctx, attempt)
        self._ctx = ctx
        self._deadline = deadline

    async def run(self) -> None:
        """Run the attempt and return when every task of it has ended.

        A fenced worker stops silently (protocol rule 2: only the owner writes).

        Raises:
            Unavailable: a store did not answer. The job record is left as it is, and the sweeper
                recovers the job.
        """
        ctx, attempt = self._ctx, self.attempt
        preparation = asyncio.create_task(ctx.offload(self._prepare))
        try:
            async with background(
                write_transcript(ctx, attempt, log_pace(attempt.spec.config.streaming_mode)),
                close_on_first_token(ctx, attempt),
            ) as (writer, probe):
                ended, failure = await self._read_response()
                if isinstance(failure, WorkerShutdown) and attempt.job.is_resumable:
                    await self._hand_over(writer)
                else:
                    await self._conclude(ended, failure, writer, probe)
        except (ChunkConflict, Fenced) as exc:
            ctx.log("attempt_fenced", job_id=attempt.job.id, attempt=attempt.number, by=type(exc).__name__)
        finally:
            try:
                await asyncio.gather(preparation, return_exceptions=True)
            finally:  # the heartbeat may cancel this task during the lines above, when the lease was fenced
                await self.broadcaster.close()

    def _prepare(self) -> int:
        """Load throughput, price and token estimate, which take a while and are needed only later.

        Returns: the token estimate, which the attempt caches; 0 for a task.
        """
        attempt, config = self.attempt, self.attempt.spec.config
        if attempt.kind.handler is not None:
            return 0
        attempt.output.tracker.calibrate(self._ctx.throughput_of(attempt.kind.name, config.model), config.max_tokens)
        attempt.price = self._ctx.prices.of(config.model, attempt.asked_tier)
        return attempt.input_tokens

    async def _conclude(
        self, ended: ResponseEnded | None, failure: AttemptFailed | None, writer: asyncio.Task[None], probe: asyncio.Task[None]
    ) -> None:
        """Evaluate the attempt, store its text and result, and write its end to the job record."""
        ctx, attempt = self._ctx, self.attempt
        attempt.output.flush(ctx.clock.now())
        if ended is None:
            attempt.output.detach()
            await cancel_if_owned(ctx, attempt)
        evaluation = await self._evaluate(ended, failure)
        attempt.output.detach()  # only now, so that the last chunk has the stages of the evaluation
        await probe
        answered = ended is not None and not attempt.is_free
        outcome = asyncio.ensure_future(record_outcome(ctx, attempt, evaluation.failure, answered=answered))
        await gather_or_cancel(self._store(evaluation, writer), outcome)
        failure = evaluation.failure
        hold = hold_if_not_configured(ctx, attempt, failure) or skip_refused_fallback(ctx, attempt, failure) or outcome.result()
        if isinstance(failure, ProviderRateLimited) and attempt.output.first_token_at is None:
            hold = await learn_from_refusal(ctx, attempt, failure)
        if attempt.is_free:
            await give_back(ctx, attempt.admission.rate)
        await self._end(evaluation, hold)

    async def _read_response(self) -> tuple[ResponseEnded | None, AttemptFailed | None]:
        """Read the response until it ends, fails, is cancelled or the deadline passes.

        Returns: the provider's final event, or the failure; neither after a cancel request.

        Raises:
            Fenced: another worker owns the job.
        """
        attempt = self.attempt
        if attempt.cancelled.is_set():
            return None, None
        async with background(self._stream(), attempt.cancelled.wait(), self._deadline_passed()) as (stream, cancel, deadline):
            await asyncio.wait({stream, cancel, deadline}, return_when=asyncio.FIRST_COMPLETED)
        if stream.cancelled():  # by `background`, or because a call inside it was cancelled
            if attempt.cancelled.is_set():
                return None, None
            return None, ProviderConnectionLost() if deadline.cancelled() else WorkerShutdown()
        error = stream.exception()
        if error is None:
            return stream.result(), None
        if isinstance(error, Fenced):
            raise error
        return None, error if isinstance(error, AttemptFailed) else self._unexpected(error)

    async def _deadline_passed(self) -> None:
        """Return when the attempt has to be handed over; without a deadline, never."""
        if self._deadline is None:
            await asyncio.Event().wait()
        else:
            await asyncio.sleep(max(0, self._deadline.handover_at - self._ctx.clock.now()) / 1000)

    async def _evaluate(self, ended: ResponseEnded | None, failure: AttemptFailed | None) -> Evaluation:
        try:
            return await evaluate_attempt(self._ctx, self.attempt, ended, failure)
        except Exception as exc:  # noqa: BLE001 - an unexpected response must fail the attempt, not leave the job without a worker
            return await evaluate_attempt(self._ctx, self.attempt, None, self._unexpected(exc))

    def _unexpected(self, error: BaseException) -> AttemptFailed:
        """Log a bug in Headrace or a job type and return it as a failure of the attempt."""
        self._ctx.log("attempt_error", job_id=self.attempt.job.id, attempt=self.attempt.number, error=error)
        if isinstance(error, ImportError):  # the package of the worker is not complete, which is no fault of this attempt
            return WorkerMisconfigured(f"The worker lacks the package {error.name}." if error.name else "")
        return AttemptFailed("The attempt failed because of an internal error in Headrace.")

    async def _stream(self) -> ResponseEnded:
        """Read the provider's response, or run the task handler, within the attempt's timeout.

        The timeout of a durable attempt covers all its workers.

        Raises:
            AttemptTimedOut: the time was over first.
        """
        attempt = self.attempt
        limit = attempt.spec.config.timeout
        spent = (self._ctx.clock.now() - attempt.started_at) / 1000
        try:
            async with asyncio.timeout(max(0.0, limit - spent)):
                return await (stream_response if attempt.kind.handler is None else run_task)(self._ctx, attempt)
        except TimeoutError as exc:
            raise AttemptTimedOut(f"The attempt took longer than {limit:g} s.") from exc

    async def _hand_over(self, writer: asyncio.Task[None]) -> None:
        """Store the text read so far, then give the attempt to the next worker
        (protocol rule 8: the terminal write comes last).

        Subscribers notice nothing.

        Raises:
            Fenced: another worker owns the job.
        """
        ctx, attempt = self._ctx, self.attempt
        attempt.output.detach()
        await gather_or_cancel(writer, self.broadcaster.drain())
        generation, owner = attempt.generation, attempt.owner
        job = await offload_with_retry(
            ctx, update_job, ctx.jobs, attempt.job, lambda seen: transitions.hand_over(seen, generation, owner, ctx.clock.now())
        )
        if job is None:
            raise Fenced
        attempt.finish(job, None)
        ctx.log("attempt_handed_over", job_id=job.id, tenant=job.tenant, attempt=attempt.number, length=len(attempt.output.transcript))
        await offload_with_retry(ctx, send_wake_up, ctx.queues, job, ctx.clock.now())

    async def _store(self, evaluation: Evaluation, writer: asyncio.Task[None]) -> None:
        """Store the rest of the text, then the result; meanwhile sockets get the text
        (protocol rule 8: the terminal write comes last).

        In this order, because the sweeper finishes a job whose worker died by its stored result:
        then its transcript must be complete.
        """

        async def store() -> None:
            await writer
            await offload_with_retry(self._ctx, self._ctx.results.put, evaluation.result, self.attempt.job.tenant)

        await gather_or_cancel(store(), self.broadcaster.drain())

    async def _end(self, evaluation: Evaluation, hold: WaitUntil | None) -> None:
        """Write how the attempt ended, then notify subscribers and send the wake-up of a retry
        (protocol rule 9: no frame before the write).
        """
        ctx, attempt = self._ctx, self.attempt
        before = attempt.job
        joined = await join_line(ctx, before, hold)
        job = await offload_with_retry(ctx, update_job, ctx.jobs, before, self._end_transition(evaluation, hold, joined.by_user))
        if job is None:
            ctx.log("attempt_fenced", job_id=attempt.job.id, attempt=attempt.number)
            return
        if job.status in (Status.COMPLETED, Status.INCOMPLETE):
            attempt.output.tracker.end(ctx.clock.now())
        attempt.finish(job, frames.state(job, ctx.clock.now(), wait_for_rate(ctx, job)))
        self._log_end(job, evaluation)
        try:
            if job.status is Status.RETRYING:
                await ctx.offload(send_wake_up, ctx.queues, job, ctx.clock.now())
            elif job.status is Status.HELD:
                await announce_hold(ctx, job, joined)
            await ctx.offload(release_after, ctx, ctx.local_state.sent_for_slots, before, job)
            await self.broadcaster.sync_writers()
        except Unavailable as exc:  # the record is written: the sweeper wakes the job, and the change stream notifies subscribers
            ctx.log("job_end_not_broadcast", job_id=job.id, attempt=attempt.number, error=exc)
        if job.status is Status.COMPLETED:
            await store_in_cache(ctx, attempt, evaluation.result)
        if attempt.response_id is not None:
            await delete_response(ctx.provider, ctx.log, attempt.response_id)

    def _end_transition(self, evaluation: Evaluation, hold: WaitUntil | None, by_user: bool) -> Callable[[Job], Job | None]:
        """Return the transition of the job record: finish it, or schedule another attempt."""
        ctx, attempt, outcome = self._ctx, self.attempt, evaluation.outcome
        if hold is not None and hold.reason is HoldReason.RATE_LIMITED and 0 < attempt.job.retry_until < (hold.when or 0):
            return lambda job: transitions.finish(job, attempt.generation, attempt.owner, outcome, ctx.clock.now())
        if hold is not None:
            generation, owner, reason, until, cause = attempt.generation, attempt.owner, hold.reason, hold.when, hold.cause
            refused = refused_fallback(attempt, evaluation.failure)
            return lambda job: transitions.hold_after_attempt(
                job, generation, owner, outcome, reason, until, ctx.clock.now(), without=refused, cause=cause, by_user=by_user
            )
        if evaluation.failure is not None and not _is_wrong_again(attempt, evaluation):
            policy = RetryPolicy(max_attempts=attempt.job.max_attempts, schedule=attempt.kind.retry_schedule)
            job, failure = attempt.job, evaluation.failure
            repeated = job.error is not None and (job.error.code, job.error.attempt) == (failure.code, job.attempt - 1)
            decision = policy.decide(failure, job.tries, ctx.clock.now(), job.retry_until, ctx.random(), again=repeated)
            if not isinstance(decision, GiveUp):
                due, counts = decision.due_ms, counts_as_attempt(failure, again=repeated)
                return lambda job: transitions.retry_later(
                    job, attempt.generation, attempt.owner, outcome, due, ctx.clock.now(), counts_as_attempt=counts
                )
        return lambda job: transitions.finish(job, attempt.generation, attempt.owner, outcome, ctx.clock.now())

    def _log_end(self, job: Job, evaluation: Evaluation) -> None:
        self._ctx.log(
            "attempt_ended",
            job_id=job.id,
            tenant=job.tenant,
            attempt=self.attempt.number,
            status=job.status.value,
            length=evaluation.outcome.length,
            reason=evaluation.outcome.error.code if evaluation.outcome.error else evaluation.outcome.incomplete_reason,
        )
        log_job_failed(self._ctx.log, job)


def _is_wrong_again(attempt: Attempt, evaluation: Evaluation) -> bool:
    """Whether the answer is wrong in the way that the model was told before.

    The next request would be equal to this one, so it is not made.
    """
    return isinstance(evaluation.failure, OutputInvalid) and _message_of(evaluation) == attempt.wrong_before


def _message_of(evaluation: Evaluation) -> str | None:
    return evaluation.outcome.error.message if evaluation.outcome.error else None
