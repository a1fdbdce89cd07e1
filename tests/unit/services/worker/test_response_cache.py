"""The response cache: an equal request of the tenant gets an earlier answer and costs nothing."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest

from chalicelib.domain.errors import Throttled
from chalicelib.domain.execution.response_cache import CachedResponse
from chalicelib.domain.execution.result import Result
from chalicelib.domain.failures import ProviderUnavailable
from chalicelib.domain.jobs.job import Job, Status, Usage
from chalicelib.domain.limits.circuit_breaker import CircuitBreaker, CircuitState, origin_of, record_failure
from chalicelib.ports import ModelRequest, ResponseEnded
from chalicelib.services.jobs.cancel_job import cancel_job
from chalicelib.services.worker.response_cache import TRANSPORT_FIELDS, cache_key
from tests.kit.failing_store import refusing
from tests.kit.provider import MODEL, Script
from tests.kit.world import World, kill

REPORT = json.dumps({"summary": "Two things are wrong.", "findings": []})
FIRST, SECOND = Script(), Script(deltas=("Another", " answer"))
OTHER: dict[str, Any] = {
    "model": "gpt-4o",
    "prompt": "Say goodbye.",
    "instructions": "Be brief.",
    "max_tokens": 17,
    "temperature": 0.5,
    "schema": {"name": "answer", "schema": {"type": "object"}, "strict": True},
    "json": True,
    "extra": {"top_p": 0.5},
    "timeout": 7.0,
    "background": True,
    "stream": False,
}


def run_job(world: World, prompt: str = "Say hello.", cache: Any = True, **config: Any) -> Job:
    """Submit a job, run it and return its record."""
    job = world.submit(prompt, config={"cache": cache, **config})
    world.watch(job, f"c-{job.id}")
    world.deliver()
    return world.job(job)


def result(world: World, job: Job) -> Result:
    found = world.container.results.get(job.id, job.attempt)
    assert found is not None
    return found


def is_hit(world: World, job: Job) -> bool:
    lookup = result(world, job).looked_up
    assert lookup is not None
    return lookup.hit


# ---- cache keys


@pytest.mark.parametrize("field", [field.name for field in fields(ModelRequest)])
def test_the_cache_key_covers_every_request_field_but_transport_fields(field: str) -> None:
    request = ModelRequest(model=MODEL, prompt="Say hello.")

    same = cache_key("acme", "general", request) == cache_key("acme", "general", replace(request, **{field: OTHER[field]}))

    assert same is (field in TRANSPORT_FIELDS)


def test_tenants_and_job_types_have_separate_cache_keys() -> None:
    request = ModelRequest(model=MODEL, prompt="Say hello.")

    keys = {cache_key(tenant, kind, request) for tenant in ("acme", "other") for kind in ("general", "security_analysis")}

    assert len(keys) == 4


def test_the_cache_key_ignores_the_order_of_dict_keys() -> None:
    one, other = (ModelRequest(model=MODEL, prompt="", extra=extra) for extra in ({"a": 1, "b": 2}, {"b": 2, "a": 1}))

    assert cache_key("acme", "general", one) == cache_key("acme", "general", other)


# ---- hits


def test_an_equal_request_is_answered_from_the_cache() -> None:
    """The answer is streamed like any other, costs nothing and names the original job."""
    world = World(FIRST, SECOND)
    first = run_job(world)

    second = run_job(world)

    assert len(world.provider.requests) == 1
    assert (second.status, second.attempt, second.usage, second.cost) == (Status.COMPLETED, 1, Usage(), 0)
    assert world.log_text(second) == "Hello, world"
    assert world.assembled(f"c-{second.id}").text == "Hello, world"
    lookup = result(world, second).looked_up
    assert lookup is not None
    assert (lookup.job_id, lookup.hit) == (first.id, True)
    assert result(world, second).model == MODEL
    assert result(world, second).cost == 0


def test_a_cache_miss_is_recorded_only_if_caching_was_requested() -> None:
    world = World(FIRST)

    missed, uncached = run_job(world), run_job(world, cache=False)

    assert is_hit(world, missed) is False
    assert result(world, uncached).looked_up is None


def test_a_job_without_caching_makes_no_cache_call() -> None:
    world = World(FIRST)

    with refusing(world.container.cache, "get", 99) as reads, refusing(world.container.cache, "put", 99) as writes:
        job = run_job(world, cache=False)

    assert job.status is Status.COMPLETED
    assert (reads, writes) == ([0], [0])


def test_the_progress_of_a_cached_answer_is_computed_from_its_text() -> None:
    """Tokens, percentage and stages are those of a generated answer of that length."""
    text = "".join(f"word{number} " for number in range(300))
    world = World(Script(deltas=text.split(" "), every=0.01, end=ResponseEnded(Usage(input=9, output=300), MODEL)))
    run_job(world)

    job = run_job(world)
    last = world.container.chunks.last(job.id, 1)

    assert last is not None
    assert last.progress["tokens_received"] == 300
    assert last.progress["progress_percentage"] == 45.0
    assert last.progress["cost_so_far"] in ("0.000000", None)
    assert [event["name"] for event in last.events if event["status"] == "processing"] == ["setup", "generation", "finalization"]


def test_a_cached_structured_answer_is_parsed() -> None:
    world = World(Script(deltas=(REPORT,)))
    kind = {"type": "json_schema", "schema": {"type": "object", "required": ["summary"]}}
    run_job(world, response_format=kind)

    job = run_job(world, response_format=kind)

    assert is_hit(world, job)
    assert result(world, job).parsed == json.loads(REPORT)


def test_a_durable_job_is_answered_from_the_cache() -> None:
    """`durable` only affects transport and is not part of the cache key."""
    world = World(FIRST)
    run_job(world)

    job = run_job(world, durable=True)

    assert is_hit(world, job)
    assert not world.provider.responses


# ---- misses


@pytest.mark.parametrize(("write_ttl", "read_ttl", "hit"), [(60, 60, True), (60, 20, False), (20, 60, False), (60, None, False)])
def test_a_cached_answer_is_used_within_the_ttl_of_both_jobs(write_ttl: float, read_ttl: float | None, hit: bool) -> None:
    """The TTL of the writing job and the TTL of the reading job both apply."""
    world = World(FIRST)
    run_job(world, cache={"ttl": write_ttl})
    world.clock.advance(30)

    run_job(world, cache=read_ttl and {"ttl": read_ttl})

    assert len(world.provider.requests) == (1 if hit else 2)


def test_a_cache_hit_does_not_extend_the_ttl() -> None:
    """Otherwise a popular answer would never expire."""
    world = World(FIRST)
    run_job(world, cache={"ttl": 60})
    world.clock.advance(40)
    assert is_hit(world, run_job(world, cache={"ttl": 60}))
    world.clock.advance(40)

    assert not is_hit(world, run_job(world, cache={"ttl": 60}))


def test_a_cached_answer_is_fresh_for_a_clock_that_is_behind() -> None:
    assert CachedResponse(job_id="j", attempt=1, stored_at=5_000, expires_at=65_000).is_fresh(20, 4_000)


@pytest.mark.parametrize(
    "script",
    [
        Script(end=ResponseEnded(Usage(input=10, output=3), MODEL, "max_tokens")),
        Script(end=ResponseEnded(None, MODEL)),
        Script(end=ResponseEnded(Usage(input=10), MODEL)),
    ],
    ids=["cut", "no usage", "no output tokens"],
)
def test_cut_or_uncounted_answers_are_not_cached(script: Script) -> None:
    world = World(script)
    run_job(world)

    assert world.container.cache.rows == {}


def test_a_failed_job_caches_nothing() -> None:
    world = World(Script(error=ProviderUnavailable()))

    run_job(world, max_attempts=1)

    assert world.container.cache.rows == {}


def test_the_answer_of_a_deleted_job_is_a_cache_miss() -> None:
    """So is the answer of a job whose retention has ended."""
    world = World(FIRST)
    first = run_job(world)
    world.container.results.delete_all(first.id)
    second = run_job(world)
    assert not is_hit(world, second)
    record = world.container.jobs.records[second.id]
    world.container.jobs.records[second.id] = replace(record, ttl=(record.finished_at or 0) // 1000)

    assert not is_hit(world, run_job(world))


def test_a_cached_text_longer_than_the_job_record_says_is_not_used() -> None:
    world = World(FIRST)
    first = run_job(world)
    world.container.jobs.records[first.id] = replace(world.container.jobs.records[first.id], length=5)

    assert not is_hit(world, run_job(world))


def test_a_request_for_another_model_is_a_cache_miss() -> None:
    world = World(FIRST)
    run_job(world)

    assert not is_hit(world, run_job(world, model="gpt-4o"))


@pytest.mark.parametrize(("store", "method"), [("cache", "get"), ("results", "get")])
def test_an_unreadable_cache_is_a_miss(store: str, method: str) -> None:
    world = World(FIRST)
    run_job(world)

    with refusing(getattr(world.container, store), method, 99):
        job = run_job(world)

    assert job.status is Status.COMPLETED
    assert not is_hit(world, job)


# ---- writes to the cache


def test_the_cache_reference_is_written_after_the_terminal_record() -> None:
    """A crash in between causes a later miss, never a wrong hit."""
    world = World(FIRST, SECOND)
    order: list[str] = []
    results, jobs, cache = world.container.results, world.container.jobs, world.container.cache

    def noted(name: str, call: Any) -> Any:
        def note(*args: Any) -> Any:
            if name != "job record" or args[1].status is Status.COMPLETED:
                order.append(name)
            return call(*args)

        return note

    for store, method, name in ((results, "put", "result"), (jobs, "replace", "job record"), (cache, "put", "reference")):
        setattr(store, method, noted(name, getattr(store, method)))

    run_job(world)

    assert order == ["result", "job record", "reference"]


def test_a_worker_killed_before_the_terminal_write_caches_nothing() -> None:
    """The sweeper completes the job from its stored result."""
    world = World(FIRST, SECOND)
    job = world.submit(config={"cache": True})
    real = world.container.jobs.replace

    def fail_terminal_write(seen: Job, new: Job) -> None:
        if new.status is Status.COMPLETED:
            raise Throttled
        real(seen, new)

    world.container.jobs.replace = fail_terminal_write  # type: ignore[method-assign]
    kill(world, 5)
    world.container.jobs.replace = real  # type: ignore[method-assign]
    assert result(world, world.job(job)).status == Status.COMPLETED
    world.sweep(after=90)

    assert world.job(job).status is Status.COMPLETED
    assert world.container.cache.rows == {}
    assert not is_hit(world, run_job(world))


def test_a_failed_cache_write_is_logged_and_the_job_completes() -> None:
    world = World(FIRST)

    with refusing(world.container.cache, "put", 99):
        job = run_job(world)

    assert job.status is Status.COMPLETED
    assert not is_hit(world, run_job(world))
    assert [fact for fact, _ in world.log_lines].count("response_not_cached") == 1


# ---- with other features


def test_a_cached_answer_does_not_close_the_circuit() -> None:
    """The job was let through as the probe of an open circuit."""
    world = World(FIRST)
    run_job(world)
    opened = record_failure(
        CircuitBreaker(model=MODEL), "provider_quota_exhausted", world.clock.now(), origin_of("m", "acme", "job"), world.clock.now()
    )
    world.container.circuit_breakers.replace(CircuitBreaker(model=MODEL), opened)
    world.clock.advance(60)

    job = run_job(world)

    circuit = world.container.circuit_breakers.get(MODEL)
    assert is_hit(world, job)
    assert circuit is not None
    assert circuit.state is not CircuitState.CLOSED


def test_a_retry_uses_an_answer_that_another_job_has_cached() -> None:
    world = World(Script(error=ProviderUnavailable()), FIRST)
    failing = run_job(world)
    assert failing.status is Status.RETRYING
    run_job(world)
    world.clock.advance(10)

    world.deliver()

    ended = world.job(failing)
    assert (ended.status, ended.attempt, ended.usage) == (Status.COMPLETED, 2, Usage())
    assert is_hit(world, ended)


def test_a_cancel_during_the_cache_lookup_wins() -> None:
    world = World(FIRST)
    run_job(world)
    job = world.submit(config={"cache": True})
    real = world.container.cache.get

    def cancel_first(tenant: str, key: str) -> CachedResponse | None:
        cancel_job(world.container, world.job(job))
        return real(tenant, key)

    world.container.cache.get = cancel_first  # type: ignore[method-assign]
    world.deliver()

    assert world.job(job).status is Status.CANCELLED


def test_a_worker_killed_after_a_cache_hit_records_no_cost() -> None:
    """The sweeper must not estimate the usage of a request that was never made."""
    world = World(FIRST)
    run_job(world)
    job = world.submit(config={"cache": True})
    with refusing(world.container.results, "put", 99):
        kill(world, 5)
    assert world.log_text(job) == "Hello, world"

    world.sweep(after=90)
    world.deliver()

    lost, found = world.container.results.attempts(job.id)
    assert (lost.finish_reason, lost.cost, lost.usage) == ("worker_lost", 0, Usage(estimated=True))
    assert (found.status, world.job(job).cost) == (Status.COMPLETED, 0)
    assert len(world.provider.requests) == 1


def test_a_throttled_cache_lookup_costs_no_attempt() -> None:
    world = World(FIRST)
    run_job(world)

    def throttled(_tenant: str, _key: str) -> CachedResponse | None:
        raise Throttled

    world.container.cache.get = throttled  # type: ignore[method-assign]
    job = run_job(world)

    assert (job.attempt, job.tries, job.status) == (1, 1, Status.COMPLETED)
