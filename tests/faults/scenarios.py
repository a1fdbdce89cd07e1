"""The stories that are told with every single fault: each is what people do, and what has to come of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any

from chalicelib.domain.failures import ProviderQuotaExhausted, StreamCut
from chalicelib.domain.jobs.job import Status, Usage
from chalicelib.domain.jobs.job_type import Limits
from chalicelib.domain.limits.circuit_breaker import FAILURE_THRESHOLD, CircuitBreaker, record_failure
from chalicelib.services.worker.run_task import TaskRun
from tests.faults.answers import Says
from tests.faults.cloud import Cloud
from tests.faults.steps import FREEZES, end
from tests.kit.task_types import chore, with_job_types

MODEL = "gpt-4o-mini"
Story = Callable[[Cloud], Coroutine[Any, Any, None]]


async def plain(cloud: Cloud) -> None:
    """Submitted, claimed, streamed, kept, shown, ended."""
    await cloud.watch(await cloud.submit("plain", Says(pieces=4, every=2.2)))


async def failing_first(cloud: Cloud) -> None:
    """The first answer is cut, the second is whole."""
    await cloud.watch(await cloud.submit("failing", Says(pieces=2, error=StreamCut()), Says(pieces=3)))


async def cancelled(cloud: Cloud) -> None:
    """Cancelled while it runs."""
    job = await cloud.submit("cancelled", Says(pieces=12, every=0.5))
    await cloud.watch(job)
    await cloud.until(lambda: cloud.head(job).attempt > 0, 300)
    await asyncio.sleep(2.3)
    await cloud.cancel(job)


async def retried(cloud: Cloud) -> None:
    """Fails for good, and is started again by its owner."""
    job = await cloud.submit("retried", Says(pieces=2, error=ProviderQuotaExhausted()), Says(pieces=3))
    await cloud.watch(job)
    await cloud.until(lambda: cloud.head(job).status.is_terminal)
    if cloud.head(job).status is Status.FAILED:
        await cloud.retry(job)


async def cancelled_and_retried(cloud: Cloud) -> None:
    """Cancelled while it runs, and started again by its owner, who wants it after all."""
    job = await cloud.submit("wanted", Says(pieces=12, every=0.5), Says(pieces=2))
    await cloud.watch(job)
    await cloud.until(lambda: cloud.head(job).attempt > 0, 300)
    await asyncio.sleep(1.2)
    await cloud.cancel(job)
    await cloud.until(lambda: cloud.head(job).status.is_terminal)
    if cloud.head(job).status is Status.CANCELLED:
        await cloud.retry(job)


async def dead_worker(cloud: Cloud) -> None:
    """The first worker dies in mid-stream; the sweep has the job run again."""
    job = await cloud.submit("dead", Says(pieces=8, every=0.6), Says(pieces=2))
    await cloud.watch(job)
    await cloud.until(lambda: len(cloud.real.chunks.rows) > 1, 300)
    for worker in cloud.workers:
        end(worker)


async def two_jobs(cloud: Cloud) -> None:
    """Two jobs in one batch, one of which is tried twice."""
    jobs = [await cloud.submit("first", Says(pieces=3)), await cloud.submit("second", Says(pieces=1, error=StreamCut()), Says(pieces=2))]
    for job in jobs:
        await cloud.watch(job)


async def durable(cloud: Cloud) -> None:
    """Its response outlives its worker, whatever becomes of that."""
    await cloud.watch(await cloud.submit("durable", Says(pieces=5, every=2.2), config={"durable": True}))


async def handed_over(cloud: Cloud) -> None:
    """Three invocations carry one answer."""
    cloud.invocation = 10.0
    await cloud.watch(await cloud.submit("handed over", Says(pieces=8, every=2.2), config={"durable": True}))


async def not_resumed(cloud: Cloud) -> None:
    """Its worker dies, and the provider streams it no more: the rest is fetched."""
    job = await cloud.submit("not resumed", Says(pieces=5, every=2.2, streams_for=1.0), config={"durable": True})
    await cloud.watch(job)
    await cloud.until(lambda: len(cloud.real.chunks.rows) > 0, 300)
    for worker in cloud.workers:
        end(worker)


async def durable_cancelled(cloud: Cloud) -> None:
    """Cancelled while it runs, or while it is between two workers."""
    cloud.invocation = 10.0
    job = await cloud.submit("durable cancelled", Says(pieces=12, every=1.5), config={"durable": True})
    await cloud.watch(job)
    await cloud.until(lambda: cloud.head(job).attempt > 0, 300)
    await asyncio.sleep(7.99)
    await cloud.cancel(job)


async def cached(cloud: Cloud) -> None:
    """It asks the cache before each attempt, and leaves its answer there."""
    await cloud.watch(await cloud.submit("cached", Says(pieces=2, error=StreamCut()), Says(pieces=3), config={"cache": True}))


async def found(cloud: Cloud) -> None:
    """Two equal requests, one after the other: the second is given the first one's answer, if that could be kept."""
    first = await cloud.submit("equal", Says(pieces=2), config={"cache": True})
    await cloud.until(lambda: cloud.head(first).status.is_terminal and not cloud.workers, 600)
    await cloud.watch(await cloud.submit("equal", Says(pieces=3), key="equal again", config={"cache": True}))


