"""Answers that are not streamed, not counted, served in another tier, or empty; and fallback models that refuse."""

from __future__ import annotations

from typing import Any

import pytest

from chalicelib.domain.failures import ContentRefused, ProviderUnavailable, RequestRefused
from chalicelib.domain.jobs.job import Job, Status, Usage
from chalicelib.domain.streaming.frames import incomplete_shape
from chalicelib.ports import Price, ResponseEnded
from chalicelib.services.jobs.cancel_job import cancel_job
from chalicelib.services.jobs.retry_job import retry_job
from chalicelib.services.operations.force_circuit import close_circuit, open_circuit
from tests.kit.provider import MODEL, Script
from tests.kit.world import World

PRICE = Price(input=100, cached=10, output=400)


def run(world: World, **config: Any) -> Job:
    job = world.submit(config=config)
    world.watch(job)
    world.deliver()
    return world.job(job)


# ---- without a stream


def test_an_answer_that_nobody_watches_is_not_streamed() -> None:
    world = World(Script(end=ResponseEnded(Usage(input=10, output=3), MODEL)))
    job = run(world, streaming_mode="none")

    [request] = world.provider.requests
    assert not request.stream
    assert (job.status, world.log_text(job)) == (Status.COMPLETED, "Hello, world")
    assert world.container.chunks.read(job.id, 1)[-1].progress["tokens_received"] == 3


@pytest.mark.parametrize("mode", ["realtime", "batched"])
def test_other_modes_are_streamed(mode: str) -> None:
    world = World()
    run(world, streaming_mode=mode)

    assert world.provider.requests[0].stream


def test_a_job_without_a_stream_is_cancelled_while_it_waits() -> None:
    world = World(Script(first=60.0))
    job = world.submit(config={"streaming_mode": "none"})
    world.loop.call_later(5, lambda: cancel_job(world.container, world.job(job)))

    world.deliver()

    ended = world.job(job)
    assert ended.status is Status.CANCELLED
    assert (ended.finished_at or 0) - ended.created_at < 8_000
    assert world.provider.open == 0


def test_a_job_without_a_stream_ends_at_its_timeout() -> None:
    world = World(Script(first=600.0))
    job = run(world, streaming_mode="none", timeout=100, max_attempts=1)

    assert (job.status, job.error and job.error.code) == (Status.FAILED, "timeout")
    assert len(world.provider.requests) == 1


def test_a_job_without_a_stream_is_tried_again_when_its_worker_ends() -> None:
    """The attempt does not count, and the lease is renewed meanwhile."""
    world = World(Script(first=600.0), Script())
    job = world.submit(config={"streaming_mode": "none", "timeout": 800})

    world.deliver(seconds=300)
    waiting = world.job(job)
    world.deliver()

    assert (waiting.status, waiting.tries, waiting.reason) == (Status.RETRYING, 0, "worker_ending")
    assert world.job(job).status is Status.COMPLETED
    assert not any(event == "lease_fenced" for event, _ in world.log_lines)


def test_a_durable_job_without_a_stream_is_fetched() -> None:
    world = World(Script(deltas=["Hello", ", ", "world"], every=20.0))
    job = run(world, streaming_mode="none", durable=True)

    assert (job.status, job.attempt, world.log_text(job)) == (Status.COMPLETED, 1, "Hello, world")
    assert len(world.provider.requests) == 1
    assert world.provider.fetches
    assert not world.provider.abandoned


# ---- usage and price


@pytest.mark.parametrize(("counted", "expected_input"), [(None, None), (Usage(input=7), 7)], ids=["none at all", "no output"])
def test_an_answer_that_is_not_counted_is_estimated(counted: Usage | None, expected_input: int | None) -> None:
    world = World(
        Script(deltas=["one piece with more than three words in it, so the pieces are too few"], end=ResponseEnded(counted, MODEL))
    )
    job = run(world)

    assert job.status is Status.COMPLETED
    assert job.usage is not None
    assert job.usage.estimated
    assert job.usage.output > 10
    assert job.usage.input == (expected_input or job.usage.input) > 0
    assert (job.cost or 0) > 0


def test_the_result_of_an_answer_that_is_not_counted_replaces_that_of_a_lost_worker() -> None:
    """The final event was read, so its text is complete."""
    world = World(Script(end=ResponseEnded(None, MODEL)))
    job = run(world)

    result = world.container.results.get(job.id, 1)
    assert result is not None
    assert result.is_exact


@pytest.mark.parametrize(
    ("served", "asked", "price"), [("flex", "flex", 50), ("default", "flex", 100), ("priority", None, 200), (None, None, 100)]
)
def test_an_answer_costs_what_its_service_tier_costs(served: str | None, asked: str | None, price: int) -> None:
    world = World(Script(end=ResponseEnded(Usage(input=10, output=0), MODEL, tier=served), deltas=[]))
    world.container.prices.prices = {MODEL: PRICE, f"{MODEL}@flex": Price(50, 5, 200), f"{MODEL}@priority": Price(200, 20, 800)}

    job = run(world, **({"openai": {"service_tier": asked}} if asked else {}))

    assert job.cost == 10 * price


def test_a_tier_without_a_known_price_has_no_cost() -> None:
    job = run(World(Script(end=ResponseEnded(Usage(input=10, output=3), MODEL, tier="priority"))))

    assert (job.status, job.cost) == (Status.COMPLETED, None)


def test_the_estimate_has_the_price_of_the_tier_that_is_asked_for() -> None:
    world = World()
    world.container.prices.prices |= {f"{MODEL}@priority": Price(1_500, 750, 6_000)}

    plain, priority = (world.submit(config={"openai": {"service_tier": tier}}) for tier in ("default", "priority"))

    assert priority.max_cost == 10 * (plain.max_cost or 0)


