"""All queues of a world served at once, in virtual time: workers, tasks and the scheduler run side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from chalicelib.domain.queues.lanes import JOB_QUEUES, SCHEDULE
from chalicelib.services.maintenance.sweep_lines import sweep_lines
from chalicelib.services.maintenance.sweeper import sweep
from chalicelib.services.scheduling.scheduler import serve_shard
from chalicelib.services.scheduling.visits import ShardMessage
from chalicelib.services.worker.process_messages import process_messages
from tests.kit.world import World

POLL_SECONDS = 0.2
SCHEDULER_MS = 105_000  # of one invocation
SWEEP_MS = 60_000


def run_until(world: World, done: Callable[[], bool], seconds: float) -> bool:
    """Serve the queues, and sweep each minute, until `done()` or the time is over. Returns whether it is done."""
    return world.loop.run_until_complete(_run(world, done, seconds))


async def _run(world: World, done: Callable[[], bool], seconds: float) -> bool:
    queues, running = world.container.queues, set[asyncio.Task[Any]]()
    errors: list[BaseException] = []
    end, swept_at = world.clock.now() + round(seconds * 1000), world.clock.now()

    def ended(task: asyncio.Task[Any]) -> None:
        running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            errors.append(error)

    def spawn(work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.ensure_future(work)
        running.add(task)
        task.add_done_callback(ended)

    async def schedule(body: str, receipt: str) -> None:
        named = ShardMessage.from_json(body)
        assert named is not None
        await serve_shard(world.container, named, world.clock.now() + SCHEDULER_MS)
        queues.acknowledge(SCHEDULE, [receipt])

    async def work(name: str, size: int) -> None:
        messages = queues.receive(name, size)
        await process_messages(world.container, name, messages)
        queues.acknowledge(name, [message.receipt for message in messages])

    try:
        while not done() and world.clock.now() < end:
            for name, queue in JOB_QUEUES.items():
                while queues.depth(name):
                    spawn(work(name, queue.batch_size))
                    await asyncio.sleep(0)
            for message in queues.receive(SCHEDULE):
                spawn(schedule(message.body, message.receipt))
            if world.clock.now() - swept_at >= SWEEP_MS:
                swept_at = world.clock.now()
                sweep(world.container)
                sweep_lines(world.container, world.clock.now() + 40_000)
            await asyncio.sleep(POLL_SECONDS)
            if errors:
                raise errors[0]
        return done()
    finally:
        for task in list(running):
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