async def circuit(cloud: Cloud) -> None:
    """OpenAI has failed a few times already: the next failure opens the circuit, two jobs wait, one tries it out, both complete."""
    failing, now = CircuitBreaker(model=MODEL), cloud.world.clock.now()
    for number in range(FAILURE_THRESHOLD - 1):
        failing = record_failure(failing, "provider_unavailable", now, f"before {number}", now)
    cloud.real.circuit_breakers.replace(CircuitBreaker(model=MODEL), replace(failing, version=1))
    first = await cloud.submit("opening", Says(pieces=1, error=StreamCut()), Says(pieces=3))
    await cloud.watch(first)
    await cloud.until(lambda: cloud.head(first).attempt > 0 and cloud.head(first).status is not Status.PROCESSING, 300)
    await cloud.watch(await cloud.submit("waiting", Says(pieces=2)))


async def child_of_two(cloud: Cloud) -> None:
    """Runs after two others, of which one has as good as ended when it comes, and says what they said."""
    first = await cloud.submit("a parent", Says(pieces=1, every=0.1))
    second = await cloud.submit("another parent", Says(pieces=3))
    prompt = "{{parents.first.output}} {{parents.second.output}}"
    await cloud.watch(await cloud.submit(prompt, depends_on={"first": first, "second": second}))


async def orphaned(cloud: Cloud) -> None:
    """Its parent is cancelled while a child and a grandchild wait; a second child does not mind."""
    parent = await cloud.submit("cancelled parent", Says(pieces=12, every=0.5))
    child = await cloud.submit("child", Says(pieces=1), depends_on={"parent": parent})
    await cloud.watch(await cloud.submit("grandchild", Says(pieces=1), depends_on={"child": child}))
    await cloud.watch(await cloud.submit("anyway", Says(pieces=1), depends_on={"parent": parent}, on_parent_failure="run_anyway"))
    await cloud.until(lambda: cloud.head(parent).attempt > 0, 300)
    await asyncio.sleep(1.2)
    await cloud.cancel(parent)


async def limited(cloud: Cloud) -> None:
    """Two pieces of work that is no OpenAI call, of which one may be done at a time: the other is told when to come."""

    at_work: set[str] = set()
    frozen = any(kind in FREEZES for kind in cloud.steps.faults.values())  # who stands still for minutes finds others at work

    async def work(task: TaskRun) -> Any:
        mark = f"{task.job.id}#{task.job.generation}"
        at_work.add(mark)
        try:
            for step in range(3):
                if len(at_work) > 1 and not frozen:
                    cloud.history.problems.append(f"more than one at once: {sorted(at_work)}")
                await task.run_sync(task.context.job_files.size, task.job.tenant, task.job.id, "object")
                task.report_progress(step + 1, 3)
                await asyncio.sleep(1.1)
        finally:
            at_work.discard(mark)
        answer = cloud.history.asked(task.job.id, task.job.attempt)
        answer.sent, answer.charged = json.dumps({"answer": answer.number}), Usage()
        return {"answer": answer.number}

    kind = chore(work, limits=Limits(concurrency=1, per_minute=4))
    cloud.world.container.job_type = with_job_types(kind)
    for name in ("first", "second"):
        await cloud.watch(await cloud.submit(name, job_type=kind.name, input=name))


@dataclass(frozen=True)
class Scenario:
    """`ends` are the statuses that may come of it, whatever one thing goes wrong."""

    story: Story
    ends: tuple[Status, ...] = (Status.COMPLETED,)

    @property
    def name(self) -> str:
        return self.story.__name__


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
        Scenario(cached),
        Scenario(found),
        Scenario(child_of_two),
        Scenario(orphaned, (Status.CANCELLED, Status.COMPLETED)),
        Scenario(limited),
    )
}
