"""The system in memory, with AWS's part (delivery, schedule, change stream) and users."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any

from chalicelib.consumers.job_changes import process_job_changes
from chalicelib.consumers.overdue_ends import serve_overdue_ends
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.queues.lanes import JOB_QUEUES, SCHEDULE, TASKS
from chalicelib.domain.streaming.subscriptions import Connection
from chalicelib.services.batches.advance_batch import advance_batch
from chalicelib.services.batches.context import ADVANCE_BATCH
from chalicelib.services.jobs.advance_bulk import advance_bulk
from chalicelib.services.jobs.bulk_turns import ADVANCE_BULK
from chalicelib.services.jobs.cancel_job import cancel_job
from chalicelib.services.jobs.retry_job import retry_job
from chalicelib.services.maintenance.sweep_lines import sweep_lines
from chalicelib.services.maintenance.sweeper import sweep
from chalicelib.services.streaming.subscriptions import get_connection, subscribe
from tests.faults.client import SILENCE_SECONDS, Client
from tests.faults.processes import LANE, QUEUES, Processes
from tests.faults.provider import ScriptedAnswer
from tests.faults.steps import Killed
from tests.kit.time import SkewedClock
from tests.kit.world import ALICE

__all__ = ["LANE", "QUEUES", "Simulation", "Stuck", "TaskSimulation"]

SWEEP_EVERY, SWEEP_PHASE = 60.0, 20.0
SERVE_MS = 40_000  # of each minute, for the ends that the change stream has left
TASK_MS = 90_000  # of a message of the queue `tasks`
MAX_SECONDS = 3 * 3600.0  # of virtual time, until a run that is unfinished counts as stuck
MAX_REQUEST_ATTEMPTS = 20  # of a user whose request got no response


class Stuck(AssertionError):
    """The run does not finish by itself."""


class Simulation(Processes):
    """Runs a scenario, and everything that follows from it, until nothing is unfinished."""

    sweepers = 1  # that run at the same time
    sweeper_skew = 0.0  # seconds that the sweepers' clock is wrong

    # ---- the API's users

    async def submit(self, prompt: str, *scripts: ScriptedAnswer, **fields: Any) -> str:
        """Submit a job, with one idempotency key until there is a response. Return its id."""
        self.provider.scripts[prompt] = list(scripts or [ScriptedAnswer()])

        key = fields.pop("key", prompt)

        def submit() -> Job:
            return self.world.submit(prompt, key=key, **fields)

        return str((await self.request(submit)).id)

    async def cancel(self, job_id: str) -> Job:
        def cancel() -> Job:
            ctx = self.world.container
            return cancel_job(ctx, ctx.jobs.get(job_id))  # type: ignore[arg-type]

        return await self.request(cancel)

    async def retry(self, job_id: str) -> Job:
        ctx, run = self.world.container, self.job(job_id).run

        def retry() -> Job:
            job = ctx.jobs.get(job_id)
            assert job is not None
            return retry_job(ctx, job, run=run)

        job = await self.request(retry)
        if job_id in self.clients:
            self.clients[job_id].expected_version = job.version
        return job

    async def watch(self, job_id: str, silence: float = SILENCE_SECONDS) -> None:
        """Start a client that subscribes, and again after `silence` seconds without a frame."""
        connection = f"c{next(self._numbers)}"
        now = self.world.clock.now()
        self.real.connections.open(
            Connection(id=connection, endpoint="https://ws/api", caller=ALICE, connected_at=now, expires_at=now + 10**8),
        )
        client = Client(job_id, self.history, partial(self._subscribe, connection, job_id))
        client.silence = silence
        self.clients[job_id] = client
        self._by_connection[connection] = client
        self.spawn(client.run())

    async def until(self, condition: Callable[[], bool], seconds: float = 3600.0) -> bool:
        """Wait until `condition` is true, for at most `seconds`. Return whether it is."""
        end = self.world.loop.moment + seconds
        while not condition() and self.world.loop.moment < end:
            await asyncio.sleep(0.2)
        return condition()

    async def request(self, call: Callable[[], Any]) -> Any:
        """Repeat a request until the API responds. Return its value, or raise its error."""
        for _ in range(MAX_REQUEST_ATTEMPTS):
            outcome = await self.run_call("api", call)
            if not isinstance(outcome, (Killed, asyncio.CancelledError, Unavailable)):
                if isinstance(outcome, BaseException):
                    raise outcome
                return outcome
            await asyncio.sleep(1.0)
        raise Stuck("the API does not respond")

    # ---- the run

    def run(self, scenario: Callable[[Simulation], Coroutine[Any, Any, None]]) -> None:
        """Run a scenario from its first request until nothing is unfinished."""

        async def main() -> None:
            self.start()
            await scenario(self)
            await self.wait_until_idle()

        try:
            self.world.loop.run_until_complete(main())
        finally:
            self.close()

    def start(self) -> None:
        """Start the message delivery, the sweeper and the reader of the change stream."""
        for loop in (self._poll, self._sweep, self._read_changes):
            if loop != self._read_changes or self.follows_changes:
                self.spawn(loop())

    async def wait_until_idle(self) -> None:
        """Wait until nothing is unfinished."""
        while self.unfinished():
            if self.world.loop.moment > MAX_SECONDS:
                raise Stuck(f"unfinished after {MAX_SECONDS / 3600:g} h: {self.unfinished()}")
            await asyncio.sleep(10.0)

    # ---- AWS

    async def _poll(self) -> None:
        """Deliver the visible messages to the workers of their queues, and to the scheduler."""
        queues = self.real.queues
        while True:
            self._sent.clear()
            await asyncio.sleep(0.2)
            for queue in QUEUES:
                while messages := queues.receive(queue, JOB_QUEUES[queue].batch_size):
                    self.spawn(self.run_worker(messages, queue))
            while messages := queues.receive(SCHEDULE, 1):
                self.spawn(self.run_scheduler(messages[0]))
            await self._wait_for_message(
                self._sent, [message.visible_at for queue in (*QUEUES, SCHEDULE) for message in queues.messages[queue]]
            )

    async def _wait_for_message(self, sent: asyncio.Event, visible_at: list[int]) -> None:
        """Wait until a message is sent, or the first of these times."""
        pause = max(0.0, (min(visible_at) - self.world.clock.now()) / 1000) if visible_at else SWEEP_EVERY
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await sent.wait()

    async def _sweep(self) -> None:
        await asyncio.sleep(SWEEP_PHASE)
        while True:
            for _ in range(self.sweepers):
                skewed = SkewedClock(self.world.clock, self.sweeper_skew)
                ctx = self.world.container.with_changes(clock=skewed)
                self.spawn(self.run_call("sweep", sweep, ctx))
                self.spawn(self.run_call("sweep", serve_overdue_ends, ctx, skewed.now() + SERVE_MS))
                self.spawn(self.run_call("sweep_lines", sweep_lines, ctx, skewed.now() + SERVE_MS))
            await asyncio.sleep(SWEEP_EVERY)

    async def _read_changes(self) -> None:
        """Pass all waiting changes to the consumers, in order.

        A batch that fails is delivered again.
        """
        while True:
            changes = [await self._changes.get()]
            self._reading_changes = True
            while not self._changes.empty():
                changes.append(self._changes.get_nowait())
            while isinstance(await self.run_call("stream", process_job_changes, self.world.container, changes), BaseException):
                await asyncio.sleep(1.0)
            self._reading_changes = False

    async def _subscribe(self, connection: str, job_id: str, attempt: int, offset: int) -> None:
        def request() -> None:
            ctx = self.world.container
            subscribe(ctx, get_connection(ctx, connection), job_id, attempt, offset, None)

        await self.run_call("api", request)


class TaskSimulation(Simulation):
    """A simulation whose queue `tasks` is delivered, too: messages that advance batches and bulk operations."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._running_tasks = 0

    def start(self) -> None:
        super().start()
        self.spawn(self._deliver_tasks())

    def unfinished(self) -> str:
        tasks = len(self.real.queues.messages[TASKS]) + self._running_tasks
        return ", ".join(filter(None, [super().unfinished(), f"tasks {tasks}" if tasks else ""]))

    async def _deliver_tasks(self) -> None:
        queues: Any = self.world.container.queues
        while True:
            queues.task_sent.clear()
            await asyncio.sleep(0.2)
            for message in self.real.queues.receive(TASKS):
                self.spawn(self._run_task(message.body, message.receipt))
            await self._wait_for_message(queues.task_sent, [message.visible_at for message in self.real.queues.messages[TASKS]])

    async def _run_task(self, body: str, receipt: str) -> None:
        """Run one message, and delete it only if its function has returned."""
        ctx, message, self._running_tasks = self.world.container, json.loads(body), self._running_tasks + 1
        calls: dict[str, Callable[[int], Any]] = {
            ADVANCE_BATCH: lambda until: advance_batch(ctx, message["tenant"], message["batch_id"], until),
            ADVANCE_BULK: lambda until: advance_bulk(ctx, message["tenant"], message["bulk_id"], message["version"], until),
        }
        outcome = await self.run_call("tasks", calls[message["task"]], self.world.clock.now() + TASK_MS)
        self._running_tasks -= 1
        if not isinstance(outcome, BaseException):
            self.real.queues.acknowledge(TASKS, [receipt])
