"""Process the queue messages of one invocation.

Their jobs run concurrently, and each message is acknowledged when its job ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from chalicelib.domain.errors import HeadraceError, InvalidMessage, SlotsFull, StaleVersion, Unavailable
from chalicelib.domain.execution.deadline import Deadline
from chalicelib.domain.jobs.backlog import watermarks
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.jobs.queue_routing import may_run, queue_of
from chalicelib.domain.jobs.transitions import is_claimable
from chalicelib.domain.limits.admission import RunNow, WaitUntil
from chalicelib.domain.queues.lanes import HOME_QUEUES
from chalicelib.domain.queues.wakeup import WakeUp
from chalicelib.domain.units import Ms
from chalicelib.ports import Lease, QueueMessage
from chalicelib.services.load_jobs import LoadedJobs, load_readable_jobs
from chalicelib.services.worker.admission.circuit_gate import load_circuit_breakers
from chalicelib.services.worker.admission.gates import admit_job, hold_job
from chalicelib.services.worker.admission.rate_gate import load_rate_limits
from chalicelib.services.worker.admission.slot_gate import slot_gate, wait_for_slot
from chalicelib.services.worker.attempt import Attempt
from chalicelib.services.worker.claim_job import claim_job, return_taken
from chalicelib.services.worker.context import WorkerContext
from chalicelib.services.worker.run_attempt import AttemptRunner

LEASE_MS, HEARTBEAT_SECONDS, HEARTBEAT_RETRY_SECONDS = 25_000, 8.0, 1.0
CONTROL_POLL_SECONDS = 1.0  # how often the controls of the running jobs are read
SLOT_TRIES = 3  # claims that lose the last slot to others, each after another look
MAX_DELETE_BATCH = 10  # SQS's limit


class PartialBatchFailure(HeadraceError):
    """Some messages were not processed: those with the ids `messages`.

    SQS delivers only those again, because the others have been acknowledged.
    """

    def __init__(self, messages: Sequence[str], received: int) -> None:
        super().__init__(f"{len(messages)} of {received} messages will come again.")
        self.messages = tuple(messages)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A message that may start a job."""

    message: QueueMessage
    wake_up: WakeUp
    job: Job  # as it was read


@dataclass(frozen=True, slots=True)
class AdmittedJob:
    """A candidate that the gates admitted."""

    candidate: Candidate
    admission: RunNow


async def process_messages(
    ctx: WorkerContext, queue: str, messages: Sequence[QueueMessage], environment: str = "", deadline: Deadline | None = None
) -> None:
    """Claim and run the job of every message, concurrently.

    Returns before `deadline`, and only when every task has ended (protocol rule 20: a handler
    returns after its tasks).

    Args:
        queue: the queue that delivered the messages, a key of `JOB_QUEUES`.
        environment: identifies the Lambda environment in the lease.
        deadline: when Lambda ends the invocation; None outside Lambda.

    Raises:
        PartialBatchFailure: some messages could not be processed. All others have been
            acknowledged.
    """
    invocation = _Invocation(ctx, queue, deadline)
    admitted = await invocation.admit(await invocation.isolate_crashed(await invocation.select_candidates(messages)))
    if admitted:
        await invocation.run(admitted, environment)
    if left := invocation.unfinished + invocation.unreadable:
        await invocation.acknowledge()
        raise PartialBatchFailure(left, len(messages))


