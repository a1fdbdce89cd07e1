"""Defects that the exhaustive tests have found, each as its shortest interleaving."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from chalicelib.domain.errors import JobTypeNotFound
from chalicelib.domain.jobs import transitions
from chalicelib.domain.jobs.job import Status
from chalicelib.domain.jobs.job_type import JobType
from chalicelib.services.maintenance.sweeper import sweep
from chalicelib.services.worker import run_attempt
from chalicelib.services.worker.process_messages import process_messages
from tests.faults.report import failure_report, problems_of, run_scenario
from tests.faults.scenarios import SCENARIOS, Scenario
from tests.faults.simulation import Simulation
from tests.faults.steps import Fault, Kind, Step
from tests.faults.zombie import NEVER, Zombie, frozen_scenario
from tests.kit.provider import Script
from tests.kit.time import run
from tests.kit.world import World


def _calls(sim: Simulation, role: str, name: str) -> list[Step]:
    return [step for step in sim.steps.trace if step.actor.role == role and step.name == name]


def _frozen_before_its_result(resumes_at: int) -> tuple[Simulation, list[str]]:
    """Freeze a worker before it stores its result, until the others' call `resumes_at`."""
    never = Zombie(NEVER, NEVER)
    undisturbed = Simulation(director=never)
    problems_of(undisturbed, Scenario(frozen_scenario("whole", never)))
    own = [step.name for step in undisturbed.steps.trace if step.actor is never.actor]
    zombie = Zombie(own.index("results.put") + 1, resumes_at)
    sim = Simulation(director=zombie)
    return sim, problems_of(sim, Scenario(frozen_scenario("whole", zombie)))


def _problems_when_resumed_before(name: str) -> list[str]:
    """Resume the worker before the last call `name` of the sweep that takes its job."""
    sim, _ = _frozen_before_its_result(NEVER)
    sweep = next(step.actor for step in sim.steps.trace if step.name == "leases.fence")
    numbers = {step.number: step.name for step in sim.steps.trace if step.actor is sweep and step.name != "leases.all"}
    resumes_at = max(index for index, called in enumerate(numbers.values(), 1) if called == name)
    return _frozen_before_its_result(resumes_at)[1]


def test_sweeper_keeps_the_result_of_a_worker_that_resumes() -> None:
    """The worker stores its result after the sweeper found none and estimated one."""
    for name in ("chunks.read", "job_specs.get", "jobs.replace"):
        assert not _problems_when_resumed_before(name)


def test_charged_usage_is_not_replaced_by_an_estimate() -> None:
    """The worker writes its row just before the sweeper's put."""
    assert not _problems_when_resumed_before("results.put_if_absent")


@pytest.mark.parametrize("name", ["dead_worker", "cancelled_and_retried"])
def test_death_of_the_sweeper_at_any_call_is_recovered(name: str) -> None:
    """The dead worker's job may have its next owner at once; every attempt gets its row."""
    death = Fault(_calls(run_scenario(SCENARIOS[name])[0], "worker", "provider.delta")[1].number, Kind.DIES_AFTER)
    undisturbed, problems = run_scenario(SCENARIOS[name], [death])
    assert not problems, failure_report(name, death, undisturbed, problems)
    [fence] = _calls(undisturbed, "sweep", "leases.fence")

    for step in undisturbed.steps.trace[fence.number - 1 :]:
        for kind in (Kind.DIES_BEFORE, Kind.DIES_AFTER, Kind.REFUSED):
            if step.actor is fence.actor:
                sim, problems = run_scenario(SCENARIOS[name], [death, Fault(step.number, kind)])
                assert not problems, failure_report(name, f"{death}, the sweeper's {step.name}: {kind}", sim, problems)


def test_stored_result_has_its_whole_log() -> None:
    """The last chunk is refused, and the worker dies before it repeats the write."""
    undisturbed, _ = run_scenario(SCENARIOS["plain"])
    last = _calls(undisturbed, "worker", "chunks.append")[-1].number

    for died in range(last + 1, last + 8):
        sim, problems = run_scenario(SCENARIOS["plain"], [Fault(last, Kind.REFUSED), Fault(died, Kind.DIES_BEFORE)])
        assert not problems, failure_report("plain", f"refused at {last}, dies at {died}", sim, problems)


def test_socket_writer_ends_with_a_worker_that_is_fenced_late() -> None:
    """Its heartbeat is refused while it cleans up after its refused terminal write."""

    delayed = []

    async def offload(call: Any, *args: Any) -> Any:
        """Delay the lookups of the attempt, which its cleanup awaits.

        All other calls are those of ports.
        """
        if type(getattr(call, "__self__", None)).__module__ == run_attempt.__name__:
            delayed.append(call)
            await asyncio.sleep(20)
        return call(*args)

    world = World(Script(), offload=offload)
    job = world.submit()
    world.watch(job)

    async def reclaim() -> None:
        while world.job(job).status is not Status.PROCESSING:
            await asyncio.sleep(0.01)
        [lease] = world.container.leases.rows.values()
        world.container.leases.fence(lease)
        seen = world.job(job)
        reclaimed = transitions.reclaim(seen, lease.id, 0, None, world.clock.now())
        assert reclaimed is not None
        world.container.jobs.replace(seen, reclaimed)

    async def work() -> None:
        await asyncio.gather(
            process_messages(world.container, "normal", world.container.queues.receive("normal")), reclaim(), return_exceptions=True
        )

    run(world.loop, work())  # asserts that no task is left
    assert delayed


def test_job_of_an_unknown_type_is_reclaimed_from_its_dead_worker() -> None:
    """The usage of the lost attempt cannot be estimated; the next claim reports the type."""
    world = World()
    job = world.submit()
    claimed = transitions.claim(job, 1, "lease#nonce", world.clock.now())
    assert claimed is not None
    world.container.jobs.replace(job, claimed)

    def unknown(name: str) -> JobType:
        raise JobTypeNotFound(name)

    world.clock.advance(200)
    results = sweep(world.container.with_changes(job_type=unknown))

    assert results["failed"] == 0
    assert world.job(job).status is Status.QUEUED
