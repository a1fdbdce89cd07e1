"""A rate limit: all jobs of the model wait together, and no attempt is used up."""

from __future__ import annotations

from typing import Any

import pytest

from chalicelib.domain.failures import AttemptFailed, ProviderRateLimited, ProviderUnavailable, StreamCut
from chalicelib.domain.jobs.job import Status
from chalicelib.domain.limits.circuit_breaker import CircuitBreaker, CircuitState
from chalicelib.domain.limits.rate_limit import ACCOUNT, RateLimit
from chalicelib.domain.limits.sliding_window import used
from chalicelib.domain.queues.wakeup import Grant, WakeUp
from chalicelib.domain.rate_headers import Refusal
from chalicelib.ports import QueueMessage
from tests.kit.failing_store import refusing
from tests.kit.live_stage import run_until
from tests.kit.provider import Script
from tests.kit.world import ALICE, World
from tests.unit.services.worker.admission.test_circuit_gate import (
    MODEL,
    OTHER,
    WHOLE,
    advance,
    circuit,
    events,
    refusal,
    run_until_ended,
)

HOUR = 3_600


def limited(seconds: int | None = None) -> Script:
    return refusal(ProviderRateLimited(retry_after=seconds))


def rate(world: World) -> RateLimit:
    """What was learnt about the model."""
    found = world.container.rates.limit(ACCOUNT, MODEL)
    assert found is not None
    return found


def test_a_rate_limit_uses_up_no_attempt_however_often_it_comes() -> None:
    world = World(*[limited(3)] * 9, WHOLE)
    job = world.submit(config={"max_attempts": 1})

    run_until_ended(world, job, seconds=600)

    ended = world.job(job)
    assert (ended.status, ended.tries, ended.error) == (Status.COMPLETED, 1, None)
    assert (circuit(world).state, circuit(world).failures, circuit(world).trips) == (CircuitState.CLOSED, 0, 0)


def test_the_first_refused_job_pauses_the_model_for_all_jobs() -> None:
    """Of other tenants, too. They wait without an attempt, with the reason and the time."""
    world = World(limited(HOUR), WHOLE)
    first = world.submit()
    world.deliver()
    others = [world.submit(caller=OTHER), world.submit()]
    world.deliver()

    waiting = [world.job(job) for job in (first, *others)]
    assert [(job.status, job.reason, job.tries) for job in waiting] == [(Status.HELD, "rate_limited", 0)] * 3
    assert [job.attempt for job in waiting] == [1, 0, 0]
    assert len(world.provider.requests) == 1
    assert {(job.resume_at, job.cause) for job in waiting} == {(rate(world).blocked_until, f"rate:{MODEL}")}
    assert [event["model"] for event in events(world, "model_paused")] == [MODEL]

    other_model = world.submit(config={"model": "big"})
    world.deliver()
    assert world.job(other_model).status is Status.COMPLETED
    run_until_ended(world, first, *others, seconds=HOUR + 120)
    assert len(world.provider.requests) == 5


@pytest.mark.parametrize("seconds", [1, 899, 901, HOUR, 20 * HOUR])
def test_no_request_is_made_before_the_wait_is_over(seconds: int) -> None:
    """Also beyond fifteen minutes, the most that a message of SQS can be delayed: the sweep wakes the job then."""
    world = World(limited(seconds), WHOLE)
    job = world.submit()
    world.deliver()
    asked_at = world.clock.now()
    assert (world.job(job).resume_at or 0) - asked_at >= (seconds - 1) * 1000

    run_until_ended(world, job, seconds=seconds + 200)

    assert (world.job(job).started_at or 0) <= asked_at
    assert world.clock.now() - asked_at >= (seconds - 1) * 1000
    assert (world.job(job).status, len(world.provider.requests)) == (Status.COMPLETED, 2)


def test_a_job_whose_wait_would_outlast_its_time_fails_at_once_with_a_true_suggestion() -> None:
    world = World(refusal(ProviderRateLimited("OpenAI says: Slow down.", retry_after=HOUR)), WHOLE)
    job = world.submit(config={"retry_for": 600})
    world.deliver()

    failed = world.job(job)
    assert (failed.status, failed.error and failed.error.code) == (Status.FAILED, "provider_rate_limited")
    assert failed.error is not None
    assert failed.error.message == "OpenAI says: Slow down."
    assert "goes on" not in failed.error.suggestion
    assert "retry" in failed.error.suggestion.lower()


def test_a_limit_in_the_stream_waits_as_well_and_costs_nothing() -> None:
    """The response had begun, but there was no text."""
    world = World(Script(deltas=[], error=ProviderRateLimited(retry_after=5)), WHOLE)
    job = world.submit(config={"max_attempts": 1})
    world.deliver()

    assert (world.job(job).status, world.job(job).tries, world.job(job).cost) == (Status.HELD, 0, None)
    run_until_ended(world, job, seconds=60)
    assert world.job(job).status is Status.COMPLETED


