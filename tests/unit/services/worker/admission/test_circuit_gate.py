"""Circuit breakers in the worker: what opens them, how jobs wait, and how they resume."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from chalicelib.consumers.broadcast_job_end import broadcast_job_ends
from chalicelib.domain.auth.identity import Caller
from chalicelib.domain.errors import Throttled, Unavailable
from chalicelib.domain.failures import (
    AddressInvalid,
    AttemptFailed,
    AttemptTimedOut,
    AuthenticationFailed,
    ContentRefused,
    OutputInvalid,
    ProviderQuotaExhausted,
    ProviderRateLimited,
    ProviderTimeout,
    ProviderUnavailable,
    RequestRefused,
    StreamCut,
)
from chalicelib.domain.jobs import transitions
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.limits.circuit_breaker import CircuitBreaker, CircuitState, force_open, tenant_mark
from chalicelib.domain.queues.causes import shard_of
from chalicelib.ports import Price
from chalicelib.services.scheduling.scheduler import serve_shard
from chalicelib.services.scheduling.visits import ShardMessage
from chalicelib.services.update_job import update_job
from chalicelib.services.worker.process_messages import process_messages
from tests.kit.failing_store import refusing
from tests.kit.provider import Script
from tests.kit.world import ALICE, World

MODEL = "gpt-4o-mini"
WHOLE = Script(deltas=["whole"])


def refusal(error: AttemptFailed) -> Script:
    """A request that the provider refuses before it begins a response."""
    return Script(error=error, refuses=True)


def circuit(world: World, model: str = MODEL) -> CircuitBreaker:
    return world.container.circuit_breakers.get(model) or CircuitBreaker(model=model)


def advance(world: World, seconds: float) -> None:
    """Let time pass, and deliver the messages that are due."""
    world.clock.advance(seconds)
    world.deliver()


def run_until_ended(world: World, *jobs: Job, seconds: float = 3_600) -> None:
    """Deliver messages as they come due and sweep every minute, until all these jobs have ended."""
    end = world.clock.now() + seconds * 1000
    while not all(world.job(job).status.is_terminal for job in jobs):
        assert world.clock.now() < end, [world.job(job).status for job in jobs]
        advance(world, 5)
        if world.clock.now() // 1000 % 60 < 5:
            world.sweep()


OTHER = replace(ALICE, tenant="other", user="oscar", key_id="key_2")


async def serve_line(world: World) -> None:
    """Let the scheduler release what may start, for a second."""
    message = ShardMessage(shard_of(f"circuit:{MODEL}", world.container.scheduler_shards), at=world.clock.now())
    await serve_shard(world.container, message, world.clock.now() + 1_000)


def fail_jobs(world: World, count: int, *callers: Caller) -> list[Job]:
    """Run this many jobs, one after the other, of two tenants in turn. Each fails in its only attempt.

    One that is held, because the account was refused, is cancelled: it is out of the way of others.
    """
    jobs = []
    for number in range(count):
        caller = (callers or (ALICE, OTHER))[number % len(callers or (ALICE, OTHER))]
        jobs.append(world.submit(config={"max_attempts": 1}, caller=caller))
        world.deliver()
        if world.job(jobs[-1]).status is Status.HELD:
            update_job(world.container.jobs, world.job(jobs[-1]), lambda seen: transitions.cancel(seen, world.clock.now()))
    return jobs


def events(world: World, name: str) -> list[dict[str, Any]]:
    return [fields for event, fields in world.log_lines if event == name]


def test_five_failures_open_the_circuit_and_later_jobs_are_held() -> None:
    """Failures of different jobs count together; the held jobs use up no attempt."""
    world = World(*[refusal(ProviderUnavailable())] * 5, WHOLE)
    failed = fail_jobs(world, 5)
    assert [world.job(job).status for job in failed] == [Status.FAILED] * 5
    assert (circuit(world).state, circuit(world).reason) == (CircuitState.OPEN, "provider_unavailable")

    waiting = [world.submit() for _ in range(3)]
    world.deliver()

    for job in waiting:
        held = world.job(job)
        assert (held.status, held.reason, held.attempt, held.tries) == (Status.HELD, "circuit_open", 0, 0)
        assert held.resume_at is not None
        assert (held.resume_at, held.cause) == (circuit(world).until, f"circuit:{MODEL}")
    assert len(world.provider.requests) == 5
    assert not world.container.leases.rows
    [opened] = events(world, "circuit_opened")
    assert (opened["model"], opened["reason"]) == (MODEL, "provider_unavailable")


def test_a_successful_probe_closes_the_circuit_and_held_jobs_complete() -> None:
    """One of the held jobs is the probe."""
    world = World(*[refusal(ProviderUnavailable())] * 5, WHOLE)
    fail_jobs(world, 5)
    waiting = [world.submit() for _ in range(6)]
    world.deliver()

    advance(world, 36)
    assert len(world.provider.requests) == 6
    assert Counter(world.job(job).status for job in waiting) == {Status.COMPLETED: 1, Status.HELD: 5}
    assert circuit(world).state is CircuitState.CLOSED
    run_until_ended(world, *waiting)

    assert {(world.job(job).status, world.job(job).attempt) for job in waiting} == {(Status.COMPLETED, 1)}
    assert [event["reason"] for event in events(world, "circuit_closed")] == ["provider_unavailable"]
    assert circuit(world).is_healthy


def test_the_first_token_of_the_probe_closes_the_circuit() -> None:
    """Other jobs do not have to wait for the end of its answer."""
    world = World(refusal(ProviderQuotaExhausted()), Script(deltas=["a", "b"], every=40.0))
    fail_jobs(world, 1)
    probing = world.submit()
    world.deliver()
    world.clock.advance(36)

    async def work() -> CircuitState:
        await serve_line(world)
        worker = asyncio.ensure_future(process_messages(world.container, "ready", world.container.queues.receive("ready")))
        await asyncio.sleep(1)
        assert circuit(world).state is CircuitState.HALF_OPEN
        await asyncio.sleep(41)
        seen = circuit(world).state
        await worker
        return seen

    assert world.loop.run_until_complete(work()) is CircuitState.CLOSED
    assert world.job(probing).status is Status.COMPLETED


@pytest.mark.parametrize("error", [ProviderQuotaExhausted(), AuthenticationFailed()])
def test_an_account_wide_error_opens_the_circuit_at_once(error: AttemptFailed) -> None:
    """No job fails: the first is held as well, with the error, and failed probes do not count against their jobs."""
    world = World(*[refusal(error)] * 4, WHOLE)
    kept = [world.submit(config={"max_attempts": 1})]
    world.deliver()
    held = world.job(kept[0])
    assert (held.status, held.reason, held.tries, held.error and held.error.code) == (Status.HELD, "circuit_open", 0, error.code)
    kept += [world.submit() for _ in range(3)]
    world.deliver()
    assert {world.job(job).status for job in kept} == {Status.HELD}

    run_until_ended(world, *kept)

    ended = [world.job(job) for job in kept]
    assert {job.status for job in ended} == {Status.COMPLETED}
    assert {job.tries for job in ended} == {1}
    assert sum(job.attempt for job in ended) == 4 + 4  # the first request and three failed probes, which do not count as tries
    assert len(events(world, "circuit_opened")) == 4


def test_a_failed_probe_has_an_attempt_record() -> None:
    """Its job is held again and shows the error of the probe."""
    world = World(*[refusal(ProviderQuotaExhausted())] * 2, WHOLE)
    fail_jobs(world, 1)
    job = world.submit()
    world.deliver()
    world.watch(job)

    advance(world, 36)

    held = world.job(job)
    assert (held.status, held.reason, held.attempt, held.tries) == (Status.HELD, "circuit_open", 1, 0)
    assert held.error is not None
    assert held.error.code == "provider_quota_exhausted"
    assert [row.error_code for row in world.container.results.attempts(job.id)] == ["provider_quota_exhausted"]
    assert world.frames("c1", "held")[-1]["reason"] == "circuit_open"
    assert circuit(world).trips == 2


def test_a_probe_whose_response_had_begun_counts_as_an_attempt() -> None:
    """Otherwise a job that breaks every response would never end."""
    world = World(Script(deltas=["x"], error=StreamCut()))
    jobs = [world.submit(config={"max_attempts": 3}) for _ in range(3)]

    run_until_ended(world, *jobs)

    assert [(world.job(job).status, world.job(job).attempt) for job in jobs] == [(Status.FAILED, 3)] * 3


def test_successes_between_failures_keep_the_circuit_closed() -> None:
    world = World(*[refusal(ProviderUnavailable()), WHOLE] * 8)
    for _ in range(16):
        world.submit(config={"max_attempts": 1})
        advance(world, 1)
        world.clock.advance(2)

    assert len(world.provider.requests) == 16
    assert circuit(world).is_healthy
    assert not events(world, "circuit_opened")


def test_a_healthy_model_costs_two_circuit_reads_and_no_write() -> None:
    """One read when the invocation starts and one when a long attempt ends."""
    world = World(Script(deltas=["a"] * 20, every=0.5))
    with (
        refusing(world.container.circuit_breakers, "replace", 0) as writes,
        refusing(world.container.circuit_breakers, "all_with_board", 0) as reads,
    ):
        world.submit()
        world.submit()
        world.deliver()

    assert (writes, reads) == ([0], [2])


def test_an_inconclusive_probe_lets_the_next_job_probe() -> None:
    """A rate limit proves neither a failure nor a recovery."""
    world = World(refusal(ProviderQuotaExhausted()), refusal(ProviderRateLimited()), WHOLE)
    fail_jobs(world, 1)
    first, second = world.submit(), world.submit()
    world.deliver()
    advance(world, 36)
    limited = world.job(first)
    assert (limited.status, limited.reason, limited.tries) == (Status.HELD, "rate_limited", 0)
    assert (circuit(world).state, circuit(world).trips) == (CircuitState.OPEN, 1)

    run_until_ended(world, first, second, seconds=60)

    assert {world.job(first).status, world.job(second).status} == {Status.COMPLETED}


def test_the_probe_of_a_dead_worker_expires_and_another_is_made() -> None:
    """It expires after a minute, and the next probe closes the circuit."""
    world = World(refusal(ProviderQuotaExhausted()), Script(first=200.0), WHOLE)
    fail_jobs(world, 1)
    first, second = world.submit(), world.submit()
    world.deliver()
    world.clock.advance(36)

    async def work() -> None:
        await serve_line(world)
        worker = asyncio.ensure_future(process_messages(world.container, "ready", world.container.queues.receive("ready")))
        await asyncio.sleep(2)
        with refusing(world.container.leases, "close", 10**6), refusing(world.container.circuit_breakers, "replace", 10**6):
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)

    world.loop.run_until_complete(work())
    assert circuit(world).state is CircuitState.HALF_OPEN

    run_until_ended(world, first, second, seconds=200)

    assert [world.job(job).status for job in (first, second)] == [Status.COMPLETED] * 2
    assert circuit(world).is_healthy


def test_a_duplicate_wake_up_of_the_probing_job_runs_one_attempt() -> None:
    """Two workers receive the same message."""
    world = World(refusal(ProviderQuotaExhausted()), WHOLE)
    fail_jobs(world, 1)
    job = world.submit()
    world.deliver()
    world.clock.advance(36)
    held = world.job(job)

    async def both() -> None:
        await asyncio.gather(*(process_messages(world.container, "normal", [world.wake(held)]) for _ in range(2)))

    world.loop.run_until_complete(both())

    assert (world.job(job).status, world.job(job).attempt) == (Status.COMPLETED, 1)


@pytest.mark.parametrize("method", ["all_with_board", "replace"])
@pytest.mark.parametrize("error", [Throttled, Unavailable, ValueError])
def test_jobs_run_while_the_circuit_breaker_store_is_down(method: str, error: type[Exception]) -> None:
    """Jobs are let through, and the failed read or write is logged."""
    world = World(refusal(ProviderUnavailable()), refusal(ProviderQuotaExhausted()), WHOLE)
    with refusing(world.container.circuit_breakers, method, 10**6, error):
        first, second = world.submit(config={"max_attempts": 2}), None
        run_until_ended(world, first)
        second = world.submit()
        run_until_ended(world, second, seconds=20)

    assert [world.job(job).status for job in (first, second)] == [Status.COMPLETED] * 2
    assert events(world, "circuit_breakers_unavailable" if method == "all_with_board" else "circuit_breaker_update_failed")


def test_jobs_run_if_no_probe_can_be_recorded() -> None:
    """Otherwise a store that takes no writes would keep the circuit open."""
    world = World(refusal(ProviderQuotaExhausted()), WHOLE)
    fail_jobs(world, 1)
    job = world.submit()
    world.deliver()
    world.clock.advance(36)

    with refusing(world.container.circuit_breakers, "replace", 10**6):
        world.deliver()

    assert world.job(job).status is Status.COMPLETED


def test_a_hanging_circuit_breaker_store_delays_a_job_by_seconds_only() -> None:
    """The end of an attempt waits at most two seconds for it, and the start once for the pauses, which are read with it."""

    async def hang(call: Any, *args: Any) -> Any:
        if getattr(call, "__self__", None) is world.container.circuit_breakers:
            await asyncio.sleep(600)
        return call(*args)

    world = World(offload=hang)
    job = world.submit()
    world.deliver()
    assert world.job(job).reason == "pauses_unknown"
    advance(world, 8)

    ended = world.job(job)
    assert ended.status is Status.COMPLETED
    assert (ended.finished_at or 0) - ended.created_at < 16_000


def test_a_fallback_model_is_used_while_the_circuit_is_open() -> None:
    """The attempt record has the fallback model and its price."""
    world = World(refusal(ProviderQuotaExhausted()), Script(deltas=["hi"], end=None, error=StreamCut()), WHOLE)
    world.container.prices.prices["big"] = Price(input=1_000, cached=500, output=8_000)
    fail_jobs(world, 1)
    job = world.submit(config={"fallback_models": ["big", "small"]})
    assert job.fallback_models == ("big", "small")

    world.deliver()

    taken = world.job(job)
    assert [request.model for request in world.provider.requests] == [MODEL, "big"]
    assert (taken.status, taken.attempt, taken.model, taken.asked_model) == (Status.RETRYING, 1, MODEL, "big")
    [row] = world.container.results.attempts(job.id)
    assert (row.model, row.usage is not None) == ("big", True)
    assert row.usage is not None
    assert row.cost == Price(input=1_000, cached=500, output=8_000).cost(row.usage)
    assert (circuit(world).state, circuit(world, "big").failures) == (CircuitState.OPEN, 1)


def test_a_job_with_a_fallback_model_probes_its_own_model_first() -> None:
    """After a failed probe the fallback model is used at once."""
    world = World(refusal(ProviderQuotaExhausted()), refusal(ProviderQuotaExhausted()), WHOLE)
    fail_jobs(world, 1)
    world.clock.advance(31)
    job = world.submit(config={"fallback_models": ["big"]})

    run_until_ended(world, job, seconds=40)

    ended = world.job(job)
    assert [request.model for request in world.provider.requests] == [MODEL, MODEL, "big"]
    assert (ended.status, ended.attempt, ended.tries, ended.attempt_model) == (Status.COMPLETED, 2, 1, "big")


def test_a_job_whose_models_are_all_denied_waits_for_the_earliest_probe() -> None:
    world = World(*[refusal(ProviderQuotaExhausted())] * 2, WHOLE)
    fail_jobs(world, 1)
    world.clock.advance(10)
    other = world.submit(config={"model": "big"})
    world.deliver()
    job = world.submit(config={"model": "big", "fallback_models": [MODEL]})
    world.deliver()

    held = world.job(job)
    assert world.job(other).status is Status.HELD
    assert (held.status, held.resume_at, held.cause) == (Status.HELD, circuit(world).until, f"circuit:{MODEL}")


def test_a_lost_fallback_attempt_is_priced_by_the_fallback_model() -> None:
    world = World(refusal(ProviderQuotaExhausted()), Script(deltas=["t "] * 200, every=0.1), WHOLE)
    world.container.prices.prices["big"] = Price(input=1_000, cached=500, output=8_000)
    fail_jobs(world, 1)
    job = world.submit(config={"fallback_models": ["big"]})

    async def work() -> None:
        worker = asyncio.ensure_future(process_messages(world.container, "normal", world.container.queues.receive("normal")))
        await asyncio.sleep(5)
        with refusing(world.container.leases, "close", 10**6):
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)

    world.loop.run_until_complete(work())
    world.sweep(after=35)

    [lost] = world.container.results.attempts(job.id)
    assert (lost.model, lost.error_code) == ("big", "worker_lost")
    assert lost.usage is not None
    assert lost.cost == Price(input=1_000, cached=500, output=8_000).cost(lost.usage)


def test_a_resumed_attempt_ignores_an_open_circuit() -> None:
    """Its response has begun, so nothing new is requested."""
    world = World(WHOLE)
    world.container.circuit_breakers.replace(
        CircuitBreaker(model=MODEL), force_open(CircuitBreaker(model=MODEL), "ann", None, "m", world.clock.now())
    )
    job = world.submit()
    begun = world.job(job)
    world.container.jobs.records[job.id] = type(begun)(**{**_fields(begun), "response_id": "resp_1"})

    world.deliver()

    assert world.job(job).status is Status.COMPLETED


def test_jobs_expire_while_an_operator_keeps_the_circuit_open() -> None:
    world = World(WHOLE)
    world.container.circuit_breakers.replace(
        CircuitBreaker(model=MODEL), force_open(CircuitBreaker(model=MODEL), "ann", "moving", "m", world.clock.now())
    )
    job = world.submit(expires_in=1_000)

    run_until_ended(world, job, seconds=1_200)

    assert (world.job(job).status, world.job(job).attempt) == (Status.EXPIRED, 0)
    assert world.provider.requests == []


def test_a_lost_wake_up_of_a_held_job_is_sent_again() -> None:
    world = World(refusal(ProviderQuotaExhausted()), WHOLE)
    fail_jobs(world, 1)
    job = world.submit()
    with refusing(world.container.queues, "send", 1):
        world.deliver()
    assert world.job(job).status is Status.HELD

    run_until_ended(world, job, seconds=300)

    assert world.job(job).status is Status.COMPLETED


def test_the_message_of_a_job_that_cannot_be_held_comes_again() -> None:
    world = World(refusal(ProviderQuotaExhausted()), WHOLE)
    fail_jobs(world, 1)
    job, other = world.submit(), world.submit(config={"model": "big"})
    received = world.container.queues.receive("normal")

    with refusing(world.container.jobs, "replace", 10, KeyError), pytest.raises(Exception, match="will come again"):
        world.deliver(messages=received)

    assert world.job(job).status is Status.QUEUED
    assert [message.body for message in world.container.queues.messages["normal"]]
    assert world.job(other).status is Status.QUEUED


def test_subscribers_are_sent_when_a_job_is_held_and_until_when() -> None:
    """The change stream consumer sends it after the write."""
    world = World(refusal(ProviderQuotaExhausted()), WHOLE)
    fail_jobs(world, 1)
    job = world.submit()
    world.watch(job)
    records = [world.job(job)]
    world.deliver()
    records.append(world.job(job))

    changes = [(job.id, before, after) for before, after in pairwise(records)]
    broadcast_job_ends(world.container, changes)

    (frame,) = world.frames("c1", "held")
    assert (frame["reason"], frame["version"]) == ("circuit_open", records[1].version)
    assert frame["until"] is not None


def test_one_job_that_fails_again_and_again_does_not_open_the_circuit() -> None:
    world = World(*[refusal(ProviderUnavailable())] * 10, WHOLE)
    job = world.submit(config={"max_attempts": 10})

    run_until_ended(world, job, seconds=40_000)

    assert (world.job(job).status, world.job(job).attempt) == (Status.FAILED, 10)
    assert (circuit(world).state, circuit(world).failures, circuit(world).own) == (CircuitState.CLOSED, 1, ())


def test_a_flood_of_failures_of_one_tenant_holds_only_its_own_jobs() -> None:
    """The other tenant's jobs run at once, and their answers let the first one's jobs run again."""
    world = World(*[refusal(ProviderUnavailable())] * 20, WHOLE)
    fail_jobs(world, 5, ALICE)
    flood = [world.submit() for _ in range(9)]
    world.deliver()
    assert {(world.job(job).status, world.job(job).reason, world.job(job).attempt) for job in flood} == {(Status.HELD, "circuit_open", 0)}
    assert (circuit(world).state, [own.tenant for own in circuit(world).own]) == (CircuitState.CLOSED, [tenant_mark("acme")])
    [opened] = events(world, "tenant_circuit_opened")
    assert (opened["model"], opened["tenant_mark"]) == (MODEL, tenant_mark("acme"))

    world.provider.scripts[:] = [WHOLE]
    quiet = world.submit(caller=OTHER)
    advance(world, 1)

    assert (world.job(quiet).status, world.job(quiet).attempt) == (Status.COMPLETED, 1)
    assert circuit(world).is_healthy
    run_until_ended(world, *flood)
    assert {world.job(job).attempt for job in flood} == {1}
    assert [fields["tenant_mark"] for fields in events(world, "tenant_circuit_closed")] == [tenant_mark("acme")]


def test_a_tenant_that_alone_uses_a_model_waits_and_probes_as_with_the_circuit_of_all() -> None:
    world = World(*[refusal(ProviderUnavailable())] * 7, WHOLE)
    fail_jobs(world, 5, ALICE)
    waiting = [world.submit() for _ in range(3)]
    world.deliver()

    run_until_ended(world, *waiting, seconds=600)

    assert len(world.provider.requests) == 5 + 2 + 3  # two failed probes
    assert {(world.job(job).status, world.job(job).tries) for job in waiting} == {(Status.COMPLETED, 1)}
    assert circuit(world).is_healthy


def test_a_tenant_whose_probes_fail_does_not_keep_the_circuit_open_for_others() -> None:
    """The circuit is open for all; then the provider answers, but never this tenant's prompts."""
    world = World(*[refusal(ProviderUnavailable())] * 6, WHOLE)
    fail_jobs(world, 5)
    hostile = [world.submit() for _ in range(9)]
    world.deliver()
    advance(world, 41)  # one of them is the probe, and fails
    assert circuit(world).trips == 2
    quiet = world.submit(caller=OTHER)
    world.deliver()
    assert world.job(quiet).status is Status.HELD

    while world.job(quiet).status is Status.HELD:
        advance(world, 1)

    assert world.job(quiet).status is Status.COMPLETED
    assert len(world.provider.requests) == 7  # no second probe of the first tenant came before
    assert {world.job(job).status for job in hostile} == {Status.HELD}


