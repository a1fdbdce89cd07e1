"""A small cloud in memory: what delivers messages, sweeps, follows the change stream and carries frames, around one `World`."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any

from chalicelib.domain.errors import Unavailable
from chalicelib.domain.identity import Caller
from chalicelib.domain.job import Job
from chalicelib.domain.watching import Connection
from chalicelib.ports import Received
from chalicelib.projections.announce_ends import announce_ends
from chalicelib.usecases.cancel_job import cancel_job
from chalicelib.usecases.retry_job import retry_job
from chalicelib.usecases.run_batch import run_batch
from chalicelib.usecases.sweep import sweep
from chalicelib.usecases.watch_job import connected, subscribe
from tests.faults.bridge import as_if_on_a_thread
from tests.faults.client import Client
from tests.faults.history import History
from tests.faults.steps import ACTOR, Actor, Director, Fault, Killed, Steps
from tests.faults.twins import JobsPort, Port, QueuesPort, ResultsPort, Says, SocketsPort, StepProvider
from tests.kit.world import ALICE, World

LANE = "normal"
SWEEP_EVERY, SWEEP_PHASE = 60.0, 20.0
LONGEST = 3 * 3600.0  # of virtual time; whatever is not at rest by then is stuck
PATIENCE = 20  # times that a person repeats a request that was not answered


class Stuck(AssertionError):
    """It does not come to rest by itself."""


class Cloud:
    """`run(story)` runs what people do, and all that follows, until everything is at rest.

    `carry` decides what the network does to a frame; by default it arrives after 20 ms.
    """

    def __init__(self, faults: Sequence[Fault] = (), director: Director | None = None) -> None:
        self.world = World()
        self.real = copy.copy(self.world.memory)
        self.steps = Steps(faults, director)
        self.history = History()
        self.clients: dict[str, Client] = {}
        self.workers: list[Actor] = []
        self.sweeps: list[Any] = []
        self.carry: Callable[[Client, dict[str, Any]], None] = self.deliver_frame
        self.provider = StepProvider(self.steps, self.history, self._prompt_of)
        self._names = count(1)
        self._busy: set[asyncio.Task[Any]] = set()
        self._sent = asyncio.Event()
        self._changes: asyncio.Queue[tuple[str, Job | None, Job]] = asyncio.Queue()
        self._projecting = False
        self._wire()

    def _wire(self) -> None:
        """Put the steps between the engine and its twins."""
        world, real, steps = self.world, self.real, self.steps
        ports: dict[str, Any] = {name: Port(name, getattr(real, name), steps) for name in ("bodies", "chunks", "watchers", "leases")}
        ports["jobs"] = JobsPort(real.jobs, steps, self.history, lambda before, new: self._changes.put_nowait((new.id, before, new)))
        ports["results"] = ResultsPort(real.results, steps, self.history)
        ports["queues"] = QueuesPort(real.queues, steps, self._sent)
        ports["sockets"] = SocketsPort(real.sockets, steps, self._carried)
        for name, port in {**ports, "connections": Port("connections", real.connections, steps)}.items():
            setattr(world.memory, name, port)
        memory = world.memory
        keys = Port("keys", _Keys(), steps)
        world.engine = replace(
            world.engine, **ports, provider=self.provider, is_welcome=keys.is_welcome, offload=self._offload, offload_posts=self._offload
        )
        world.intake = replace(world.intake, jobs=memory.jobs, bodies=memory.bodies, queues=memory.queues)
        kept = {name: ports[name] for name in ("jobs", "chunks", "results", "watchers", "sockets")}
        world.gallery = replace(world.gallery, **kept, connections=memory.connections, caller_by_hash=keys.caller)

    # ---- what people do

    async def submit(self, prompt: str, *script: Says, **fields: Any) -> str:
        """The job, once it was accepted; asked for again, under one key, until there is an answer."""
        self.provider.scripts[prompt] = list(script or [Says()])

        def ask() -> Job:
            return self.world.submit(prompt, key=prompt, **fields)

        return str((await self.request(ask)).id)

    async def cancel(self, job_id: str) -> Job:
        def ask() -> Job:
            memory = self.world.memory
            return cancel_job(self.world.clock, memory.jobs, memory.watchers, memory.jobs.get(job_id))  # type: ignore[arg-type]

        return await self.request(ask)

    async def retry(self, job_id: str) -> Job:
        memory, run = self.world.memory, self.head(job_id).run

        def ask() -> Job:
            job = memory.jobs.get(job_id)
            assert job is not None
            return retry_job(self.world.clock, memory.jobs, memory.bodies, memory.queues, job, run=run)

        job = await self.request(ask)
        if job_id in self.clients:
            self.clients[job_id].wants = job.version
        return job

    async def watch(self, job_id: str) -> None:
        """A client of its own for the job."""
        connection = f"c{next(self._names)}"
        now = self.world.clock.now()
        self.real.connections.open(
            Connection(id=connection, endpoint="https://ws/api", caller=ALICE, connected_at=now, expires_at=now + 10**8)
        )
        client = Client(job_id, self.history, partial(self._subscribe, connection, job_id))
        self.clients[job_id] = client
        self._by_connection[connection] = client
        self._background(client.run())

    async def until(self, condition: Callable[[], bool], seconds: float = 3600.0) -> bool:
        """Look ten times a second. False: it did not come true."""
        end = self.world.loop.moment + seconds
        while not condition() and self.world.loop.moment < end:
            await asyncio.sleep(0.1)
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

    def head(self, job_id: str) -> Job:
        return self.real.jobs.heads[job_id]

    # ---- the run

    def run(self, story: Callable[[Cloud], Coroutine[Any, Any, None]]) -> None:
        """From the first request to rest."""
        self._by_connection: dict[str, Client] = {}
        self._helpers: list[asyncio.Task[Any]] = []
        loop = self.world.loop
        try:
            loop.run_until_complete(self._main(story))
        finally:
            loop.made.remove(loop)
            loop.close()

    async def _main(self, story: Callable[[Cloud], Coroutine[Any, Any, None]]) -> None:
        asyncio.get_running_loop().set_task_factory(_task)
        for helper in (self._poll(), self._sweep(), self._project()):
            self._background(helper)
        try:
            await story(self)
            await self.rest()
        finally:
            for task in (*self._helpers, *self._busy):
                task.cancel()
            await asyncio.gather(*self._helpers, *self._busy, return_exceptions=True)
            await asyncio.sleep(0)
            left = asyncio.all_tasks() - {asyncio.current_task()}
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def rest(self) -> None:
        """Wait until nothing happens any more."""
        while self.at_work():
            if self.world.loop.moment > LONGEST:
                raise Stuck(f"not at rest after {LONGEST / 3600:g} h: {self.at_work()}")
            await asyncio.sleep(5.0)

    def at_work(self) -> str:
        """What is not at rest; empty if all is."""
        real = self.real
        busy = {
            "jobs": [f"{job.id[-3:]} {job.status}" for job in real.jobs.heads.values() if not job.status.is_terminal],
            "workers": [worker.name for worker in self.workers],
            "leases": list(real.leases.rows),
            "messages": [message.body for message in real.queues.messages[LANE]],
            "changes": self._changes.qsize() + self._projecting,
            "clients": [client.job_id[-3:] for client in self.clients.values() if not client.at_rest],
        }
        return ", ".join(f"{name} {what}" for name, what in busy.items() if what)

    async def act(self, role: str, call: Callable[..., Any], *args: Any) -> Any:
        """One process that makes a synchronous call, to its end. The answer is what it returned or raised, `Killed` among it."""
        return await self._process(Actor(f"{role} {next(self._names)}"), partial(as_if_on_a_thread, call, *args))

    async def work(self, messages: Sequence[Received]) -> None:
        """One invocation of a worker. What it does not acknowledge comes again when the messages are visible again."""
        actor = Actor(f"worker {next(self._names)}")
        self.workers.append(actor)
        answer = await self._process(actor, partial(run_batch, self.world.engine, LANE, messages))
        while actor.threads:
            await asyncio.wait(set(actor.threads))
        await self._expect_nothing_left(actor)
        self.workers.remove(actor)
        if answer is None and not actor.dead:
            self.real.queues.acknowledge(LANE, [message.receipt for message in messages])

    async def _process(self, actor: Actor, work: Callable[[], Awaitable[Any]]) -> Any:
        """Run an actor's work as a task that can be killed."""

        async def begin() -> Any:
            ACTOR.set(actor)
            return await work()

        actor.root = asyncio.ensure_future(begin())
        self._busy.add(actor.root)
        await asyncio.wait([actor.root])
        self._busy.discard(actor.root)
        actor.tasks.discard(actor.root)
        if actor.root.cancelled():
            return Killed()
        return actor.root.exception() or actor.root.result()

    async def _expect_nothing_left(self, actor: Actor) -> None:
        """A handler returns only after all its tasks have ended [20]; of a dead one nothing is expected."""
        while left := [task for task in actor.tasks if not task.done()]:
            if not actor.dead:
                self.history.problems.append(f"{actor.name} has ended, and left {left}")
            for task in left:
                task.cancel()
            await asyncio.wait(left)

    async def _offload(self, call: Callable[..., Any], *args: Any) -> Any:
        """A call on a thread of the worker: whoever gives up waiting does not end it."""
        actor = ACTOR.get()
        assert actor is not None
        if actor.dead:
            raise Killed
        thread = asyncio.ensure_future(as_if_on_a_thread(call, *args))
        actor.threads.add(thread)
        thread.add_done_callback(partial(_ended, actor))
        return await asyncio.shield(thread)

    # ---- what AWS does

    async def _poll(self) -> None:
        """Deliver what is visible, at most ten messages together."""
        queues = self.real.queues
        while True:
            self._sent.clear()
            await asyncio.sleep(0.2)
            while messages := queues.receive(LANE):
                self._background(self.work(messages), busy=True)
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
            self._background(self._sweep_once(), busy=True)
            await asyncio.sleep(SWEEP_EVERY)

    async def _sweep_once(self) -> None:
        answer = await self.act("sweep", sweep, self.world.broom)
        self.sweeps.append(answer)

    async def _project(self) -> None:
        """Hand the changes on in order, each until it was dealt with."""
        while True:
            change = await self._changes.get()
            self._projecting = True
            gallery, queues, log = self.world.gallery, self.world.memory.queues, self.world._log
            while isinstance(await self.act("stream", announce_ends, gallery, queues, log, [change]), BaseException):
                await asyncio.sleep(1.0)
            self._projecting = False

    # ---- frames

    def deliver_frame(self, client: Client, frame: dict[str, Any], after: float = 0.02) -> None:
        self.world.loop.call_later(after, client.receive, frame)

    def _prompt_of(self, job_id: str) -> str:
        body = self.real.bodies.get(job_id)
        return body.prompt if body else ""

    def _carried(self, connection: str, frame: dict[str, Any]) -> None:
        self.carry(self._by_connection[connection], frame)

    async def _subscribe(self, connection: str, job_id: str, attempt: int, offset: int) -> None:
        def ask() -> None:
            gallery = self.world.gallery
            subscribe(gallery, connected(gallery, connection), job_id, attempt, offset, None)

        await self.act("api", ask)

    def _background(self, work: Coroutine[Any, Any, Any], *, busy: bool = False) -> None:
        task = asyncio.ensure_future(work)
        if not busy:
            self._helpers.append(task)
            return
        self._busy.add(task)
        task.add_done_callback(self._busy.discard)


def _task(loop: asyncio.AbstractEventLoop, work: Any, **named: Any) -> asyncio.Task[Any]:
    """A task that its actor knows of."""
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **named)
    actor = ACTOR.get()
    if actor is not None:
        actor.tasks.add(task)
    return task


def _ended(actor: Actor, thread: asyncio.Task[Any]) -> None:
    """A thread's last word is lost if nobody waits for it any more."""
    actor.threads.discard(thread)
    if not thread.cancelled():
        thread.exception()


class _Keys:
    """Everybody's key is valid."""

    def is_welcome(self, key_hash: str, _job: Job) -> bool:
        return True

    def caller(self, key_hash: str) -> Caller:
        return ALICE
