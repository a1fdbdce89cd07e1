"""One `World` whose processes can be killed: requests, workers and sweeps, each with its own tasks and threads."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from itertools import count
from typing import Any

from chalicelib import job_types
from chalicelib.domain.auth.identity import Caller
from chalicelib.domain.execution.deadline import Deadline
from chalicelib.domain.jobs.job import Job
from chalicelib.ports import QueueMessage
from chalicelib.services.prompts.render import fill_parent_results_if_available
from chalicelib.services.worker.process_messages import process_messages
from chalicelib.services.worker.stream_response import cancel_response
from tests.faults.answers import StepProvider
from tests.faults.bridge import as_if_on_a_thread, wait
from tests.faults.client import Client
from tests.faults.history import History
from tests.faults.steps import ACTOR, Actor, Director, Fault, Killed, Steps, end
from tests.faults.twins import CachePort, JobsPort, Port, QueuesPort, ResultsPort, SocketsPort
from tests.kit.world import ALICE, World

LANE = "normal"
Change = tuple[str, Job | None, Job]  # of the table's stream: the job, its head before and after


class Processes:
    """Everything outside in memory, and the processes that work on it. `real` are the twins without the steps: what is kept now.

    `carry` decides what the network does to a frame; by default it arrives after 20 ms. `follows_changes`: the change stream has a reader.
    `changes` is all that it ever said.
    """

    follows_changes = True
    invocation: float | None = None  # seconds after which a worker's invocation is ended; None: long after everything

    def __init__(self, faults: Sequence[Fault] = (), director: Director | None = None) -> None:
        self.world = World()
        self.real = copy.copy(self.world.container)
        self.steps = Steps(faults, director)
        self.history = History()
        self.clients: dict[str, Client] = {}
        self.workers: list[Actor] = []
        self.carry: Callable[[Client, dict[str, Any]], None] = self.deliver_frame
        self.provider = StepProvider(self.steps, self.history, self._prompt_of)
        self._names = count(1)
        self._alive: set[asyncio.Task[Any]] = set()
        self._sent = asyncio.Event()
        self._by_connection: dict[str, Client] = {}
        self.changes: list[Change] = []
        self._changes: asyncio.Queue[Change] = asyncio.Queue()
        self._projecting = False
        self._wire()

    def _wire(self) -> None:
        """Put the steps between the engine and its twins."""
        self.world.loop.set_task_factory(_task)
        world, real, steps = self.world, self.real, self.steps
        ports: dict[str, Any] = {
            name: Port(name, getattr(real, name), steps)
            for name in ("job_specs", "chunks", "subscriptions", "connections", "leases", "circuit_breakers", "type_limiters")
        }
        ports["cache"] = CachePort(real.cache, steps, self.history)
        ports["jobs"] = JobsPort(real.jobs, steps, self.history, self._changed)
        ports["results"] = ResultsPort(real.results, steps, self.history)
        ports["queues"] = QueuesPort(real.queues, steps, self._sent)
        ports["sockets"] = SocketsPort(real.sockets, steps, self._carried)
        for name, port in ports.items():
            setattr(world.container, name, port)
        world.container.dependencies = Port("dependencies", real.dependencies, steps)  # type: ignore[assignment]
        keys = Port("keys", _Keys(), steps)
        vars(world.container).update(
            job_files=Port("job_files", real.job_files, steps),
            provider=self.provider,
            may_stream=keys.may_stream,
            caller_by_key_hash=keys.caller,
            offload=self._offload,
            offload_sends=self._offload,
            cancel_response=lambda response_id: wait(cancel_response(self.provider, world.container.log, response_id)),
        )

    def head(self, job_id: str) -> Job:
        return self.real.jobs.heads[job_id]

    def at_work(self) -> str:
        """What is not at rest; empty if all is."""
        real = self.real
        busy = {
            "jobs": [f"{job.id[-3:]} {job.status}" for job in real.jobs.heads.values() if not job.status.is_terminal],
            "workers": [worker.name for worker in self.workers],
            "leases": list(real.leases.rows),
            "messages": [message.body for message in real.queues.messages[LANE]],
            "changes": self.follows_changes and self._changes.qsize() + self._projecting,
            "clients": [client.job_id[-3:] for client in self.clients.values() if not client.at_rest],
        }
        return ", ".join(f"{name} {what}" for name, what in busy.items() if what)

    async def act(self, role: str, call: Callable[..., Any], *args: Any) -> Any:
        """One process that makes a synchronous call, to its end. The answer is what it returned or raised, `Killed` among it."""
        return await self._process(Actor(f"{role} {next(self._names)}"), partial(as_if_on_a_thread, call, *args))

    async def work(self, messages: Sequence[QueueMessage]) -> None:
        """One invocation of a worker. What it does not acknowledge comes again when the messages are visible again."""
        actor = Actor(f"worker {next(self._names)}")
        self.workers.append(actor)
        answer = await self._process(actor, partial(process_messages, self.world.container, LANE, messages, deadline=self._deadline(actor)))
        while actor.threads:
            await asyncio.wait(set(actor.threads))
        await self._expect_nothing_left(actor)
        self.workers.remove(actor)
        if answer is None and not actor.dead:
            self.real.queues.acknowledge(LANE, [message.receipt for message in messages])

    def _deadline(self, actor: Actor) -> Deadline | None:
        """When the invocation's time is over, and the worker with it."""
        if self.invocation is None:
            return None
        now = self.world.clock.now()
        self.world.loop.call_later(self.invocation, self._time_out, actor)
        return Deadline(started_at=now, ends_at=now + round(self.invocation * 1000))

    def _time_out(self, actor: Actor) -> None:
        if actor in self.workers:
            end(actor)

    async def _process(self, actor: Actor, work: Callable[[], Awaitable[Any]]) -> Any:
        """Run an actor's work as a task that can be killed."""

        async def begin() -> Any:
            ACTOR.set(actor)
            return await work()

        actor.root = asyncio.ensure_future(begin())
        await asyncio.wait([actor.root])
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

    def close(self) -> None:
        """End whatever is still there, and the loop."""
        loop = self.world.loop
        loop.run_until_complete(self._end_all())
        loop.made.remove(loop)
        loop.close()

    async def _end_all(self) -> None:
        while left := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    def deliver_frame(self, client: Client, frame: dict[str, Any], after: float = 0.02) -> None:
        self.world.loop.call_later(after, client.receive, frame)

    def replay(self) -> None:
        """Hand the whole change stream on once more, from its beginning, as a reader gets it whose place was lost."""
        for change in self.changes:
            self._changes.put_nowait(change)

    def _changed(self, before: Job | None, new: Job) -> None:
        self.changes.append((new.id, before, new))
        self._changes.put_nowait(self.changes[-1])

    def _prompt_of(self, job_id: str) -> str:
        """What a worker asks for a job: with what its parents said, if it has any."""
        body = self.real.job_specs.get(job_id)
        if body is not None and body.depends_on:
            body = fill_parent_results_if_available(self.real.jobs, self.real.results, body, job_types.get(self.head(job_id).type))
        return body.prompt if body else ""

    def _carried(self, connection: str, frame: dict[str, Any]) -> None:
        self.carry(self._by_connection[connection], frame)

    def background(self, work: Coroutine[Any, Any, Any]) -> None:
        """Have something done while others go on."""
        task = asyncio.ensure_future(work)
        self._alive.add(task)
        task.add_done_callback(self._alive.discard)


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

    def may_stream(self, key_hash: str, _job: Job) -> bool:
        return True

    def caller(self, key_hash: str) -> Caller:
        return ALICE