# ---- empty answers


@pytest.mark.parametrize(
    ("usage", "words"),
    [(Usage(input=20, output=4_096, reasoning=4_096), "all 4,096 output tokens went into reasoning"), (None, "went into reasoning")],
)
def test_an_empty_cut_answer_says_where_its_tokens_went(usage: Usage | None, words: str) -> None:
    world = World(Script(deltas=[], end=ResponseEnded(usage, MODEL, "max_tokens")))
    job = run(world)

    details = incomplete_shape(job)
    assert details is not None
    assert (job.status, details["reason"]) == (Status.INCOMPLETE, "max_tokens")
    assert words in details["message"]
    assert "Raise `config.max_tokens`" in details["message"]
    assert world.frames("c1", "job_incomplete")[0]["incomplete_details"] == details


@pytest.mark.parametrize(
    ("reason", "words"), [("max_tokens", "Raise `config.max_tokens`"), ("content_filter", "Change the prompt"), ("steered", "Retry")]
)
def test_every_cut_answer_says_what_helps(reason: str, words: str) -> None:
    details = incomplete_shape(run(World(Script(end=ResponseEnded(None, MODEL, reason)))))

    assert details is not None
    assert words in details["message"]


# ---- fallback models


def blocked(*scripts: Script) -> World:
    """A world in which the circuit of `gpt-4o-mini` is open."""
    world = World(*scripts)
    stores = world.container
    open_circuit(stores.circuit_breakers, stores.log, MODEL, "op", "for the test", "mark", world.clock.now())
    world.container.local_state.circuit_breakers_read_at = None
    return world


def refusal(error: Exception) -> Script:
    return Script(error=error, refuses=True)


def test_a_fallback_model_that_refuses_the_request_is_skipped() -> None:
    world = blocked(refusal(RequestRefused("Unsupported parameter: 'temperature'.")), Script())
    job = world.submit(config={"fallback_models": ["small", "big"], "temperature": 0.3})
    world.deliver()
    held = world.job(job)
    world.deliver()

    ended = world.job(job)
    assert [request.model for request in world.provider.requests] == ["small", "big"]
    assert (held.status, held.tries, held.fallback_models) == (Status.HELD, 0, ("big",))
    assert (ended.status, ended.attempt_model, ended.tries) == (Status.COMPLETED, "big", 1)
    assert [fields["model"] for event, fields in world.log_lines if event == "fallback_model_skipped"] == ["small"]


@pytest.mark.parametrize(
    "script",
    [
        Script(deltas=[], error=RequestRefused("The prompt is too long.")),
        Script(error=ContentRefused("Filtered."), refuses=True),
        Script(deltas=[], error=ContentRefused("Filtered.")),
    ],
)
def test_a_fallback_model_may_refuse_when_its_stream_is_open_or_because_of_the_content(script: Script) -> None:
    """Some servers open the stream before they look at the request. The job's own model may take it."""
    world = blocked(script, Script())
    job = world.submit(config={"fallback_models": ["small", "big"]})
    world.deliver()
    world.deliver()

    assert [request.model for request in world.provider.requests] == ["small", "big"]
    assert (world.job(job).status, world.job(job).tries) == (Status.COMPLETED, 1)


def test_a_fallback_model_that_fails_after_some_text_ends_the_job() -> None:
    world = blocked(Script(deltas=["Hel"], error=RequestRefused("No.")), Script())
    job = world.submit(config={"fallback_models": ["small", "big"]})
    world.deliver()

    assert (world.job(job).status, len(world.provider.requests)) == (Status.FAILED, 1)


def test_a_job_whose_fallback_models_all_refuse_waits_for_its_own() -> None:
    world = blocked(refusal(RequestRefused()), refusal(RequestRefused()), Script())
    job = world.submit(config={"fallback_models": ["small", "big"]})
    for _ in range(4):
        world.deliver()
    waiting, asked = world.job(job), len(world.provider.requests)
    close_circuit(world.container.circuit_breakers, world.container.log, MODEL, "op", "mark-2", world.clock.now())
    world.container.local_state.circuit_breakers_read_at = None
    world.clock.advance(1_000)
    world.sweep()
    world.deliver()

    assert (waiting.status, waiting.reason, waiting.tries, asked) == (Status.HELD, "circuit_open", 0, 2)
    assert (world.job(job).status, world.provider.requests[-1].model) == (Status.COMPLETED, MODEL)


def test_a_refusal_of_the_jobs_own_model_still_ends_the_job() -> None:
    world = World(refusal(RequestRefused("No.")))
    job = run(world, fallback_models=["small"])

    assert (job.status, len(world.provider.requests)) == (Status.FAILED, 1)


def test_another_failure_of_a_fallback_model_uses_up_an_attempt() -> None:
    world = blocked(refusal(ProviderUnavailable()), Script())
    job = world.submit(config={"fallback_models": ["small"]})
    world.deliver()

    assert (world.job(job).status, world.job(job).tries, world.job(job).fallback_models) == (Status.RETRYING, 1, ("small",))


def test_a_new_run_asks_all_fallback_models_again() -> None:
    world = blocked(refusal(RequestRefused()), Script())
    job = world.submit(config={"fallback_models": ["small"]})
    world.deliver()
    cancel_job(world.container, world.job(job))
    retry_job(world.container, world.job(job))
    world.deliver()

    assert [request.model for request in world.provider.requests] == ["small", "small"]
    assert world.job(job).status is Status.COMPLETED
