"""Everything at once: an engine on the in-memory twins, with a scripted provider, on a loop whose time jumps."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any

from chalicelib import job_types
from chalicelib.adapters.memory.all import InMemoryAdapters, run_inline
from chalicelib.adapters.runtime.threads import serial_map
from chalicelib.adapters.webhooks.signing import signed_headers
from chalicelib.domain.auth.identity import Caller, Role
from chalicelib.domain.execution.deadline import Deadline
from chalicelib.domain.ids import batch_id
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.jobs.submission import Submission
from chalicelib.domain.queues.wakeup import WakeUp
from chalicelib.domain.streaming.subscriptions import Subscription
from chalicelib.ports import QueueMessage
from chalicelib.services.batches.context import BatchContext
from chalicelib.services.batches.notify_completion import notify_batch_completed
from chalicelib.services.dependencies.release_dependents import DependencyContext
from chalicelib.services.jobs.bulk_operations import BulkContext
from chalicelib.services.jobs.edit_job import EditContext
from chalicelib.services.jobs.plan_job import plan_job
from chalicelib.services.jobs.submit_job import SubmitContext, submit_job
from chalicelib.services.maintenance.context import SweepContext
from chalicelib.services.maintenance.sweeper import sweep
from chalicelib.services.metrics.throughput_cache import ThroughputCache
from chalicelib.services.notifications.outbox import NotificationContext
from chalicelib.services.notifications.settings import new_signing_secret
from chalicelib.services.streaming.subscriptions import StreamingContext
from chalicelib.services.worker.context import WorkerContext
from chalicelib.services.worker.process_messages import process_messages
from chalicelib.services.worker.stream_response import cancel_response
from chalicelib.services.worker.task_context import TaskContext
from cli.reducer import Ask, Assembly
from tests.kit.failing_store import refusing
from tests.kit.provider import Script, ScriptedProvider
from tests.kit.time import JumpingLoop, LoopClock, run

API_URL = "https://api.example/api"
ALICE = Caller(tenant="acme", user="alice", role=Role.USER, key_id="key_1", key_hash="hash")


class World:
    """`deliver` runs a worker on what a lane's queue holds; `text_of` is what a watcher's client has put together."""

    def __init__(self, *scripts: Script, **changes: Any) -> None:
        self.loop = JumpingLoop()
        self.clock = LoopClock(self.loop)
        self.memory = InMemoryAdapters(clock=self.clock)  # type: ignore[arg-type]
        self.provider = ScriptedProvider(*scripts)
        self.facts: list[tuple[str, dict[str, Any]]] = []
        numbers, batches = itertools.count(1), itertools.count(1)
        self.new_batch_id: Callable[[], str] = lambda: batch_id(f"{next(batches):022d}0000")
        self.new_id: Callable[[], str] = lambda: f"{next(numbers):026d}"
        memory = self.memory
        ports: dict[str, Any] = {
            name: getattr(memory, name)
            for name in (
                "jobs",
                "job_specs",
                "chunks",
                "results",
                "subscriptions",
                "connections",
                "leases",
                "circuit_breakers",
                "cache",
                "type_limiters",
                "queues",
                "sockets",
                "prices",
            )
        }
        self.speeds = ThroughputCache(memory.throughput, self.clock, self._log)
        self.engine = WorkerContext(
            **{
                **ports,
                "clock": self.clock,
                "offload": run_inline,
                "offload_sends": run_inline,
                "log": self._log,
                "provider": self.provider,
                "task_context": self._tools(),
                "job_type": job_types.get,
                "throughput_of": self.speeds.get,
                "may_stream": lambda _hash, _job: True,
                "new_id": self.new_id,
                "random": lambda: 0.5,
                **changes,
            }
        )
        self.intake = SubmitContext(
            clock=self.clock,
            log=self._log,
            jobs=memory.jobs,
            job_specs=memory.job_specs,
            dependencies=memory.dependencies,
            queues=memory.queues,
            new_id=self.new_id,
            queue_limit=1000,
        )
        self.gallery = StreamingContext(
            clock=self.clock,
            jobs=memory.jobs,
            chunks=memory.chunks,
            results=memory.results,
            subscriptions=memory.subscriptions,
            connections=memory.connections,
            sockets=memory.sockets,
            new_id=self.new_id,
            caller_by_key_hash=lambda _hash: ALICE,
        )

    def _tools(self) -> TaskContext:
        memory = self.memory
        return TaskContext(
            clock=self.clock,
            log=self._log,
            jobs=memory.jobs,
            job_specs=memory.job_specs,
            results=memory.results,
            job_data=memory.job_data,
            queues=memory.queues,
            subscriptions=memory.subscriptions,
            job_files=memory.job_files,
            uploads=memory.uploads,
            cache=memory.cache,
            batch_context=lambda: self.clerk,
            notification_context=lambda: self.office,
            new_id=self.new_id,
            job_type=job_types.get,
        )

    @property
    def broom(self) -> SweepContext:
        memory = self.memory
        return SweepContext(
            clock=self.clock,
            log=self._log,
            jobs=memory.jobs,
            chunks=memory.chunks,
            results=memory.results,
            leases=memory.leases,
            queues=memory.queues,
            job_specs=memory.job_specs,
            dependencies=memory.dependencies,
            prices=memory.prices,
            subscriptions=memory.subscriptions,
            connections=memory.connections,
            sockets=memory.sockets,
            job_type=self.engine.job_type,
            cancel_response=self._abandon,
        )

    @property
    def doorkeeper(self) -> DependencyContext:
        memory = self.memory
        return DependencyContext(
            clock=self.clock,
            log=self._log,
            jobs=memory.jobs,
            dependencies=memory.dependencies,
            queues=memory.queues,
            parallel_map=serial_map,
        )

    @property
    def editor(self) -> EditContext:
        memory = self.memory
        return EditContext(clock=self.clock, log=self._log, jobs=memory.jobs, job_specs=memory.job_specs, queues=memory.queues)

    @property
    def desk(self) -> BulkContext:
        memory = self.memory
        return BulkContext(
            clock=self.clock,
            log=self._log,
            jobs=memory.jobs,
            job_specs=memory.job_specs,
            job_data=memory.job_data,
            queues=memory.queues,
            subscriptions=memory.subscriptions,
            bulk_operations=memory.bulk_operations,
            new_id=self.new_id,
        )

    @property
    def office(self) -> NotificationContext:
        memory = self.memory
        return NotificationContext(
            clock=self.clock,
            log=self._log,
            deliveries=memory.deliveries,
            notification_settings=memory.notification_settings,
            queues=memory.queues,
            webhook_client=memory.webhook_client,
            email=memory.email,
            sign=signed_headers,
            new_secret=new_signing_secret,
            random=lambda: 0.5,
        )

    @property
    def clerk(self) -> BatchContext:
        memory = self.memory
        return BatchContext(
            clock=self.clock,
            log=self._log,
            jobs=memory.jobs,
            job_specs=memory.job_specs,
            dependencies=memory.dependencies,
            queues=memory.queues,
            subscriptions=memory.subscriptions,
            prices=memory.prices,
            job_type=job_types.get,
            batches=memory.batches,
            batch_rows=memory.batch_rows,
            counters=memory.counters,
            bulk=self.desk,
            new_id=self.new_id,
            new_batch_id=self.new_batch_id,
            parallel_map=serial_map,
            queue_limit=1000,
            throughput_of=self.speeds.get,
            notify_completed=lambda batch, counts: notify_batch_completed(self.office, API_URL, batch, counts),
            streaming=self.gallery,
        )

    def _abandon(self, response_id: str) -> None:
        run(self.loop, cancel_response(self.provider, self._log, response_id))

    def sweep(self, after: float = 0.0) -> Counter[str]:
        """Let time pass, and sweep once."""
        self.clock.advance(after)
        return sweep(self.broom)

    def submit(self, prompt: str | None = "Say hello.", key: str | None = None, caller: Caller = ALICE, **fields: Any) -> Job:
        submission = Submission(prompt=prompt, **fields)
        plan = plan_job(self.engine.job_type, self.memory.prices, caller, submission, 0, self.speeds.get)
        return submit_job(self.intake, caller, submission, plan, key=key, request=[prompt, sorted(fields)]).job

    def deliver(self, lane: str = "normal", messages: list[QueueMessage] | None = None, seconds: float | None = None) -> None:
        """One invocation of a worker, on the given messages or on whatever its queue holds now; it is over after so many seconds."""
        received, now = self.memory.queues.receive(lane) if messages is None else messages, self.clock.now()
        deadline = Deadline(started_at=now, ends_at=now + round(seconds * 1000)) if seconds is not None else None
        run(self.loop, process_messages(self.engine, lane, received, deadline=deadline))

    def wake(self, job: Job, generation: int | None = None) -> QueueMessage:
        return QueueMessage(WakeUp(job.id, generation or job.generation).to_json(), f"r{self.new_id()}")

    def watch(self, job: Job, connection: str = "c1", attempt: int = 0, offset: int = 0, expires_in: float = 7_200.0) -> None:
        watcher = Subscription(
            job_id=job.id,
            connection_id=connection,
            endpoint="https://ws/api",
            key_hash="hash",
            attempt=attempt,
            offset=offset,
            subscription_id=self.new_id(),
            expires_at=self.clock.now() + round(expires_in * 1000),
        )
        self.memory.subscriptions.add(watcher)

    def job(self, job: Job) -> Job:
        found = self.memory.jobs.get(job.id)
        assert found is not None
        return found

    def frames(self, connection: str = "c1", *events: str) -> list[dict[str, Any]]:
        return self.memory.sockets.events(connection, events)

    def assembled(self, connection: str = "c1") -> Assembly:
        """What a client that keeps the rules holds, after all frames of a connection."""
        assembly = Assembly()
        for frame in self.frames(connection):
            asked = [outcome for outcome in assembly.receive(frame) if isinstance(outcome, Ask)]
            assert not asked, f"a client had to ask again: {asked}"
        return assembly

    def log_text(self, job: Job, attempt: int = 1) -> str:
        chunks = self.memory.chunks.read(job.id, attempt)
        at = 0
        for chunk in chunks:
            assert chunk.start == at, "the log has a hole or an overlap"
            at = chunk.end
        return "".join(chunk.text for chunk in chunks)

    def _log(self, fact: str, **fields: Any) -> None:
        self.facts.append((fact, fields))


def kill(world: World, seconds: float, messages: list[QueueMessage] | None = None) -> None:
    """A worker takes what waits, and is killed so many seconds later: no `finally` of it has any effect outside."""
    received = world.memory.queues.receive("normal") if messages is None else messages

    async def work() -> None:
        worker = asyncio.ensure_future(process_messages(world.engine, "normal", received))
        await asyncio.sleep(seconds)
        with refusing(world.memory.leases, "close", 10**6):
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)

    world.loop.run_until_complete(work())
