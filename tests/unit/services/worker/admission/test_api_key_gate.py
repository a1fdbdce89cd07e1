"""A missing OpenAI API key: jobs are held until there is one, or answered by a local fallback."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from chalicelib import job_types
from chalicelib.domain.failures import AddressInvalid, AttemptFailed, NotConfigured, ProviderUnavailable, WorkerMisconfigured
from chalicelib.domain.jobs.job import Job, Status, Usage
from chalicelib.domain.limits.circuit_breaker import CircuitBreaker, CircuitState, force_open
from chalicelib.domain.queues.causes import MISSING_KEY
from chalicelib.domain.validation.schema import problems
from chalicelib.job_types._shared.story_scoring import score_story
from chalicelib.services.scheduling.visits import ask_for_visit
from chalicelib.services.worker.admission.api_key_gate import CACHE_TTL_MS
from tests.kit.provider import Script
from tests.kit.world import World

STORY = {"title": "A miracle battery!", "content": "It charges instantly. Nobody measured it.", "impact_tags": ["climate"]}
SCHEMA = job_types.get("story_enhancement").response_schema
WHOLE = Script(deltas=["whole"])


def keyless(*scripts: Script) -> World:
    world = World(*scripts)
    world.provider.has_key = False
    return world


def story(world: World, **fields: Any) -> Job:
    return world.submit(prompt=None, job_type="story_enhancement", input=STORY, **fields)  # type: ignore[arg-type]


def run_for(world: World, job: Job, seconds: float) -> None:
    """Deliver due messages and sweep every minute, until the job ends or the time is over."""
    end = world.clock.now() + seconds * 1000
    while world.clock.now() < end and not world.job(job).status.is_terminal:
        world.clock.advance(20)
        world.deliver()
        if world.clock.now() // 1000 % 60 < 20:
            world.sweep()


def missing_key_events(world: World) -> int:
    return [fact for fact, _ in world.log_lines].count("openai_not_configured")


def test_a_job_is_held_without_an_api_key_and_runs_once_there_is_one() -> None:
    """Waiting uses up no attempt and writes nothing, however long it lasts."""
    world = keyless(WHOLE)
    job = world.submit()

    run_for(world, job, 3_600)
    waiting = world.job(job)
    world.provider.has_key = True
    run_for(world, job, 120)

    assert (waiting.status, waiting.reason) == (Status.HELD, "openai_not_configured")
    assert (waiting.attempt, waiting.tries, waiting.error) == (0, 0, None)
    assert (waiting.cause, waiting.generation, waiting.version) == ("openai:key", 2, 2)
    done = world.job(job)
    assert (done.status, done.attempt, world.log_text(done)) == (Status.COMPLETED, 1, "whole")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (AddressInvalid("There is no Responses API at http://h/v1/responses."), "openai_address_invalid"),
        (WorkerMisconfigured("The worker lacks the package socksio."), "worker_misconfigured"),
        (ModuleNotFoundError("No module named 'socksio'", name="socksio"), "worker_misconfigured"),
    ],
)
def test_a_job_waits_for_an_address_or_a_worker_that_cannot_be_used(error: Exception, reason: str) -> None:
    """The sentence is on the job, no attempt is used up, and other jobs are not kept from theirs."""
    world = World(Script(error=error, refuses=True), WHOLE)
    job = world.submit(config={"max_attempts": 1})
    world.deliver()
    held = world.job(job)
    other = world.submit()
    world.deliver()

    assert (held.status, held.reason, held.tries) == (Status.HELD, reason, 0)
    assert held.error is not None
    assert "http://h/v1/responses" in held.error.message or "socksio" in held.error.message
    assert world.job(other).status is Status.COMPLETED
    run_for(world, job, 400)
    assert world.job(job).status is Status.COMPLETED


def test_a_visit_after_storing_a_key_runs_a_held_job_at_once() -> None:
    """An operator need not wait for the next look at the key."""
    world = keyless(WHOLE)
    job = world.submit()
    world.deliver()
    world.provider.has_key = True
    world.clock.advance(CACHE_TTL_MS / 1000)

    ask_for_visit(world.container, MISSING_KEY)
    world.deliver()

    assert world.job(job).status is Status.COMPLETED


def test_a_missing_api_key_is_logged_once_per_interval() -> None:
    """Alerts use this log line, so it must not repeat for each job."""
    world = keyless()
    for _ in range(20):
        world.submit()

    world.deliver(messages=world.container.queues.receive("normal", 20))
    first = missing_key_events(world)
    world.clock.advance(400)
    world.deliver()

    assert first == 1
    assert missing_key_events(world) == 2


def test_a_job_held_without_an_api_key_expires_in_time() -> None:
    world = keyless()
    job = world.submit(expires_in=900.0)

    run_for(world, job, 3_600)

    ended = world.job(job)
    assert (ended.status, ended.attempt) == (Status.EXPIRED, 0)
    assert (ended.finished_at or 0) - ended.created_at < 1_000_000


def test_a_job_is_held_if_the_api_key_disappears_during_an_attempt() -> None:
    """No response had begun, so the attempt does not count against `max_attempts`."""
    world = World(Script(error=NotConfigured(), refuses=True), WHOLE)
    job = world.submit(config={"max_attempts": 1})

    world.deliver()
    held = world.job(job)
    run_for(world, job, 400)

    assert (held.status, held.reason, held.tries, held.attempt) == (Status.HELD, "openai_not_configured", 0, 1)
    assert held.error is not None
    assert held.error.code == "openai_not_configured"
    assert world.job(job).status is Status.COMPLETED
    assert missing_key_events(world) == 1


def test_a_job_type_with_a_local_fallback_answers_without_an_api_key() -> None:
    """Nothing is charged, and the result is marked as a fallback."""
    world = keyless()
    job = story(world)
    world.watch(job)

    world.deliver()

    done = world.job(job)
    kept = world.container.results.get(job.id, 1)
    assert kept is not None
    assert (done.status, done.cost, done.usage, done.attempt) == (Status.COMPLETED, 0, Usage(), 1)
    assert (kept.model, kept.fallback, kept.cost, kept.usage) == ("local", True, 0, Usage())
    assert world.log_text(done) == kept.text == world.assembled().text
    assert json.loads(kept.text) == kept.parsed
    assert float(world.container.chunks.read(job.id, 1)[-1].progress["cost_so_far"] or 0) == 0
    assert SCHEMA is not None
    assert problems(SCHEMA, kept.parsed) == ()
    assert kept.parsed["source"] == "local_fallback"
    assert missing_key_events(world) == 1
    assert world.provider.requests == []


def test_a_durable_job_is_answered_by_the_local_fallback_too() -> None:
    world = keyless()
    job = story(world, config={"durable": True})

    world.deliver()

    assert world.job(job).status is Status.COMPLETED
    assert json.loads(world.log_text(job))["source"] == "local_fallback"


@pytest.mark.parametrize("refuses", [True, False])
def test_the_local_fallback_is_not_used_when_openai_fails(refuses: bool) -> None:
    """With an API key, a failure of the provider is retried."""
    world = World(Script(deltas=["half"], error=ProviderUnavailable(), refuses=refuses))
    job = story(world, config={"max_attempts": 2})

    world.deliver()
    again = world.job(job)
    run_for(world, job, 60)

    assert again.status is Status.RETRYING
    assert world.job(job).status is Status.FAILED
    assert not any(one.fallback for one in world.container.results.attempts(job.id))
    assert missing_key_events(world) == 0


def test_a_custom_response_format_disables_the_local_fallback() -> None:
    """The fallback could not follow that schema, so the job is held."""
    world = keyless()
    own = {"type": "json_schema", "name": "mine", "schema": {"type": "object"}}
    job = story(world, config={"response_format": own})

    world.deliver()

    held = world.job(job)
    assert (held.status, held.reason, held.tries) == (Status.HELD, "openai_not_configured", 0)


def test_a_local_fallback_answer_does_not_close_the_circuit() -> None:
    """Only an answer of OpenAI proves that the model works."""
    world = keyless()
    before = CircuitBreaker(model="gpt-4o-mini")
    due = replace(force_open(before, "olga", None, "m", world.clock.now()), until=world.clock.now(), by=None)
    world.container.circuit_breakers.replace(before, due)
    job = story(world)

    world.deliver()

    assert world.job(job).status is Status.COMPLETED
    after = world.container.circuit_breakers.get("gpt-4o-mini")
    assert after is not None
    assert after.state is CircuitState.OPEN


def test_an_answer_out_of_bounds_is_retried_and_its_raw_text_kept() -> None:
    bad = json.dumps({**score_story(STORY, {}), "hype_score": 11})
    world = World(Script(deltas=[bad]))
    job = story(world, config={"max_attempts": 2})

    world.deliver()
    first = world.job(job)
    run_for(world, job, 60)

    assert (first.status, first.reason) == (Status.RETRYING, "output_invalid")
    ended = world.job(job)
    assert (ended.status, ended.attempt) == (Status.FAILED, 2)
    assert ended.error is not None
    assert (ended.error.code, ended.error.retryable) == ("output_invalid", True)
    assert "hype_score must be a number between 0 and 10, not 11" in ended.error.message
    for attempt in (1, 2):
        kept = world.container.results.get(job.id, attempt)
        assert kept is not None
        assert (kept.text, kept.parsed, kept.fallback) == (bad, None, False)


@pytest.mark.parametrize("error", [AttemptFailed, ProviderUnavailable])
def test_other_provider_errors_do_not_hold_the_job_for_a_key(error: type[AttemptFailed]) -> None:
    world = World(Script(error=error(), refuses=True))
    job = world.submit(config={"max_attempts": 1})

    world.deliver()

    assert world.job(job).status is Status.FAILED