def test_a_limit_after_some_text_counts_as_an_attempt() -> None:
    """Otherwise a job that is paid for each time would never end."""
    world = World(Script(deltas=["x"], error=ProviderRateLimited(retry_after=5)))
    job = world.submit(config={"max_attempts": 2})

    run_until_ended(world, job, seconds=600)

    assert (world.job(job).status, world.job(job).attempt) == (Status.FAILED, 2)


def test_a_limit_of_cheap_requests_pauses_nobody_else() -> None:
    """The service tier `flex` answers 429 while it has no capacity."""
    error = ProviderRateLimited()
    error.is_shared = False
    world = World(refusal(error), WHOLE)
    alone = world.submit()
    world.deliver()
    other = world.submit()
    world.deliver()

    assert (world.job(alone).status, world.job(other).status) == (Status.HELD, Status.COMPLETED)
    run_until_ended(world, alone, seconds=60)


def test_a_job_that_is_refused_each_time_does_not_keep_others_waiting() -> None:
    """Its first refusal pauses the model for a moment; after others were answered it waits alone."""
    world = World(limited(), WHOLE, limited(), WHOLE, WHOLE)
    odd = world.submit()
    world.deliver()
    other = world.submit(caller=OTHER)
    world.clock.advance(3)
    world.provider.scripts[1:3] = [WHOLE, limited()]
    world.deliver(messages=[world.wake(world.job(other))])
    assert world.job(other).status is Status.COMPLETED
    world.deliver(messages=[world.wake(world.job(odd))])
    assert world.job(odd).status is Status.HELD

    third = world.submit(caller=OTHER)
    world.deliver(messages=[world.wake(world.job(third))])

    assert world.job(third).status is Status.COMPLETED


@pytest.mark.parametrize(("seconds", "model"), [(30, None), (HOUR, "big")])
def test_a_fallback_model_is_used_during_long_pauses_only(seconds: int, model: str | None) -> None:
    world = World(limited(seconds), WHOLE)
    first = world.submit(config={"fallback_models": ["big"]})
    world.deliver()
    second = world.submit(config={"fallback_models": ["big"]})
    advance(world, 1)

    run_until_ended(world, first, second, seconds=120)

    assert {world.job(job).attempt_model for job in (first, second)} == {model}


def test_a_probe_that_meets_a_rate_limit_leaves_the_circuit_open_and_pauses() -> None:
    world = World(limited(60), WHOLE)
    opened = CircuitBreaker(model=MODEL, state=CircuitState.OPEN, until=world.clock.now() - 1, opened_at=1, trips=1, version=1)
    world.container.circuit_breakers.replace(CircuitBreaker(model=MODEL), opened)
    job = world.submit()
    world.deliver()

    assert (world.job(job).status, world.job(job).reason) == (Status.HELD, "rate_limited")
    assert circuit(world).state is CircuitState.OPEN
    assert (rate(world).blocked_until or 0) > world.clock.now()
    run_until_ended(world, job, seconds=200)


@pytest.mark.parametrize("method", ["all_with_board", "replace"])
def test_a_job_waits_for_its_own_limit_while_the_store_of_circuits_is_down(method: str) -> None:
    world = World(limited(HOUR), WHOLE)
    with refusing(world.container.circuit_breakers, method, 10**6):
        job = world.submit(config={"max_attempts": 1})
        world.deliver()
        if method == "all_with_board":  # the pauses are read with the circuits, and the job waits once for them
            assert world.job(job).reason == "pauses_unknown"
            world.clock.advance(8)
            world.deliver()
        held = world.job(job)

    assert (held.status, held.reason, held.tries) == (Status.HELD, "rate_limited", 0)
    assert (held.resume_at or 0) - world.clock.now() >= (HOUR - 2) * 1000


def test_a_lost_wake_up_of_a_job_that_waits_is_sent_again_by_the_sweep() -> None:
    world = World(limited(5), WHOLE)
    job = world.submit()
    with refusing(world.container.queues, "send", 1):
        world.deliver()
    assert world.job(job).status is Status.HELD

    run_until_ended(world, job, seconds=300)

    assert world.job(job).status is Status.COMPLETED


def test_a_batch_of_jobs_under_a_limit_completes_in_little_more_than_the_least_time() -> None:
    """Sixty jobs against twenty requests a minute, where the provider says "in 3 s" and names no limit."""
    world = World()
    times: list[int] = []

    def script() -> Script:
        now = world.clock.now()
        while times and now - times[0] > 60_000:
            times.pop(0)
        if len(times) >= 20:
            return limited(3)
        times.append(now)
        return WHOLE

    world.provider.scripts = _Scripts(script)  # type: ignore[assignment]
    jobs = [world.submit(config={"max_attempts": 1}) for _ in range(60)]

    assert run_until(world, lambda: all(world.job(job).status.is_terminal for job in jobs), 240)

    assert {(world.job(job).status, world.job(job).tries) for job in jobs} == {(Status.COMPLETED, 1)}
    assert len(world.provider.requests) < 60 * 10


