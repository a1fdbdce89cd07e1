"""Job types with a task handler, and a loop that runs their jobs to the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from chalicelib import job_types
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.jobs.job_type import JobType, Limits, TaskHandler
from chalicelib.domain.queues.lanes import JOB_QUEUES, READY, SCHEDULE, WORK
from chalicelib.ports import QueueMessage
from chalicelib.services.scheduling.scheduler import RUN_MS, serve_shard
from chalicelib.services.scheduling.visits import ShardMessage
from chalicelib.services.worker.process_messages import process_messages
from tests.kit.world import World


def chore(work: TaskHandler, *, name: str = "chore", limits: Limits | None = None, **more: Any) -> JobType:
    """Return a job type whose handler is `work`. It accepts any input."""
    texts = {"title": "Chore", "description": "Something to do.", "instructions": "", "input_schema": {}}
    return JobType(name=name, **{"stages": ("setup", "doing", "finalization"), **texts, **more}, handler=work, limits=limits)


def with_job_types(*kinds: JobType) -> Callable[[str], JobType]:
    """Return a lookup of the deployed job types and these."""
    added = {kind.name: kind for kind in kinds}
    return lambda name: added.get(name) or job_types.get(name)


def chore_world(work: TaskHandler, *, limits: Limits | None = None, **more: Any) -> World:
    """Return a world that also has the job type `chore`."""
    return World(job_type=with_job_types(chore(work, limits=limits, **more)))


def run_to_end(
    world: World, jobs: Sequence[Job], seconds: float = 7_200, queues: Sequence[str] = ("normal", READY.name, WORK.name)
) -> None:
    """Deliver due messages to workers and to the scheduler, and sweep every minute, until all `jobs` have ended.

    A queue has as many workers at once as on AWS.
    """
    running = {queue: asyncio.Semaphore(JOB_QUEUES[queue].max_concurrency) for queue in queues}

    async def work(queue: str, messages: list[QueueMessage]) -> None:
        async with running[queue]:
            await process_messages(world.container, queue, messages)

    async def schedule(message: QueueMessage) -> None:
        named = ShardMessage.from_json(message.body)
        assert named is not None
        await serve_shard(world.container, named, world.clock.now() + RUN_MS)
        world.container.queues.acknowledge(SCHEDULE, [message.receipt])

    async def loop() -> None:
        end, swept, workers = world.clock.now() + round(seconds * 1000), 0, set[asyncio.Task[None]]()
        while not all(world.job(job).status.is_terminal for job in jobs):
            assert world.clock.now() < end, [(world.job(job).status, world.job(job).reason) for job in jobs]
            for queue in queues:
                while messages := world.container.queues.receive(queue, JOB_QUEUES[queue].batch_size):
                    workers.add(asyncio.ensure_future(work(queue, messages)))
            for message in world.container.queues.receive(SCHEDULE):
                workers.add(asyncio.ensure_future(schedule(message)))
            if world.clock.now() // 60_000 != swept:
                swept = world.clock.now() // 60_000
                world.sweep()
            await asyncio.sleep(0.25)
        for worker in workers:
            if not worker.done():
                worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)

    world.loop.run_until_complete(loop())
