"""The services on in-memory twins, with a scripted provider, in virtual time."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from typing import Any, cast

from chalicelib.domain.auth.identity import Caller, Role
from chalicelib.domain.execution.deadline import Deadline
from chalicelib.domain.ids import batch_id
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.jobs.submission import Submission
from chalicelib.domain.queues.lanes import JOB_QUEUES, READY, SCHEDULE, WORK
from chalicelib.domain.queues.wakeup import WakeUp
from chalicelib.domain.streaming.subscriptions import Subscription
from chalicelib.ports import QueueMessage
from chalicelib.services.jobs.plan_job import plan_job
from chalicelib.services.jobs.submit_job import submit_job
from chalicelib.services.maintenance.context import SweepResult
from chalicelib.services.maintenance.sweep_lines import sweep_lines
from chalicelib.services.maintenance.sweeper import sweep
from chalicelib.services.scheduling.scheduler import serve_shard
from chalicelib.services.scheduling.visits import ShardMessage
from chalicelib.services.worker.process_messages import process_messages
from cli.reducer import Resubscribe, TextAssembler
from tests.kit.container import InMemoryContainer
from tests.kit.failing_store import refusing
from tests.kit.provider import Script, ScriptedProvider
from tests.kit.time import JumpingLoop, LoopClock, run

API_URL = "https://api.example/api"
ALICE = Caller(tenant="acme", user="alice", role=Role.USER, key_id="key_1", key_hash="hash")


class World:
    """A container, its clock and its event loop. `changes` replace members of the container."""

    def __init__(self, *scripts: Script, **changes: Any) -> None:
        self.loop = JumpingLoop()
        self.clock = LoopClock(self.loop)
        self.provider = ScriptedProvider(*scripts)
        self.log_lines: list[tuple[str, dict[str, Any]]] = []
        self.container = InMemoryContainer(clock=cast(Any, self.clock), loop=self.loop)
        numbers, batches = itertools.count(1), itertools.count(1)
        members: dict[str, Any] = {
            "provider": self.provider,
            "log_lines": self.log_lines,
            "readers_of": lambda _job, key_hashes: set(key_hashes),
            "caller_by_key_hash": lambda _hash: ALICE,
            "random": lambda: 0.5,
            "new_id": lambda: f"{next(numbers):026d}",
            "new_batch_id": lambda: batch_id(f"{next(batches):022d}0000"),
            **changes,
        }
        vars(self.container).update(members)

    def sweep(self, after: float = 0.0) -> Counter[SweepResult]:
        """Advance the clock by `after` seconds, and run the sweeper once."""
        self.clock.advance(after)
        return sweep(self.container) + sweep_lines(self.container, self.clock.now() + 40_000)

    def submit(self, prompt: str | None = "Say hello.", key: str | None = None, caller: Caller = ALICE, **fields: Any) -> Job:
        submission = Submission(prompt=prompt, **fields)
        plan = plan_job(self.container.job_type, self.container.prices, caller, submission, 0, self.container.throughput_of)
        return submit_job(self.container, caller, submission, plan, key=key, request=[prompt, sorted(fields)]).job

    def deliver(self, queue: str | None = None, messages: list[QueueMessage] | None = None, seconds: float | None = None) -> None:
        """Invoke a worker with these messages, or with those that the queue holds now.

        A worker of a lane gets all of them. Tasks get a worker each, one after another. Without a
        queue: `normal`, then the tasks, then what the scheduler releases. An invocation's deadline
        is in `seconds`.
        """
        queues = self.container.queues
        name = queue or "normal"
        received = {name: queues.receive(name) if messages is None else messages}
        if queue is None and messages is None:
            received[WORK.name] = queues.receive(WORK.name)
        tasks = [[message] for message in received.pop(WORK.name, ())]
        for invoked, batch in [*received.items(), *((WORK.name, task) for task in tasks)]:
            now = self.clock.now()
            deadline = Deadline(started_at=now, ends_at=now + round(seconds * 1000)) if seconds is not None else None
            run(self.loop, process_messages(self.container, invoked, batch, deadline=deadline))
        if queue is None and messages is None:
            self.schedule()
            if released := queues.receive(READY.name):
                self.deliver(READY.name, released)

    def schedule(self, seconds: float = 1.0) -> None:
        """Let the scheduler serve, for so long, the shards whose messages have come."""
        queues = self.container.queues
        for message in queues.receive(SCHEDULE, 1_000):
            named = ShardMessage.from_json(message.body)
            assert named is not None
            run(self.loop, serve_shard(self.container, named, self.clock.now() + round(seconds * 1000)))
            queues.acknowledge(SCHEDULE, [message.receipt])

    def wake(self, job: Job, generation: int | None = None) -> QueueMessage:
        """Return a wake-up message of a job."""
        return QueueMessage(WakeUp(job.id, generation or job.generation).to_json(), f"r{self.container.new_id()}")

    def watch(self, job: Job, connection: str = "c1", attempt: int = 0, offset: int = 0, expires_in: float = 7_200.0) -> None:
        """Add a subscription of a connection to a job."""
        subscription = Subscription(
            job_id=job.id,
            connection_id=connection,
            endpoint="https://ws/api",
            key_hash="hash",
            attempt=attempt,
            offset=offset,
            subscription_id=self.container.new_id(),
            expires_at=self.clock.now() + round(expires_in * 1000),
        )
        self.container.subscriptions.add(subscription)

    def job(self, job: Job) -> Job:
        found = self.container.jobs.get(job.id)
        assert found is not None
        return found

    def frames(self, connection: str = "c1", *events: str) -> list[dict[str, Any]]:
        return self.container.sockets.events(connection, events)

    def assembled(self, connection: str = "c1") -> TextAssembler:
        """Return what a client holds after all frames of a connection.

        Fail if it would have to subscribe again.
        """
        assembly = TextAssembler()
        for frame in self.frames(connection):
            resubscribed = [outcome for outcome in assembly.receive(frame) if isinstance(outcome, Resubscribe)]
            assert not resubscribed, f"the client had to subscribe again: {resubscribed}"
        return assembly

    def log_text(self, job: Job, attempt: int = 1) -> str:
        """Return the text that is stored as chunks."""
        chunks = self.container.chunks.read(job.id, attempt)
        at = 0
        for chunk in chunks:
            assert chunk.start == at, "the chunks have a hole or an overlap"
            at = chunk.end
        return "".join(chunk.text for chunk in chunks)


def kill(world: World, seconds: float, messages: list[QueueMessage] | None = None) -> None:
    """Run a worker and kill it after `seconds`: that of tasks if one waits, else that of `normal`.

    Its lease stays open, because a killed process runs no `finally`.
    """
    queue = WORK.name if messages is None and world.container.queues.depth(WORK.name) else "normal"
    received = world.container.queues.receive(queue, JOB_QUEUES[queue].batch_size) if messages is None else messages

    async def work() -> None:
        worker = asyncio.ensure_future(process_messages(world.container, queue, received))
        await asyncio.sleep(seconds)
        with refusing(world.container.leases, "close", 10**6):
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)

    world.loop.run_until_complete(work())
