"""Work that is no OpenAI call, for tests: types whose work is a function at hand, and a cloud that goes on until they have ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from chalicelib import job_types
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.jobs.job_type import JobType, Limits, TaskHandler
from chalicelib.services.worker.process_messages import process_messages
from tests.kit.world import World


def chore(work: TaskHandler, *, name: str = "chore", limits: Limits | None = None, **more: Any) -> JobType:
    """A type that takes any input."""
    about = {"title": "Chore", "description": "Something to do.", "instructions": "", "input_schema": {}}
    return JobType(name=name, **{"stages": ("setup", "doing", "finalization"), **about, **more}, handler=work, limits=limits)


def knowing(*kinds: JobType) -> Callable[[str], JobType]:
    """The types of the deployment, and these."""
    known = {kind.name: kind for kind in kinds}
    return lambda name: known.get(name) or job_types.get(name)


def doing(work: TaskHandler, *, limits: Limits | None = None, **more: Any) -> World:
    """A world that knows the type `chore`."""
    return World(job_type=knowing(chore(work, limits=limits, **more)))


def rest(world: World, jobs: Sequence[Job], seconds: float = 7_200, lane: str = "normal") -> None:
    """Messages are delivered as they come due, each batch by a worker of its own, and the sweep runs every minute, until all have ended."""

    async def go_on() -> None:
        end, swept, workers = world.clock.now() + round(seconds * 1000), 0, set[asyncio.Task[None]]()
        while not all(world.job(job).status.is_terminal for job in jobs):
            assert world.clock.now() < end, [(world.job(job).status, world.job(job).reason) for job in jobs]
            while messages := world.container.queues.receive(lane):
                workers.add(asyncio.ensure_future(process_messages(world.container, lane, messages)))
            if world.clock.now() // 60_000 != swept:
                swept = world.clock.now() // 60_000
                world.sweep()
            await asyncio.sleep(0.25)
        await asyncio.gather(*workers)

    world.loop.run_until_complete(go_on())
