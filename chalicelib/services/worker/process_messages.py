"""Run what one invocation was woken for: all its jobs at once, each acknowledged when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from chalicelib.domain.errors import HeadraceError, InvalidMessage, StaleVersion
from chalicelib.domain.execution.deadline import Deadline
from chalicelib.domain.jobs.backlog import watermark
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.jobs.transitions import is_claimable
from chalicelib.domain.limits.admission import RunNow
from chalicelib.domain.queues.wakeup import WakeUp
from chalicelib.ports import Lease, QueueMessage
from chalicelib.services.worker.admission.circuit_gate import load_circuit_breakers
from chalicelib.services.worker.admission.gates import admit_job, hold_job
from chalicelib.services.worker.claim_job import claim_job
from chalicelib.services.worker.context import WorkerContext
from chalicelib.services.worker.run_attempt import AttemptRunner

LEASE_MS, HEARTBEAT_SECONDS, HEARTBEAT_RETRY_SECONDS = 25_000, 8.0, 1.0
CONTROL_POLL_SECONDS = 1.0  # how often the bells and cancel flags of the running jobs are read
MAX_DELETE_BATCH = 10  # SQS's limit


class PartialBatchFailure(HeadraceError):
    """Some messages could not be dealt with; SQS will deliver those, and only those, again."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A message that may start a job, and the job's head as it was read."""

    message: QueueMessage
    wake_up: WakeUp
    job: Job


@dataclass(frozen=True, slots=True)
class AdmittedJob:
    """A message whose job the gates have let through."""

    woken: Candidate
    run: RunNow


async def process_messages(
    ctx: WorkerContext, lane: str, messages: Sequence[QueueMessage], environment: str = "", deadline: Deadline | None = None
) -> None:
    """Claim and run every message's job concurrently. Returns only when every task has ended [20], in good time before `deadline`.

    Raises:
        BatchUnfinished: a store did not answer for some messages. All others have been acknowledged.
    """
    batch = _Invocation(ctx, lane, deadline)
    admitted = await batch.admit(await batch.apart(await batch.sort(messages)))
    if admitted:
        await batch.run(admitted, environment)
    if batch.unfinished:
        await batch.acknowledge()
        raise PartialBatchFailure(f"{batch.unfinished} of {len(messages)} messages will come again.")


