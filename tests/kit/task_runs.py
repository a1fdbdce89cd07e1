"""Runs of task handlers: calls slow enough to kill a worker between them, and parsed results."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from chalicelib.domain.jobs.job import Job, Status
from tests.kit.world import World


async def slow_offload(call: Callable[..., Any], *args: Any) -> Any:
    """Run a call and wait half a second, so that a test can kill the worker in between."""
    answer = call(*args)
    await asyncio.sleep(0.5)
    return answer


def parsed_result(world: World, job: Job) -> Any:
    """Return the parsed result of a job, which must have completed."""
    ended = world.job(job)
    assert ended.status is Status.COMPLETED, ended.error
    kept = world.container.results.get(job.id, ended.attempt)
    assert kept is not None
    return kept.parsed