def test_a_named_limit_is_learnt_and_hardly_ever_met_again() -> None:
    """Two hundred jobs of two tenants against sixty requests a minute: they are refused when all come at once, and hardly later."""
    world = World()
    times: list[int] = []
    refused: list[int] = []

    def script() -> Script:
        now = world.clock.now()
        while times and now - times[0] >= 60_000:
            times.pop(0)
        if len(times) >= 60:
            refused.append(now)
            error = ProviderRateLimited(retry_after=1)
            error.refusal = Refusal(kind="requests", limit=60, used=60, requested=1, wait=1_000)
            return refusal(error)
        times.append(now)
        return WHOLE

    world.provider.scripts = _Scripts(script)  # type: ignore[assignment]
    jobs = [world.submit(config={"max_attempts": 1}, caller=caller) for caller in (ALICE, OTHER) for _ in range(100)]

    assert run_until(world, lambda: all(world.job(job).status.is_terminal for job in jobs), 1.3 * 180)

    assert {(world.job(job).status, world.job(job).tries) for job in jobs} == {(Status.COMPLETED, 1)}
    assert rate(world).requests == 60
    assert sum(at > refused[0] for at in refused) < 200 * 0.3


def test_a_request_above_the_limit_alone_fails_before_it_is_sent() -> None:
    world = World(WHOLE)
    limit = RateLimit(model=MODEL, account=ACCOUNT, configured_tokens=1_000, version=1)
    world.container.rates.save_limit(RateLimit(model=MODEL, account=ACCOUNT), limit)
    job = world.submit(config={"max_tokens": 2_000})
    world.deliver()

    failed = world.job(job)
    assert (failed.status, failed.error and failed.error.code) == (Status.FAILED, "request_invalid")
    assert failed.error is not None
    assert "1,000 tokens a minute" in failed.error.message
    assert world.provider.requests == []


def test_a_job_keeps_within_the_limit_while_the_lines_cannot_be_read() -> None:
    world = World(WHOLE)
    limit = RateLimit(model=MODEL, account=ACCOUNT, configured_requests=2, version=1)
    world.container.rates.save_limit(RateLimit(model=MODEL, account=ACCOUNT), limit)
    with refusing(world.container.lines, "held", 10**6) as calls:
        jobs = [world.submit() for _ in range(3)]
        world.deliver()

    statuses = sorted(world.job(job).status for job in jobs)
    assert calls[0] >= 3
    assert statuses == [Status.COMPLETED, Status.COMPLETED, Status.HELD]
    assert len(world.provider.requests) == 2
    assert {event["cause"] for event in events(world, "rate_line_unavailable")} == {f"rate:{MODEL}"}


def test_a_grant_that_comes_twice_stays_counted() -> None:
    """The copy whose claim comes too late gives nothing back, because the job that runs uses it."""
    world = World(WHOLE)
    limit = RateLimit(model=MODEL, account=ACCOUNT, configured_requests=2, version=1)
    world.container.rates.save_limit(RateLimit(model=MODEL, account=ACCOUNT), limit)
    job, now = world.submit(), world.clock.now()
    world.container.rates.take(ACCOUNT, MODEL, job.tokens, 1, now)
    wake_up = WakeUp(job.id, job.generation, Grant(f"rate:{MODEL}", now, job.tokens)).to_json()

    world.deliver(messages=[QueueMessage(wake_up, "r1"), QueueMessage(wake_up, "r2")])

    assert (world.job(job).status, len(world.provider.requests)) == (Status.COMPLETED, 1)
    assert used(world.container.rates.frames(ACCOUNT, MODEL, now), now) == (1, job.tokens)


class _Scripts:
    """Decides on each request when it comes."""

    def __init__(self, decide: Any) -> None:
        self._decide = decide

    def __len__(self) -> int:
        return 10**9

    def __getitem__(self, _: int) -> Script:
        script: Script = self._decide()
        return script


@pytest.mark.parametrize(
    ("error", "words"),
    [(ProviderUnavailable(), "is retried"), (StreamCut(), "is retried"), (ProviderRateLimited(retry_after=9), "goes on")],
)
def test_a_suggestion_is_true_in_the_state_of_the_job(error: AttemptFailed, words: str) -> None:
    """While it goes on, and when it has failed."""
    world = World(refusal(error))
    job = world.submit(config={"max_attempts": 2, "retry_for": 30})
    world.deliver()
    waiting = world.job(job)
    assert waiting.error is not None
    assert words in waiting.error.suggestion

    run_until_ended(world, job, seconds=200)

    failed = world.job(job)
    assert failed.error is not None
    assert failed.status is Status.FAILED
    assert words not in failed.error.suggestion
    assert failed.error.suggestion