class _Invocation:
    def __init__(self, ctx: WorkerContext, lane: str, deadline: Deadline | None) -> None:
        self._ctx, self._lane, self._deadline = ctx, lane, deadline
        self._running: dict[str, AttemptRunner] = {}
        self._open = 0  # messages that are neither done nor given up
        self._done: list[str] = []
        self._arrived = asyncio.Event()
        self._one_by_one = asyncio.Lock()
        self.unfinished = 0

    async def sort(self, messages: Sequence[QueueMessage]) -> list[Candidate]:
        """The messages that may wake a job. Garbage is set aside; late and doubled wake-ups are dropped at the cost of one read.

        What the gates need is read at the same time, so that they cost no time.

        That read is consistent: what it does not show as claimable is acknowledged, and a wake-up arrives just after its record.
        """
        ctx, wake_ups = self._ctx, []
        for message in messages:
            try:
                wake_ups.append((message, WakeUp.from_json(message.body)))
            except InvalidMessage as exc:
                ctx.log("wake_up_invalid", lane=self._lane, reason=exc.message)
                await ctx.offload(ctx.queues.send_to_dead_letter, self._lane, message.body, exc.message)
                self._done.append(message.receipt)
        ids = list({wake_up.job_id for _, wake_up in wake_ups})
        jobs = {job.id: job for job in await self._read(ids)} if ids else {}
        woken = []
        for message, wake_up in wake_ups:
            job = jobs.get(wake_up.job_id)
            if job is not None and job.generation == wake_up.generation and is_claimable(job):
                woken.append(Candidate(message, wake_up, job))
            else:
                self._done.append(message.receipt)
        return woken

    async def _read(self, ids: list[str]) -> list[Job]:
        circuits = asyncio.create_task(load_circuit_breakers(self._ctx))
        try:
            return await self._ctx.offload(self._heads, ids)
        finally:
            await circuits

    async def apart(self, woken: list[Candidate]) -> list[Candidate]:
        """Keep a job whose worker died once away from others, which would die with it [18]: the rest of the batch is handed on."""
        if len(woken) < 2 or not any(one.job.crashes for one in woken):
            return woken
        if woken[0].job.crashes:
            kept, handed = woken[:1], woken[1:]
        else:
            kept, handed = [one for one in woken if not one.job.crashes], [one for one in woken if one.job.crashes]
        for one in handed:
            await self._hand_on(one)
            self._done.append(one.message.receipt)
        return kept

    async def _hand_on(self, woken: Candidate) -> None:
        """Wake another worker with the same wake-up: giving a message back would hide it for as long as a function may run."""
        await self._ctx.offload(self._ctx.queues.send, self._lane, woken.wake_up, woken.job.tenant)

    @property
    def _is_late(self) -> bool:
        return self._deadline is not None and self._ctx.clock.now() >= self._deadline.last_start_at

    async def admit(self, woken: list[Candidate]) -> list[AdmittedJob]:
        """Those that may run now. The others are given back at once, and wait for what they are told."""
        admitted = await asyncio.gather(*(self._admit_one(one) for one in woken))
        return [one for one in admitted if one is not None]

    async def _admit_one(self, woken: Candidate) -> AdmittedJob | None:
        ctx = self._ctx
        try:
            admission = await admit_job(ctx, woken.job, self._one_by_one)
            if isinstance(admission, RunNow):
                return AdmittedJob(woken, admission)
            await hold_job(ctx, woken.wake_up, woken.job, admission)
            self._done.append(woken.message.receipt)
        except Exception as exc:  # noqa: BLE001 - as in `_one`
            self.unfinished += 1
            ctx.log("job_not_held", job_id=woken.job.id, tenant=woken.job.tenant, lane=self._lane, error=exc)
        return None

    async def run(self, admitted: list[AdmittedJob], environment: str) -> None:
        """Everything under one lease: written before the first claim, renewed while anything runs, gone at the end.

        A lease under which something was left unfinished stays, to run out: so the sweep finds what it holds.
        """
        ctx, now = self._ctx, self._ctx.clock.now()
        self._open = len(admitted)
        lease = Lease(
            id=ctx.new_id(),
            lane=self._lane,
            started_at=now,
            expires_at=now + LEASE_MS,
            jobs=tuple(one.woken.job.id for one in admitted),
            environment=environment,
            watermark=watermark(one.woken.job for one in admitted),
        )
        await ctx.offload(ctx.leases.open, lease)
        alone = len(set(lease.jobs)) == 1  # a wake-up that came twice is no company
        jobs = [asyncio.create_task(self._one(one, lease, alone=alone)) for one in admitted]
        helpers = [asyncio.create_task(self._heartbeat(lease, jobs)), asyncio.create_task(self._look())]
        try:
            await asyncio.gather(*jobs, return_exceptions=True)
        finally:
            for task in (*jobs, *helpers):
                task.cancel()
            await asyncio.gather(*jobs, *helpers, return_exceptions=True)
            if not self.unfinished:
                await self._guarded("lease_not_closed", lambda: ctx.offload(ctx.leases.close, lease))

    async def _one(self, admitted: AdmittedJob, lease: Lease, *, alone: bool) -> None:
        """One message, whatever becomes of it. What goes wrong here is this job's alone."""
        ctx, woken, job, run = self._ctx, admitted.woken, admitted.woken.job, None
        try:
            if self._is_late:
                await self._hand_on(woken)
            elif attempt := await claim_job(ctx, woken.wake_up, job, f"{lease.id}#{ctx.new_id()}", admitted.run, alone=alone):
                run = self._running[job.id] = AttemptRunner(ctx, attempt, self._deadline)
                self._arrived.set()
                await run.run()
            self._done.append(woken.message.receipt)
        except asyncio.CancelledError:  # the lease was fenced: the message comes again, and finds out whether it still means anything
            self.unfinished += 1
            raise
        except Exception as exc:  # noqa: BLE001 - the one place where a job's failure must not become its neighbours'
            self.unfinished += 1
            ctx.log("job_deferred_to_sweep", job_id=job.id, tenant=job.tenant, lane=self._lane, error=exc)
        finally:
            if run is not None and self._running.get(job.id) is run:
                del self._running[job.id]
            self._open -= 1

    async def _heartbeat(self, lease: Lease, jobs: list[asyncio.Task[None]]) -> None:
        """Renew the lease. If it was fenced, everything is dropped at once: it belongs to others now."""
        ctx, pause = self._ctx, HEARTBEAT_SECONDS
        while True:
            await asyncio.sleep(pause)
            try:
                await ctx.offload(ctx.leases.renew, replace(lease, expires_at=ctx.clock.now() + LEASE_MS))
                pause = HEARTBEAT_SECONDS
            except StaleVersion:
                ctx.log("lease_fenced", lease=lease.id, lane=self._lane)
                for job in jobs:
                    job.cancel()
                return
            except Exception as exc:  # noqa: BLE001 - whatever it is, an unrenewed lease costs every job of the batch
                ctx.log("lease_renewal_failed", lease=lease.id, lane=self._lane, error=exc)
                pause = HEARTBEAT_RETRY_SECONDS

    async def _look(self) -> None:
        """Once a second, and when a job begins: look at the running jobs' controls, and acknowledge what has ended."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(CONTROL_POLL_SECONDS):
                    await self._arrived.wait()
            self._arrived.clear()
            await self._guarded("control_check_failed", self._look_once)
            if self._open and self._done:
                await self._guarded("acknowledge_failed", self.acknowledge)

    async def _look_once(self) -> None:
        running = dict(self._running)
        controls = await self._ctx.offload(self._ctx.subscriptions.controls, list(running)) if running else {}
        heard = []
        for job_id, control in controls.items():
            run = running[job_id]
            run.attempt.watched_until = control.read_until
            if control.cancel == run.attempt.generation:
                run.attempt.cancelled.set()
            if control.subscribers_version:
                heard.append(self._guarded("subscription_reload_failed", partial(run.audience.on_control, control.subscribers_version)))
        await asyncio.gather(*heard)

    async def acknowledge(self) -> None:
        """Delete the messages that are done. At the end of an invocation that succeeds SQS does it by itself."""
        while self._done:
            receipts = self._done[:MAX_DELETE_BATCH]
            await self._ctx.offload(self._ctx.queues.acknowledge, self._lane, receipts)
            self._done = self._done[len(receipts) :]

    async def _guarded(self, fact: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do something that the jobs must not suffer from; it is done again soon."""
        try:
            await work()
        except Exception as exc:  # noqa: BLE001 - said in the log, and the jobs go on
            self._ctx.log(fact, lane=self._lane, error=exc)

    def _heads(self, ids: list[str]) -> list[Job]:
        return self._ctx.jobs.get_many(ids, consistent=True)
