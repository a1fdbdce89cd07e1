"""Run what one invocation was woken for: all its jobs at once, each acknowledged when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from chalicelib.domain.errors import BadMessage, HeadraceError, StaleVersion
from chalicelib.domain.job import Job
from chalicelib.domain.wakeup import WakeUp
from chalicelib.ports import Lease, Received
from chalicelib.usecases.claim_job import claim_job
from chalicelib.usecases.engine import Engine
from chalicelib.usecases.run_job import JobRun

LEASE_MS, RENEW_SECONDS = 25_000, 8.0
LOOK_SECONDS = 1.0  # how often the bells and cancel flags of the running jobs are read
LOOKS_PER_KEY_CHECK = 15  # a revocation holds within 60 s: 30 that a key is kept, and this


class BatchUnfinished(HeadraceError):
    """Some messages could not be dealt with; SQS will deliver those, and only those, again."""


async def run_batch(engine: Engine, lane: str, messages: Sequence[Received], environment: str = "") -> None:
    """Claim and run every message's job concurrently. Returns only when every task has ended [20].

    Raises:
        BatchUnfinished: a store did not answer for some messages. All others have been acknowledged.
    """
    batch = _Batch(engine, lane)
    woken = await batch.sort(messages)
    if woken:
        await batch.run(woken, environment)
    if batch.unfinished:
        await batch.acknowledge()
        raise BatchUnfinished(f"{batch.unfinished} of {len(messages)} messages will come again.")


class _Batch:
    def __init__(self, engine: Engine, lane: str) -> None:
        self._engine, self._lane = engine, lane
        self._running: dict[str, JobRun] = {}
        self._open = 0  # messages that are neither done nor given up
        self._done: list[str] = []
        self._arrived = asyncio.Event()
        self._looks = 0
        self.unfinished = 0

    async def sort(self, messages: Sequence[Received]) -> list[tuple[Received, WakeUp, Job]]:
        """The messages that may wake a job. Garbage is set aside; late and doubled wake-ups are dropped at the cost of one read."""
        engine, wake_ups = self._engine, []
        for message in messages:
            try:
                wake_ups.append((message, WakeUp.from_json(message.body)))
            except BadMessage as exc:
                engine.log("a message is no wake-up", lane=self._lane, reason=exc.message)
                await engine.offload(engine.queues.set_aside, self._lane, message.body, exc.message)
                self._done.append(message.receipt)
        ids = list({wake_up.job_id for _, wake_up in wake_ups})
        jobs = {job.id: job for job in await engine.offload(engine.jobs.get_many, ids)} if ids else {}
        woken = []
        for message, wake_up in wake_ups:
            job = jobs.get(wake_up.job_id)
            if job is not None and job.generation == wake_up.generation and job.status.is_claimable:
                woken.append((message, wake_up, job))
            else:
                self._done.append(message.receipt)
        self._open = len(woken)
        return woken

    async def run(self, woken: list[tuple[Received, WakeUp, Job]], environment: str) -> None:
        """Everything under one lease: written before the first claim, renewed while anything runs, gone at the end."""
        engine = self._engine
        now = engine.clock.now()
        names = tuple(job.id for _, _, job in woken)
        lease = Lease(id=engine.new_id(), lane=self._lane, started_at=now, expires_at=now + LEASE_MS, jobs=names, environment=environment)
        await engine.offload(engine.leases.open, lease)
        jobs = [asyncio.create_task(self._one(message, wake_up, job, lease)) for message, wake_up, job in woken]
        helpers = [asyncio.create_task(self._heartbeat(lease, jobs)), asyncio.create_task(self._look())]
        try:
            await asyncio.gather(*jobs, return_exceptions=True)
        finally:
            for task in (*jobs, *helpers):
                task.cancel()
            await asyncio.gather(*jobs, *helpers, return_exceptions=True)
            await engine.offload(engine.leases.close, lease)

    async def _one(self, message: Received, wake_up: WakeUp, job: Job, lease: Lease) -> None:
        """One message, whatever becomes of it. What goes wrong here is this job's alone."""
        engine = self._engine
        try:
            attempt = await claim_job(engine, wake_up, job, f"{lease.id}#{engine.new_id()}")
            if attempt is not None:
                run = self._running[job.id] = JobRun(engine, attempt)
                self._arrived.set()
                await run.run()
            self._done.append(message.receipt)
        except Exception as exc:  # noqa: BLE001 - the one place where a job's failure must not become its neighbours'
            self.unfinished += 1
            engine.log("a job was left to the sweep", job_id=job.id, tenant=job.tenant, lane=self._lane, error=exc)
        finally:
            self._running.pop(job.id, None)
            self._open -= 1

    async def _heartbeat(self, lease: Lease, jobs: list[asyncio.Task[None]]) -> None:
        """Renew the lease. If it was fenced, everything is dropped at once: it belongs to others now."""
        engine = self._engine
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                await engine.offload(engine.leases.renew, replace(lease, expires_at=engine.clock.now() + LEASE_MS))
            except StaleVersion:
                engine.log("the lease was fenced", lease=lease.id, lane=self._lane)
                for job in jobs:
                    job.cancel()
                return
            except HeadraceError as exc:
                engine.log("a renewal failed", lease=lease.id, lane=self._lane, error=exc)

    async def _look(self) -> None:
        """Once a second, and when a job begins: look at the running jobs' controls, and acknowledge what has ended."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._arrived.wait()
            self._arrived.clear()
            try:
                await self._look_once()
                if self._open:
                    await self.acknowledge()
            except HeadraceError as exc:
                self._engine.log("a look failed", lane=self._lane, error=exc)

    async def acknowledge(self) -> None:
        """Delete the messages that are done. At the end of an invocation that succeeds SQS does it by itself."""
        while self._done:
            receipts = self._done[:10]
            await self._engine.offload(self._engine.queues.acknowledge, self._lane, receipts)
            self._done = self._done[len(receipts) :]

    async def _look_once(self) -> None:
        running = dict(self._running)
        self._looks += 1
        if self._looks % LOOKS_PER_KEY_CHECK == 0:
            for run in running.values():
                await run.audience.turn_away()
        controls = await self._engine.offload(self._engine.watchers.controls, list(running)) if running else {}
        for job_id, control in controls.items():
            run = running[job_id]
            run.attempt.watched_until = control.read_until
            if control.cancel == run.attempt.generation:
                run.attempt.cancelled.set()
            if control.bell:
                await run.audience.hear(control.bell)
