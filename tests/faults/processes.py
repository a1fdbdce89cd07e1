"""One `World` with processes that can be killed: requests, workers and sweeps."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Sequence
from functools import partial
from itertools import count
from typing import Any

from chalicelib import job_types
from chalicelib.adapters.runtime.threads import serial_map
from chalicelib.domain.auth.identity import Caller
from chalicelib.domain.execution.deadline import Deadline
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.queues.causes import BUCKETS
from chalicelib.domain.queues.lanes import READY, SCHEDULE, WORK
from chalicelib.ports import QueueMessage
from chalicelib.services.prompts.render import fill_parent_results_if_available
from chalicelib.services.scheduling.scheduler import serve_shard
from chalicelib.services.scheduling.visits import ShardMessage
from chalicelib.services.worker.process_messages import process_messages
from chalicelib.services.worker.stream_response import cancel_response, delete_response
from tests.faults.bridge import run_in_greenlet, wait
from tests.faults.client import Client
from tests.faults.history import History
from tests.faults.provider import StepProvider
from tests.faults.step_ports import CacheStepPort, JobsStepPort, LinesStepPort, QueuesStepPort, ResultsStepPort, SocketsStepPort, StepPort
from tests.faults.steps import ACTOR, Actor, Director, Fault, Killed, Steps, end
from tests.kit.world import ALICE, World

LANE = "normal"  # of the jobs that ask a model
QUEUES = (LANE, WORK.name, READY.name)  # of wake-ups
SCHEDULER_MS = 100_000  # of an invocation that serves a shard of the scheduler
Change = tuple[str, Job | None, Job]  # of the change stream: the job id, the record before and after


class Processes:
    """All ports in memory, and the processes that use them.

    `real` are the in-memory twins without the steps. `transmit` decides what the network does to a
    frame; by default the frame arrives after 20 ms.
    """

    follows_changes = True  # the change stream has a reader
    invocation: float | None = None  # the timeout of a worker's invocation, in seconds; None: none

    def __init__(self, faults: Sequence[Fault] = (), director: Director | None = None) -> None:
        self.world = World()
        settings = self.world.container.settings
        self.world.container.settings = dataclasses.replace(settings, scheduler_shards=BUCKETS)  # a shard reads one bucket: fewer steps
        self.real = copy.copy(self.world.container)
        self.real.jobs.shards_of = self.real.tenant_limits.shards_of  # a step makes no other step
        self.steps = Steps(faults, director)
        self.history = History()
        self.clients: dict[str, Client] = {}
        self.workers: list[Actor] = []
        self.schedulers: list[Actor] = []
        self.transmit: Callable[[Client, dict[str, Any]], None] = self.deliver_frame
        self.provider = StepProvider(self.steps, self.history, self._prompt_of)
        self._numbers = count(1)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._sent = asyncio.Event()
        self._by_connection: dict[str, Client] = {}
        self.changes: list[Change] = []  # all that the change stream has had
        self._changes: asyncio.Queue[Change] = asyncio.Queue()
        self._reading_changes = False
        self._install_ports()

    def _install_ports(self) -> None:
        """Replace the ports of the world by step ports."""
        self.world.loop.set_task_factory(_create_task)
        world, real, steps = self.world, self.real, self.steps
        ports: dict[str, Any] = {
            name: StepPort(name, getattr(real, name), steps)
            for name in ("job_specs", "chunks", "subscriptions", "connections", "leases", "circuit_breakers", "rates", "deliveries")
        }
        ports["tenant_limits"] = StepPort("tenant_limits", real.tenant_limits, steps)
        ports["cache"] = CacheStepPort(real.cache, steps, self.history)
        ports["jobs"] = JobsStepPort(real.jobs, steps, self.history, self._on_change)
        ports["results"] = ResultsStepPort(real.results, steps, self.history)
        ports["queues"] = QueuesStepPort(real.queues, steps, self._sent)
        ports["lines"] = LinesStepPort("lines", real.lines, steps)
        ports["sockets"] = SocketsStepPort(real.sockets, steps, self._on_frame)
        for name, port in ports.items():
            setattr(world.container, name, port)
        world.container.dependencies = StepPort("dependencies", real.dependencies, steps)  # type: ignore[assignment]
        keys = StepPort("keys", _Keys(), steps)
        vars(world.container).update(
            job_files=StepPort("job_files", real.job_files, steps),
            provider=self.provider,
            readers_of=keys.readers_of,
            caller_by_key_hash=keys.caller,
            offload=self._offload,
            offload_sends=self._offload,
            parallel_map=self._parallel_map,
            cancel_response=lambda response_id: wait(cancel_response(self.provider, world.container.log, response_id)),
            delete_response=lambda response_id: wait(delete_response(self.provider, world.container.log, response_id)),
        )

    def job(self, job_id: str) -> Job:
        """Return the stored job record."""
        return self.real.jobs.records[job_id]

    def unfinished(self) -> str:
        """Return what is unfinished, as text. It is empty when nothing will happen any more."""
        real = self.real
        unfinished = {
            "jobs": [f"{job.id[-3:]} {job.status}" for job in real.jobs.records.values() if job.due_at is not None],
            "workers": [worker.name for worker in (*self.workers, *self.schedulers)],
            "lines": [*real.lines.lines, *real.lines.lines_by_user],
            "leases": list(real.leases.rows),
            "messages": [message.body for queue in (*QUEUES, SCHEDULE) for message in real.queues.messages[queue]],
            "changes": self.follows_changes and self._changes.qsize() + self._reading_changes,
            "clients": [client.job_id[-3:] for client in self.clients.values() if not client.is_up_to_date],
        }
        return ", ".join(f"{name} {what}" for name, what in unfinished.items() if what)

    async def run_call(self, role: str, call: Callable[..., Any], *args: Any) -> Any:
        """Run a synchronous call as one process.

        Return what it returned or raised; `Killed` if the process died.
        """
        return await self._process(Actor(f"{role} {next(self._numbers)}"), partial(run_in_greenlet, call, *args))

    async def run_worker(self, messages: Sequence[QueueMessage], queue: str = LANE) -> None:
        """Invoke the worker of a queue with these messages.

        Messages that it does not acknowledge are received again later.
        """
        actor = Actor(f"worker {next(self._numbers)}")
        self.workers.append(actor)
        outcome = await self._process(
            actor, partial(process_messages, self.world.container, queue, messages, deadline=self._deadline(actor))
        )
        while actor.threads:
            await asyncio.wait(set(actor.threads))
        await self._check_tasks_ended(actor)
        self.workers.remove(actor)
        if outcome is None and not actor.dead:
            self.real.queues.acknowledge(queue, [message.receipt for message in messages])

    async def run_scheduler(self, message: QueueMessage) -> None:
        """Invoke the scheduler with the message that names a shard.

        It is received again later if the scheduler dies or fails.
        """
        actor, shard = Actor(f"scheduler {next(self._numbers)}"), ShardMessage.from_json(message.body)
        assert shard is not None
        self.schedulers.append(actor)
        until = self.world.clock.now() + SCHEDULER_MS
        outcome = await self._process(actor, partial(serve_shard, self.world.container, shard, until))
        while actor.threads:
            await asyncio.wait(set(actor.threads))
        await self._check_tasks_ended(actor)
        self.schedulers.remove(actor)
        if not isinstance(outcome, BaseException):
            self.real.queues.acknowledge(SCHEDULE, [message.receipt])

    def _deadline(self, actor: Actor) -> Deadline | None:
        """Return the invocation's deadline, and have the worker killed at it."""
        if self.invocation is None:
            return None
        now = self.world.clock.now()
        self.world.loop.call_later(self.invocation, self._time_out, actor)
        return Deadline(started_at=now, ends_at=now + round(self.invocation * 1000))

    def _time_out(self, actor: Actor) -> None:
        if actor in self.workers:
            end(actor)

    async def _process(self, actor: Actor, work: Callable[[], Awaitable[Any]]) -> Any:
        """Run an actor's work as a task that can be killed. Return what it returned or raised."""

        async def run() -> Any:
            ACTOR.set(actor)
            return await work()

        actor.root = asyncio.ensure_future(run())
        await asyncio.wait([actor.root])
        actor.tasks.discard(actor.root)
        if actor.root.cancelled():
            return Killed()
        return actor.root.exception() or actor.root.result()

    async def _check_tasks_ended(self, actor: Actor) -> None:
        """End the tasks that an actor has left; a living one must not leave any.

        (protocol rule 20: a handler returns after its tasks)
        """
        while left := [task for task in actor.tasks if not task.done()]:
            if not actor.dead:
                self.history.problems.append(f"{actor.name} has ended before its tasks {left}")
            for task in left:
                task.cancel()
            await asyncio.wait(left)

    async def _offload(self, call: Callable[..., Any], *args: Any) -> Any:
        """Run a call as on a thread of the worker: it continues when its caller stops waiting."""
        actor = ACTOR.get()
        assert actor is not None
        if actor.dead:
            raise Killed
        thread = asyncio.ensure_future(run_in_greenlet(call, *args))
        actor.threads.add(thread)
        thread.add_done_callback(partial(_on_thread_end, actor))
        return await asyncio.shield(thread)

    def _parallel_map(self, call: Callable[[Any], Any], each: Iterable[Any]) -> list[Any]:
        """Make the calls as on threads of the process: they take turns at every call of a port."""
        if ACTOR.get() is None:
            return serial_map(call, each)

        async def run_all() -> list[Any]:
            return await asyncio.gather(*(run_in_greenlet(call, one) for one in each), return_exceptions=True)

        results = wait(run_all())
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results

    def close(self) -> None:
        """Cancel all tasks, and close the loop."""
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

    def replay_changes(self) -> None:
        """Put the whole change stream into the reader's queue again, as after a lost checkpoint."""
        for change in self.changes:
            self._changes.put_nowait(change)

    def _on_change(self, before: Job | None, new: Job) -> None:
        self.changes.append((new.id, before, new))
        self._changes.put_nowait(self.changes[-1])

    def _prompt_of(self, job_id: str) -> str:
        """Return the prompt that a worker sends for a job, with the results of its parents."""
        spec = self.real.job_specs.get(job_id)
        if spec is not None and spec.depends_on:
            spec = fill_parent_results_if_available(self.real.jobs, self.real.results, spec, job_types.get(self.job(job_id).type))
        return spec.prompt if spec else ""

    def _on_frame(self, connection: str, frame: dict[str, Any]) -> None:
        self.transmit(self._by_connection[connection], frame)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run `work` as a concurrent task."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _create_task(loop: asyncio.AbstractEventLoop, work: Any, **named: Any) -> asyncio.Task[Any]:
    """Create a task and register it with the current actor."""
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **named)
    actor = ACTOR.get()
    if actor is not None:
        actor.tasks.add(task)
    return task


def _on_thread_end(actor: Actor, thread: asyncio.Task[Any]) -> None:
    actor.threads.discard(thread)
    if not thread.cancelled():
        thread.exception()  # retrieved, or asyncio warns about it if its caller has stopped waiting


class _Keys:
    """The API keys: every key is valid."""

    def readers_of(self, _job: Job, key_hashes: Collection[str]) -> set[str]:
        return set(key_hashes)

    def caller(self, key_hash: str) -> Caller:
        return ALICE
