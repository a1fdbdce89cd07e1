"""The log event `job_failed`: one for each failed job, wherever its end was written."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from chalicelib.domain.failures import ProviderQuotaExhausted, StreamCut
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.jobs.transitions import MAX_ISOLATED_CRASHES
from chalicelib.services.worker.process_messages import process_messages
from tests.kit.failing_store import refusing
from tests.kit.provider import Script
from tests.kit.world import World

CUT = Script(deltas=["lost"], error=StreamCut())


def failures(world: World) -> list[dict[str, Any]]:
    return [fields for fact, fields in world.log_lines if fact == "job_failed"]


def expected(job: Job, code: str) -> dict[str, Any]:
    common = {"job_id": job.id, "tenant": "acme", "type": "general", "model": "gpt-4o-mini", "code": code}
    return {**common, "run": job.run, "attempt": job.attempt, "crashes": job.crashes}


def test_a_job_failure_is_logged_only_after_its_last_attempt() -> None:
    world = World(CUT, Script(error=ProviderQuotaExhausted()))
    job = world.submit()
    world.deliver()
    assert failures(world) == []

    world.clock.advance(60)
    world.deliver()

    assert failures(world) == [expected(world.job(job), "provider_quota_exhausted")]


@pytest.mark.parametrize("script", [Script(), CUT])
def test_completed_and_retrying_jobs_log_no_failure(script: Script) -> None:
    world = World(script)
    world.submit()

    world.deliver()

    assert failures(world) == []


def test_a_job_without_its_spec_logs_one_failure() -> None:
    world = World()
    job = world.submit()
    world.container.job_specs.delete(job.id)

    world.deliver()

    assert failures(world) == [expected(world.job(job), "content_gone")]


def test_a_job_given_up_by_the_sweeper_logs_one_failure() -> None:
    """Its retry window ended before another attempt started."""
    world = World(CUT)
    job = world.submit()
    world.deliver()
    world.container.queues.messages["normal"].clear()
    retrying = world.job(job)
    world.container.jobs.records[job.id] = replace(retrying, retry_until=world.clock.now())

    world.sweep(after=600)
    world.sweep(after=60)

    assert world.job(job).status is Status.FAILED
    assert failures(world) == [expected(world.job(job), "stream_cut")]


def test_a_job_that_crashes_its_workers_logs_one_failure() -> None:
    world = World(Script(deltas=["x"] * 100, every=0.1))
    job = world.submit()
    world.container.jobs.records[job.id] = replace(job, crashes=3, isolated_crashes=MAX_ISOLATED_CRASHES - 1)

    async def crash() -> None:
        worker = asyncio.ensure_future(process_messages(world.container, "normal", world.container.queues.receive("normal")))
        await asyncio.sleep(3)
        with refusing(world.container.leases, "close", 10**6):
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)

    world.loop.run_until_complete(crash())
    world.sweep(after=40)
    world.sweep(after=60)

    assert failures(world) == [expected(world.job(job), "worker_lost")]