def test_prompts_that_the_provider_refuses_never_open_a_circuit() -> None:
    errors = [RequestRefused(), ContentRefused(), OutputInvalid(), AddressInvalid(), AttemptTimedOut()]
    world = World(*[refusal(error) for error in errors * 10], WHOLE)

    fail_jobs(world, 50)

    assert circuit(world).is_healthy


@pytest.mark.parametrize(("tier", "failures"), [("flex", 0), ("default", 4)])
def test_a_flex_request_that_is_not_answered_in_time_does_not_count(tier: str, failures: int) -> None:
    world = World(refusal(ProviderTimeout()))
    for number in range(4):
        world.submit(config={"max_attempts": 1, "openai": {"service_tier": tier}}, caller=(ALICE, OTHER)[number % 2])
        world.deliver()

    assert circuit(world).failures == failures


@pytest.mark.parametrize(
    ("config", "timeout"),
    [({}, 300.0), ({"openai": {"service_tier": "flex"}}, 840.0), ({"openai": {"service_tier": "flex"}, "timeout": 60}, 60)],
)
def test_a_flex_request_has_all_the_time_of_an_attempt_by_default(config: dict[str, Any], timeout: float) -> None:
    world = World()
    world.submit(config=config)
    world.deliver()

    assert world.provider.requests[0].timeout == timeout


def _fields(job: Job) -> dict[str, Any]:
    return {name: getattr(job, name) for name in job.__dataclass_fields__}