class _Invocation:
    """The state of one invocation: its running jobs, and the messages to acknowledge."""

    def __init__(self, ctx: WorkerContext, queue: str, deadline: Deadline | None) -> None:
        self._ctx, self._queue, self._deadline = ctx, queue, deadline
        self._running: dict[str, AttemptRunner] = {}
        self._pending = 0  # admitted messages whose jobs have not ended
        self._done: list[str] = []  # receipts of the messages to acknowledge
        self._job_started = asyncio.Event()
        self.unfinished: list[str] = []  # ids of the messages that were not processed; SQS delivers them again
        self.unreadable: list[str] = []  # the same, because another version of the code wrote the record

    async def select_candidates(self, messages: Sequence[QueueMessage]) -> list[Candidate]:
        """Return the messages whose jobs may be claimed.

        Malformed messages go to the dead-letter queue. Late and duplicate wake-ups are dropped. A
        wake-up whose record cannot be read stays in the queue, for a worker of the version that
        wrote the record, and does not keep the others waiting. A wake-up that an older version sent
        to the wrong queue is passed on to the right one. The
        records are read consistently, because a wake-up may arrive right after its record was
        written and is acknowledged for good if the record does not look claimable. The circuit
        breakers, which the gates need, are read at the same time.
        """
        ctx, wake_ups = self._ctx, []
        for message in messages:
            try:
                wake_ups.append((message, WakeUp.from_json(message.body)))
            except InvalidMessage as exc:
                ctx.log("wake_up_invalid", queue=self._queue, reason=exc.message)
                await ctx.offload(ctx.queues.send_to_dead_letter, self._queue, message.body, exc.message)
                self._done.append(message.receipt)
        ids = list({wake_up.job_id for _, wake_up in wake_ups})
        loaded = await self._read_jobs(ids) if ids else LoadedJobs([])
        jobs, candidates = {job.id: job for job in loaded.jobs}, []
        for message, wake_up in wake_ups:
            job = jobs.get(wake_up.job_id)
            if wake_up.job_id in loaded.unreadable:
                self.unreadable.append(message.id)
            elif job is None or job.generation != wake_up.generation or not is_claimable(job):
                self._done.append(message.receipt)
            elif may_run(self._queue, job):
                candidates.append(Candidate(message, wake_up, job))
            else:
                await self._pass_on(Candidate(message, wake_up, job))
        return candidates

    async def _pass_on(self, candidate: Candidate) -> None:
        """Send a wake-up to the queue of its job, then acknowledge it: in this order, so that a
        crash in between doubles it and does not lose it.
        """
        ctx, job = self._ctx, candidate.job
        try:
            await self._resend(candidate)
            self._done.append(candidate.message.receipt)
        except Unavailable as exc:
            self.unfinished.append(candidate.message.id)
            ctx.log("wake_up_not_passed_on", job_id=job.id, tenant=job.tenant, queue=self._queue, error=exc)

    async def _read_jobs(self, ids: list[str]) -> LoadedJobs:
        ctx, views = self._ctx, asyncio.gather(load_circuit_breakers(self._ctx), load_rate_limits(self._ctx))
        try:
            return await ctx.offload(partial(load_readable_jobs, ctx.jobs, ctx.log, ids, consistent=True))
        finally:
            await views

    async def isolate_crashed(self, candidates: list[Candidate]) -> list[Candidate]:
        """Keep one job that has crashed before, or all that have not; resend the other wake-ups.

        A job that kills its worker must not take other jobs with it (protocol rule 18: a dead
        letter is a hint).
        """
        if len(candidates) < 2 or not any(candidate.job.crashes for candidate in candidates):
            return candidates
        if candidates[0].job.crashes:
            kept, others = candidates[:1], candidates[1:]
        else:
            kept = [candidate for candidate in candidates if not candidate.job.crashes]
            others = [candidate for candidate in candidates if candidate.job.crashes]
        for candidate in others:
            await self._resend(candidate)
            self._done.append(candidate.message.receipt)
        return kept

    async def _resend(self, candidate: Candidate) -> None:
        """Send the same wake-up to its job's queue again, for another worker.

        An unacknowledged message would stay invisible for the queue's visibility timeout, as long
        as a function may run.
        """
        await self._ctx.offload(self._ctx.queues.send, queue_of(candidate.job), candidate.wake_up, candidate.job.tenant)

    @property
    def _is_too_late_to_start(self) -> bool:
        return self._deadline is not None and self._ctx.clock.now() >= self._deadline.last_start_at

    async def admit(self, candidates: list[Candidate]) -> list[AdmittedJob]:
        """Return the candidates that may run now; hold the others."""
        admitted = await asyncio.gather(*(self._admit_one(candidate) for candidate in candidates))
        return [job for job in admitted if job is not None]

    async def _admit_one(self, candidate: Candidate) -> AdmittedJob | None:
        ctx, job = self._ctx, candidate.job
        try:
            admission = await admit_job(ctx, job, candidate.wake_up.grant)
            if isinstance(admission, RunNow):
                return AdmittedJob(candidate, admission)
            await hold_job(ctx, candidate.wake_up, job, admission)
            self._done.append(candidate.message.receipt)
        except Exception as exc:  # noqa: BLE001 - as in `_run_job`
            self.unfinished.append(candidate.message.id)
            ctx.log("job_not_held", job_id=job.id, tenant=job.tenant, queue=self._queue, error=exc)
        return None

    async def run(self, admitted: list[AdmittedJob], environment: str) -> None:
        """Run the jobs under one lease.

        The lease is written before the first claim, renewed while a job runs, and deleted at the
        end. If a job is unfinished, the lease is left to expire, so that the sweeper recovers the
        job.
        """
        ctx, now = self._ctx, self._ctx.clock.now()
        self._pending = len(admitted)
        marks = self._watermarks(admitted)
        lease = Lease(
            id=ctx.new_id(),
            lane=self._queue,
            started_at=now,
            expires_at=now + LEASE_MS,
            jobs=tuple(entry.candidate.job.id for entry in admitted),
            environment=environment,
            watermark=min(marks.values(), default=0),
            watermarks=marks,
        )
        await ctx.offload(ctx.leases.open, lease)
        alone = len(set(lease.jobs)) == 1  # duplicate wake-ups are one job
        tasks = [asyncio.create_task(self._run_job(entry, lease, alone=alone)) for entry in admitted]
        monitors = [asyncio.create_task(self._heartbeat(lease, tasks)), asyncio.create_task(self._poll_controls())]
        try:
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            for task in (*tasks, *monitors):
                task.cancel()
            await asyncio.gather(*tasks, *monitors, return_exceptions=True)
            if not self.unfinished:
                await self._guarded("lease_not_closed", lambda: ctx.offload(ctx.leases.close, lease))

    def _watermarks(self, admitted: list[AdmittedJob]) -> dict[str, Ms]:
        """Say how far the queue was read: by wake-ups that came in its order, not by those that a scheduler released."""
        if self._queue not in HOME_QUEUES:
            return {}
        return watermarks(one.candidate.job for one in admitted if one.candidate.wake_up.grant is None)

    async def _run_job(self, admitted: AdmittedJob, lease: Lease, *, alone: bool) -> None:
        """Claim and run one job. An error is logged and does not affect the other jobs."""
        ctx, candidate, job, runner = self._ctx, admitted.candidate, admitted.candidate.job, None
        try:
            if self._is_too_late_to_start:
                await self._resend(candidate)
            elif attempt := await self._claim(admitted, lease, alone=alone):
                runner = self._running[job.id] = AttemptRunner(ctx, attempt, self._deadline)
                self._job_started.set()
                await runner.run()
            self._done.append(candidate.message.receipt)
        except asyncio.CancelledError:  # the lease was fenced; SQS delivers the message again, and the job record decides
            self.unfinished.append(candidate.message.id)
            raise
        except Exception as exc:  # noqa: BLE001 - an error of one job must not end the other jobs of the invocation
            self.unfinished.append(candidate.message.id)
            ctx.log("job_deferred_to_sweep", job_id=job.id, tenant=job.tenant, queue=self._queue, error=exc)
        finally:
            if runner is not None and self._running.get(job.id) is runner:
                del self._running[job.id]
            self._pending -= 1

    async def _claim(self, admitted: AdmittedJob, lease: Lease, *, alone: bool) -> Attempt | None:
        """Claim one job. If others took its slots since the gate looked, look again; if none is left, hold it."""
        ctx, candidate, admission = self._ctx, admitted.candidate, admitted.admission
        for _ in range(SLOT_TRIES):
            owner = f"{lease.id}#{ctx.new_id()}"
            try:
                return await claim_job(ctx, candidate.wake_up, candidate.job, owner, admission, alone=alone)
            except SlotsFull as full:
                slots, scope = await slot_gate(ctx, ctx.job_type(candidate.job.type), candidate.job), full.scope
            if isinstance(slots, WaitUntil):
                break
            admission = replace(admission, slots=slots)
        wait = slots if isinstance(slots, WaitUntil) else wait_for_slot(candidate.job, scope)
        held = await hold_job(ctx, candidate.wake_up, candidate.job, wait)
        await return_taken(ctx, candidate.wake_up, candidate.job, admission, is_stale=held is None)
        return None

    async def _heartbeat(self, lease: Lease, tasks: list[asyncio.Task[None]]) -> None:
        """Renew the lease. If it was fenced, cancel all jobs: the sweeper recovers them."""
        ctx, pause = self._ctx, HEARTBEAT_SECONDS
        while True:
            await asyncio.sleep(pause)
            try:
                await ctx.offload(ctx.leases.renew, replace(lease, expires_at=ctx.clock.now() + LEASE_MS))
                pause = HEARTBEAT_SECONDS
            except StaleVersion:
                ctx.log("lease_fenced", lease=lease.id, queue=self._queue)
                for task in tasks:
                    task.cancel()
                return
            except Exception as exc:  # noqa: BLE001 - the heartbeat must not end: every job of the invocation depends on it
                ctx.log("lease_renewal_failed", lease=lease.id, queue=self._queue, error=exc)
                pause = HEARTBEAT_RETRY_SECONDS

    async def _poll_controls(self) -> None:
        """Check controls and acknowledge finished messages, once a second and when a job starts."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(CONTROL_POLL_SECONDS):
                    await self._job_started.wait()
            self._job_started.clear()
            await self._guarded("control_check_failed", self._check_controls)
            if self._pending and self._done:
                await self._guarded("acknowledge_failed", self.acknowledge)

    async def _check_controls(self) -> None:
        """Read and apply the controls of the running jobs once."""
        running = dict(self._running)
        controls = await self._ctx.offload(self._ctx.subscriptions.controls, list(running)) if running else {}
        reloads = []
        for job_id, control in controls.items():
            attempt, broadcaster, version = running[job_id].attempt, running[job_id].broadcaster, control.subscribers_version
            attempt.watched_until = control.read_until
            if control.cancel == attempt.generation:
                attempt.cancelled.set()
            if version:
                reloads.append(self._guarded("subscription_reload_failed", partial(broadcaster.on_control, version)))
        await asyncio.gather(*reloads)

    async def acknowledge(self) -> None:
        """Delete the finished messages from the queue.

        After an invocation without an error SQS deletes them itself.
        """
        while self._done:
            receipts = self._done[:MAX_DELETE_BATCH]
            await self._ctx.offload(self._ctx.queues.acknowledge, self._queue, receipts)
            self._done = self._done[len(receipts) :]

    async def _guarded(self, event: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work`, which is repeated within a second; if it fails, log `event`."""
        try:
            await work()
        except Exception as exc:  # noqa: BLE001 - an error here must not end a job
            self._ctx.log(event, queue=self._queue, error=exc)
