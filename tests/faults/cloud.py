"""A small cloud in memory: what delivers messages, sweeps and follows the change stream, and the people who use it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from chalicelib.consumers.broadcast_job_end import broadcast_job_ends
from chalicelib.consumers.release_dependents import release_dependents
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.streaming.subscriptions import Connection
from chalicelib.services.jobs.cancel_job import cancel_job
from chalicelib.services.jobs.retry_job import retry_job
from chalicelib.services.maintenance.sweeper import sweep
from chalicelib.services.streaming.subscriptions import get_connection, subscribe
from tests.faults.answers import Says
from tests.faults.client import SILENCE, Client
from tests.faults.processes import LANE, Processes
from tests.faults.steps import Killed
from tests.kit.time import SkewedClock
from tests.kit.world import ALICE

__all__ = ["LANE", "Cloud", "Stuck"]

SWEEP_EVERY, SWEEP_PHASE = 60.0, 20.0
LONGEST = 3 * 3600.0  # of virtual time; whatever is not at rest by then is stuck
PATIENCE = 20  # times that a person repeats a request that was not answered


class Stuck(AssertionError):
    """It does not come to rest by itself."""


class Cloud(Processes):
    """`run(story)` runs what people do, and all that follows, until everything is at rest.

    `sweeps` begin together, by a clock that is `skew` seconds wrong.
    """

    sweeps = 1
    skew = 0.0

    # ---- what people do

    async def submit(self, prompt: str, *script: Says, **fields: Any) -> str:
        """The job, once it was accepted; asked for again, under one key, until there is an answer."""
        self.provider.scripts[prompt] = list(script or [Says()])

        key = fields.pop("key", prompt)

        def ask() -> Job:
            return self.world.submit(prompt, key=key, **fields)

        return str((await self.request(ask)).id)

    async def cancel(self, job_id: str) -> Job:
        def ask() -> Job:
            memory = self.world.container
            return cancel_job(self.world.clock, memory.jobs, memory.subscriptions, memory.jobs.get(job_id))  # type: ignore[arg-type]

        return await self.request(ask)

    async def retry(self, job_id: str) -> Job:
        memory, run = self.world.container, self.head(job_id).run

        def ask() -> Job:
            job = memory.jobs.get(job_id)
            assert job is not None
            return retry_job(self.world.container, job, run=run)

        job = await self.request(ask)
        if job_id in self.clients:
            self.clients[job_id].wants = job.version
        return job

    async def watch(self, job_id: str, silence: float = SILENCE) -> None:
        """A client of its own for the job, which asks again after so many seconds of silence."""
        connection = f"c{next(self._names)}"
        now = self.world.clock.now()
        self.real.connections.open(
            Connection(id=connection, endpoint="https://ws/api", caller=ALICE, connected_at=now, expires_at=now + 10**8)
        )
        client = Client(job_id, self.history, partial(self._subscribe, connection, job_id))
        client.silence = silence
        self.clients[job_id] = client
        self._by_connection[connection] = client
        self.background(client.run())

    async def until(self, condition: Callable[[], bool], seconds: float = 3600.0) -> bool:
        """Look five times a second. False: it did not come true."""
        end = self.world.loop.moment + seconds
        while not condition() and self.world.loop.moment < end:
            await asyncio.sleep(0.2)
        return condition()

    async def request(self, ask: Callable[[], Any]) -> Any:
        """Ask the API until it answers, as people do."""
        for _ in range(PATIENCE):
            answer = await self.act("api", ask)
            if not isinstance(answer, (Killed, asyncio.CancelledError, Unavailable)):
                if isinstance(answer, BaseException):
                    raise answer
                return answer
            await asyncio.sleep(1.0)
        raise Stuck("the API does not answer")

    # ---- the run

    def run(self, story: Callable[[Cloud], Coroutine[Any, Any, None]]) -> None:
        """From the first request to rest."""

        async def play() -> None:
            self.start()
            await story(self)
            await self.rest()

        try:
            self.world.loop.run_until_complete(play())
        finally:
            self.close()

    def start(self) -> None:
        """Let messages be delivered, the sweep run, and the changes be followed."""
        for helper in (self._poll, self._sweep, self._project):
            if helper != self._project or self.follows_changes:
                self.background(helper())

    async def rest(self) -> None:
        """Wait until nothing happens any more."""
        while self.at_work():
            if self.world.loop.moment > LONGEST:
                raise Stuck(f"not at rest after {LONGEST / 3600:g} h: {self.at_work()}")
            await asyncio.sleep(10.0)

    # ---- what AWS does

    async def _poll(self) -> None:
        """Deliver what is visible, at most ten messages together."""
        queues = self.real.queues
        while True:
            self._sent.clear()
            await asyncio.sleep(0.2)
            while messages := queues.receive(LANE):
                self.background(self.work(messages))
            times = [message.visible_at for message in queues.messages[LANE]]
            pause = max(0.0, (min(times) - self.world.clock.now()) / 1000) if times else SWEEP_EVERY
            try:
                async with asyncio.timeout(pause):
                    await self._sent.wait()
            except TimeoutError:
                continue

    async def _sweep(self) -> None:
        await asyncio.sleep(SWEEP_PHASE)
        while True:
            for _ in range(self.sweeps):
                self.background(self.act("sweep", sweep, self.world.container.with_changes(clock=SkewedClock(self.world.clock, self.skew))))
            await asyncio.sleep(SWEEP_EVERY)

    async def _project(self) -> None:
        """Hand the changes on in order, each until it was dealt with."""
        while True:
            change = await self._changes.get()
            self._projecting = True
            while isinstance(await self.act("stream", broadcast_job_ends, self.world.container, [change]), BaseException):
                await asyncio.sleep(1.0)
            while isinstance(await self.act("stream", release_dependents, self.world.container, [change]), BaseException):
                await asyncio.sleep(1.0)
            self._projecting = False

    async def _subscribe(self, connection: str, job_id: str, attempt: int, offset: int) -> None:
        def ask() -> None:
            ctx = self.world.container
            subscribe(ctx, get_connection(ctx, connection), job_id, attempt, offset, None)

        await self.act("api", ask)
