"""What the exhaustive tests have found, each as its shortest interleaving."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from chalicelib.domain.errors import JobTypeNotFound
from chalicelib.domain.jobs import transitions
from chalicelib.domain.jobs.job import Status
from chalicelib.domain.jobs.job_type import JobType
from chalicelib.services.maintenance.sweeper import sweep
from chalicelib.services.worker.process_messages import process_messages
from tests.faults.cloud import Cloud
from tests.faults.report import problems_of, report, told
from tests.faults.scenarios import SCENARIOS, Scenario
from tests.faults.steps import Fault, Kind, Step
from tests.faults.zombie import NEVER, Zombie, frozen_story
from tests.kit.provider import Script
from tests.kit.time import run
from tests.kit.world import World


def _calls(cloud: Cloud, role: str, name: str) -> list[Step]:
    return [step for step in cloud.steps.trace if step.actor.role == role and step.name == name]


def _stopped_before_its_result(wakes: int) -> tuple[Cloud, list[str]]:
    """A worker stops when its text is whole and its result is not kept yet, and wakes at the others' call number `wakes`."""
    watching = Zombie(NEVER, NEVER)
    undisturbed = Cloud(director=watching)
    problems_of(undisturbed, Scenario(frozen_story("whole", watching)))
    own = [step.name for step in undisturbed.steps.trace if step.actor is watching.actor]
    zombie = Zombie(own.index("results.put") + 1, wakes)
    cloud = Cloud(director=zombie)
    return cloud, problems_of(cloud, Scenario(frozen_story("whole", zombie)))


def _woken_before(name: str) -> list[str]:
    """It wakes before the last call `name` of the sweep that takes its job."""
    cloud, _ = _stopped_before_its_result(NEVER)
    sweep = next(step.actor for step in cloud.steps.trace if step.name == "leases.fence")
    numbers = {step.number: step.name for step in cloud.steps.trace if step.actor is sweep and step.name != "leases.all"}
    wakes = max(index for index, called in enumerate(numbers.values(), 1) if called == name)
    return _stopped_before_its_result(wakes)[1]


def test_sweeper_keeps_the_result_of_a_worker_that_resumes() -> None:
    """The worker stores its result after the sweeper found none and estimated one."""
    for name in ("chunks.read", "job_specs.get", "jobs.replace"):
        assert not _woken_before(name)


def test_charged_usage_is_not_replaced_by_an_estimate() -> None:
    """The worker writes its row just before the sweeper's put."""
    assert not _woken_before("results.put_if_absent")


@pytest.mark.parametrize("name", ["dead_worker", "cancelled_and_retried"])
def test_death_of_the_sweeper_at_any_call_is_recovered(name: str) -> None:
    """The dead worker's job may have its next owner at once; every attempt gets its row."""
    dies = Fault(_calls(told(SCENARIOS[name])[0], "worker", "provider.delta")[1].number, Kind.DIES_AFTER)
    undisturbed, problems = told(SCENARIOS[name], [dies])
    assert not problems, report(name, dies, undisturbed, problems)
    [fence] = _calls(undisturbed, "sweep", "leases.fence")

    for step in undisturbed.steps.trace[fence.number - 1 :]:
        for kind in (Kind.DIES_BEFORE, Kind.DIES_AFTER, Kind.REFUSED):
            if step.actor is fence.actor:
                cloud, problems = told(SCENARIOS[name], [dies, Fault(step.number, kind)])
                assert not problems, report(name, f"{dies}, the sweep {step.name}: {kind}", cloud, problems)


def test_stored_result_has_its_whole_log() -> None:
    """The last chunk is refused, and the worker dies before it repeats the write."""
    undisturbed, _ = told(SCENARIOS["plain"])
    last = _calls(undisturbed, "worker", "chunks.append")[-1].number

    for died in range(last + 1, last + 8):
        cloud, problems = told(SCENARIOS["plain"], [Fault(last, Kind.REFUSED), Fault(died, Kind.DIES_BEFORE)])
        assert not problems, report("plain", f"refused at {last}, dies at {died}", cloud, problems)


def test_socket_writer_ends_with_a_worker_that_is_fenced_late() -> None:
    """Its heartbeat is refused while it cleans up after its refused terminal write."""

    async def offload(call: Any, *args: Any) -> Any:
        await asyncio.sleep(20 if getattr(call, "__name__", "") == "_work_out_ahead" else 0)
        return call(*args)

    world = World(Script(), offload=offload)
    job = world.submit()
    world.watch(job)

    async def take_back() -> None:
        while world.job(job).status is not Status.PROCESSING:
            await asyncio.sleep(0.01)
        [lease] = world.container.leases.rows.values()
        world.container.leases.fence(lease)
        seen = world.job(job)
        taken = transitions.reclaim(seen, lease.id, 0, None, world.clock.now())
        assert taken is not None
        world.container.jobs.replace(seen, taken)

    async def work() -> None:
        await asyncio.gather(
            process_messages(world.container, "normal", world.container.queues.receive("normal")), take_back(), return_exceptions=True
        )

    run(world.loop, work())  # which asserts that no task is left


def test_job_of_an_unknown_type_is_reclaimed_from_its_dead_worker() -> None:
    """The usage of the lost attempt cannot be estimated; the next claim reports the type."""
    world = World()
    job = world.submit()
    claimed = transitions.claim(job, 1, "lease#nonce", world.clock.now())
    assert claimed is not None
    world.container.jobs.replace(job, claimed)

    def gone(name: str) -> JobType:
        raise JobTypeNotFound(name)

    world.clock.advance(200)
    done = sweep(world.container.with_changes(job_type=gone))

    assert done["failed"] == 0
    assert world.job(job).status is Status.QUEUED
