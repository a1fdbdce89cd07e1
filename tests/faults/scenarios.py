"""Scenarios: requests of users, and the statuses that their jobs may end with."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any

from chalicelib.domain.failures import ProviderQuotaExhausted, StreamCut
from chalicelib.domain.jobs.job import Status, Usage
from chalicelib.domain.jobs.job_type import Limits
from chalicelib.domain.limits.circuit_breaker import FAILURE_THRESHOLD, CircuitBreaker, force_open, origin_of, record_failure
from chalicelib.domain.limits.rate_limit import ACCOUNT, RateLimit
from chalicelib.domain.limits.tenant_limits import TenantLimits
from chalicelib.domain.queues.causes import CauseKind, cause_of
from chalicelib.services.operations.force_circuit import close_circuit
from chalicelib.services.scheduling.visits import ask_for_visit
from chalicelib.services.worker.run_task import TaskRun
from tests.faults.provider import ScriptedAnswer
from tests.faults.simulation import LANE, Simulation
from tests.faults.steps import ACTOR, FREEZES, end
from tests.kit.deliveries import HOOK
from tests.kit.task_types import chore, with_job_types

MODEL = "gpt-4o-mini"
ScenarioFunction = Callable[[Simulation], Coroutine[Any, Any, None]]


async def plain(sim: Simulation) -> None:
    """One job, one answer, one subscriber."""
    await sim.watch(await sim.submit("plain", ScriptedAnswer(pieces=4, every=2.2)))


async def failing_first(sim: Simulation) -> None:
    """The first stream is cut, the second attempt completes."""
    await sim.watch(await sim.submit("failing", ScriptedAnswer(pieces=2, error=StreamCut()), ScriptedAnswer(pieces=3)))


async def cancelled(sim: Simulation) -> None:
    """The job is cancelled while it runs."""
    job = await sim.submit("cancelled", ScriptedAnswer(pieces=12, every=0.5))
    await sim.watch(job)
    await sim.until(lambda: sim.job(job).attempt > 0, 300)
    await asyncio.sleep(2.3)
    await sim.cancel(job)


async def retried(sim: Simulation) -> None:
    """The job fails with a permanent error, and its owner retries it."""
    job = await sim.submit("retried", ScriptedAnswer(pieces=2, error=ProviderQuotaExhausted()), ScriptedAnswer(pieces=3))
    await sim.watch(job)
    await sim.until(lambda: sim.job(job).status.is_terminal)
    if sim.job(job).status is Status.FAILED:
        await sim.retry(job)


async def cancelled_and_retried(sim: Simulation) -> None:
    """The job is cancelled while it runs, and its owner retries it."""
    job = await sim.submit("wanted", ScriptedAnswer(pieces=12, every=0.5), ScriptedAnswer(pieces=2))
    await sim.watch(job)
    await sim.until(lambda: sim.job(job).attempt > 0, 300)
    await asyncio.sleep(1.2)
    await sim.cancel(job)
    await sim.until(lambda: sim.job(job).status.is_terminal)
    if sim.job(job).status is Status.CANCELLED:
        await sim.retry(job)


async def dead_worker(sim: Simulation) -> None:
    """The first worker dies in mid-stream, and the sweeper requeues the job."""
    job = await sim.submit("dead", ScriptedAnswer(pieces=8, every=0.6), ScriptedAnswer(pieces=2))
    await sim.watch(job)
    await sim.until(lambda: len(sim.real.chunks.rows) > 1, 300)
    for worker in sim.workers:
        end(worker)


async def two_jobs(sim: Simulation) -> None:
    """Two jobs, one of which needs two attempts."""
    jobs = [
        await sim.submit("first", ScriptedAnswer(pieces=3)),
        await sim.submit("second", ScriptedAnswer(pieces=1, error=StreamCut()), ScriptedAnswer(pieces=2)),
    ]
    for job in jobs:
        await sim.watch(job)


async def durable(sim: Simulation) -> None:
    """A durable job, whose response continues without its worker."""
    await sim.watch(await sim.submit("durable", ScriptedAnswer(pieces=5, every=2.2), config={"durable": True}))


async def handed_over(sim: Simulation) -> None:
    """One answer passes through three invocations."""
    sim.invocation = 10.0
    await sim.watch(await sim.submit("handed over", ScriptedAnswer(pieces=8, every=2.2), config={"durable": True}))


async def not_resumed(sim: Simulation) -> None:
    """The worker dies, its stream can no longer be resumed, and the rest is fetched."""
    job = await sim.submit("not resumed", ScriptedAnswer(pieces=5, every=2.2, streams_for=1.0), config={"durable": True})
    await sim.watch(job)
    await sim.until(lambda: len(sim.real.chunks.rows) > 0, 300)
    for worker in sim.workers:
        end(worker)


async def durable_cancelled(sim: Simulation) -> None:
    """A durable job is cancelled while it runs, or between two workers."""
    sim.invocation = 10.0
    job = await sim.submit("durable cancelled", ScriptedAnswer(pieces=12, every=1.5), config={"durable": True})
    await sim.watch(job)
    await sim.until(lambda: sim.job(job).attempt > 0, 300)
    await asyncio.sleep(7.99)
    await sim.cancel(job)


async def cached(sim: Simulation) -> None:
    """The job reads the cache before each attempt, and stores its response there."""
    await sim.watch(
        await sim.submit("cached", ScriptedAnswer(pieces=2, error=StreamCut()), ScriptedAnswer(pieces=3), config={"cache": True})
    )


async def found(sim: Simulation) -> None:
    """Two equal requests in sequence.

    The second gets the cached response of the first, if that was stored.
    """
    first = await sim.submit("equal", ScriptedAnswer(pieces=2), config={"cache": True})
    await sim.until(lambda: sim.job(first).status.is_terminal and not sim.workers, 600)
    await sim.watch(await sim.submit("equal", ScriptedAnswer(pieces=3), key="equal again", config={"cache": True}))


async def circuit(sim: Simulation) -> None:
    """The next failure opens the circuit. Two jobs wait, one of them probes, and both complete."""
    failing, now = CircuitBreaker(model=MODEL), sim.world.clock.now()
    for number in range(FAILURE_THRESHOLD - 1):
        failing = record_failure(
            failing, "provider_unavailable", now, origin_of("m", ("acme", "other")[number % 2], f"before {number}"), now
        )
    sim.real.circuit_breakers.replace(CircuitBreaker(model=MODEL), replace(failing, version=1))
    first = await sim.submit("opening", ScriptedAnswer(pieces=1, error=StreamCut()), ScriptedAnswer(pieces=3))
    await sim.watch(first)
    await sim.until(lambda: sim.job(first).attempt > 0 and sim.job(first).status is not Status.PROCESSING, 300)
    await sim.watch(await sim.submit("waiting", ScriptedAnswer(pieces=2)))


async def in_line(sim: Simulation) -> None:
    """An operator opens a circuit. Two jobs are held in its line, until it is closed and a scheduler
    releases them.
    """
    opened = force_open(CircuitBreaker(model=MODEL), "operator", "a test", "m1", sim.world.clock.now())
    sim.real.circuit_breakers.replace(CircuitBreaker(model=MODEL), replace(opened, version=1))
    jobs = [await sim.submit(name, ScriptedAnswer(pieces=1)) for name in ("first in line", "second in line")]
    await sim.until(lambda: all(sim.job(job).status is Status.HELD for job in jobs), 40)
    await asyncio.sleep(7.3)

    def close() -> None:
        ctx = sim.world.container
        close_circuit(ctx.circuit_breakers, ctx.log, MODEL, "operator", "m2", ctx.clock.now())
        ask_for_visit(ctx, cause_of(CauseKind.CIRCUIT, MODEL))

    await sim.request(close)


async def child_of_two(sim: Simulation) -> None:
    """A job depends on two others, one of which ends about when it is submitted.

    Its prompt contains their results.
    """
    first = await sim.submit("a parent", ScriptedAnswer(pieces=1, every=0.1))
    second = await sim.submit("another parent", ScriptedAnswer(pieces=3))
    prompt = "{{parents.first.output}} {{parents.second.output}}"
    await sim.watch(await sim.submit(prompt, depends_on={"first": first, "second": second}))


async def orphaned(sim: Simulation) -> None:
    """A parent is cancelled while a child, a grandchild and a child with `run_anyway` wait."""
    parent = await sim.submit("cancelled parent", ScriptedAnswer(pieces=12, every=0.5))
    child = await sim.submit("child", ScriptedAnswer(pieces=1), depends_on={"parent": parent})
    await sim.watch(await sim.submit("grandchild", ScriptedAnswer(pieces=1), depends_on={"child": child}))
    await sim.watch(await sim.submit("anyway", ScriptedAnswer(pieces=1), depends_on={"parent": parent}, on_parent_failure="run_anyway"))
    await sim.until(lambda: sim.job(parent).attempt > 0, 300)
    await asyncio.sleep(1.2)
    await sim.cancel(parent)


async def notified(sim: Simulation) -> None:
    """The job fails with a permanent error, its owner retries it, and both ends have a webhook."""
    job = await sim.submit("notified", ScriptedAnswer(pieces=1, error=ProviderQuotaExhausted()), ScriptedAnswer(pieces=2), webhook_url=HOOK)
    await sim.until(lambda: sim.job(job).status.is_terminal)
    if sim.job(job).status is Status.FAILED:
        await sim.retry(job)


async def limited(sim: Simulation) -> None:
    """Two jobs with a task handler, of a type that runs one at a time. The scheduler releases the other one."""

    running: set[str] = set()
    # The job of a frozen worker, or one that a fast clock takes for dead, is claimed again while the worker still runs.
    replaced = sim.sweeper_skew > 0 or any(kind in FREEZES for kind in sim.steps.faults.values())

    async def work(task: TaskRun) -> Any:
        holder = f"{task.job.id}#{task.job.generation}"
        running.add(holder)
        try:
            for step in range(3):
                if len(running) > 1 and not replaced:
                    sim.history.problems.append(f"more than one at once: {sorted(running)}")
                await task.run_sync(task.context.job_files.size, task.job.tenant, task.job.id, "object")
                task.report_progress(step + 1, 3)
                await asyncio.sleep(1.1)
        finally:
            running.discard(holder)
        log = sim.history.record_request(task.job.id, task.job.attempt)
        log.sent, log.charged = json.dumps({"answer": log.number}), Usage()
        return {"answer": log.number}

    kind = chore(work, limits=Limits(concurrency=1, per_minute=4))
    sim.world.container.job_type = with_job_types(kind)
    for name in ("first", "second"):
        await sim.watch(await sim.submit(name, job_type=kind.name, input=name))


async def rated(sim: Simulation) -> None:
    """Three jobs of a model that may start two a minute. One is held until the scheduler releases it with a grant."""
    limit = RateLimit(model=MODEL, account=ACCOUNT, configured_requests=2)
    sim.real.rates.save_limit(limit, replace(limit, version=1))
    for name in ("first of the minute", "second of the minute", "of the next minute"):
        job = await sim.submit(name, ScriptedAnswer(pieces=1))
    await sim.watch(job)


async def rated_by_user(sim: Simulation) -> None:
    """The same in a tenant that shares by user, which is unset while a job waits in the line by user."""
    shared = TenantLimits(tenant="acme", version=1, fair_by="user", was_by_user=True)
    sim.real.tenant_limits.replace(replace(shared, version=0), shared)
    await rated(sim)
    await asyncio.sleep(30)
    sim.real.tenant_limits.replace(shared, replace(shared, version=2, fair_by="tenant"))


async def crowded(sim: Simulation) -> None:
    """Three jobs of a tenant whose jobs run one at a time; one of them needs two attempts."""
    running = TenantLimits(tenant="acme", version=1, concurrency=1, queued={"total": 50, "normal": 40})
    sim.real.tenant_limits.replace(replace(running, version=0), running)
    await sim.watch(await sim.submit("first of three", ScriptedAnswer(pieces=2)))
    await sim.watch(await sim.submit("second of three", ScriptedAnswer(pieces=1, error=StreamCut()), ScriptedAnswer(pieces=2)))
    await sim.watch(await sim.submit("third of three", ScriptedAnswer(pieces=2)))


async def crowded_and_handed_over(sim: Simulation) -> None:
    """A durable job, whose response goes through several invocations, keeps the only slot until its end."""
    sim.invocation = 10.0
    running = TenantLimits(tenant="acme", version=1, user_concurrency=1)
    sim.real.tenant_limits.replace(replace(running, version=0), running)
    await sim.watch(await sim.submit("keeps its slot", ScriptedAnswer(pieces=6, every=2.2), config={"durable": True}))
    await sim.watch(await sim.submit("waits for it", ScriptedAnswer(pieces=2)))


async def misdirected(sim: Simulation) -> None:
    """The API runs an older version, which sends the wake-up of a task to the task's lane."""
    send = sim.real.queues.send

    def send_as_before(queue: str, *args: Any) -> None:
        actor = ACTOR.get()
        send(LANE if actor is not None and actor.role == "api" else queue, *args)

    async def work(task: TaskRun) -> Any:
        await task.run_sync(task.context.job_files.size, task.job.tenant, task.job.id, "object")
        log = sim.history.record_request(task.job.id, task.job.attempt)
        log.sent, log.charged = json.dumps({"answer": log.number}), Usage()
        return {"answer": log.number}

    kind = chore(work)
    sim.world.container.job_type = with_job_types(kind)
    sim.real.queues.send = send_as_before  # type: ignore[method-assign]
    await sim.watch(await sim.submit("neighbour", ScriptedAnswer(pieces=3)))
    await sim.watch(await sim.submit("task", job_type=kind.name, input="task"))


@dataclass(frozen=True)
class Scenario:
    """`ends` are the statuses that its jobs may end with, whatever single fault happens."""

    run: ScenarioFunction
    ends: tuple[Status, ...] = (Status.COMPLETED,)

    @property
    def name(self) -> str:
        return self.run.__name__


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(plain),
        Scenario(failing_first),
        Scenario(cancelled, (Status.CANCELLED, Status.COMPLETED)),
        Scenario(retried),
        Scenario(cancelled_and_retried),
        Scenario(dead_worker),
        Scenario(two_jobs),
        Scenario(durable),
        Scenario(handed_over),
        Scenario(not_resumed),
        Scenario(durable_cancelled, (Status.CANCELLED, Status.COMPLETED)),
        Scenario(circuit),
        Scenario(in_line),
        Scenario(cached),
        Scenario(found),
        Scenario(child_of_two),
        Scenario(orphaned, (Status.CANCELLED, Status.COMPLETED)),
        Scenario(notified),
        Scenario(limited),
        Scenario(rated),
        Scenario(rated_by_user),
        Scenario(crowded),
        Scenario(crowded_and_handed_over),
        Scenario(misdirected),
    )
}
