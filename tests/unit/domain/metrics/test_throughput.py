"""Measured speeds: what is counted of completed jobs, and what is read from that."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.adapters.memory.all import InMemoryAdapters
from chalicelib.domain.jobs.job import Job, Status, Usage
from chalicelib.domain.metrics.counters import CountMark
from chalicelib.domain.metrics.throughput import (
    BIN_ERROR,
    MIN_SAMPLES,
    SPEED,
    UNMEASURED,
    Percentiles,
    bin_of,
    count_job,
    counter_key,
    middle_of,
    throughput_from,
)
from chalicelib.services.metrics.throughput_cache import ThroughputCache
from tests.contract.given import NOW, job
from tests.kit.provider import Script
from tests.kit.world import World

WEEK = 7 * 86_400_000


def completed(output: int = 300, streaming: int = 3_000, first: int = 400, **changes: Any) -> Job:
    begun = changes.pop("at", NOW)
    values: dict[str, Any] = {
        "status": Status.COMPLETED,
        "attempt": 1,
        "started_at": begun,
        "first_token_at": begun + first,
        "finished_at": begun + first + streaming,
        "usage": Usage(input=10, output=output),
    }
    return job(**(values | changes))


def counted(*jobs: Job) -> dict[str, int]:
    """What all these add to one counter."""
    sums: dict[str, int] = {}
    for one in jobs:
        for add in count_job(CountMark(job_id=one.id), one)[0]:
            for name, amount in add.amounts.items():
                sums[name] = sums.get(name, 0) + amount
    return sums


def test_a_completed_job_counts_in_its_week() -> None:
    [add], said = count_job(CountMark(job_id="j"), completed(output=300, streaming=3_000, first=400, generation=2))

    assert add.key == ("speed#general#gpt-4o-mini", "w2025-47")
    assert said == 2
    assert {name: add.amounts[name] for name in ("n", "tokens", "streaming_ms", "first", "first_ms")} == {
        "n": 1,
        "tokens": 300,
        "streaming_ms": 3_000,
        "first": 1,
        "first_ms": 400,
    }
    assert {name for name in add.amounts if name[1:].isdigit()} == {f"r{bin_of(100)}", f"o{bin_of(300)}", f"f{bin_of(400)}"}
    assert add.ttl == (NOW + 3_400) // 1000 + 60 * 86_400


def test_it_counts_for_the_model_that_answered() -> None:
    [add], _ = count_job(CountMark(job_id="j"), completed(attempt_model="gpt-4o"))

    assert add.key[0] == "speed#general#gpt-4o"


def test_it_counts_once() -> None:
    """The mark says that it did, whatever comes again."""
    ended = completed()
    _, said = count_job(CountMark(job_id=ended.id), ended)

    assert count_job(CountMark(job_id=ended.id, version=9, counted={SPEED: said}), ended) == ([], said)


@pytest.mark.parametrize(
    "changes",
    [
        {"status": Status.PROCESSING},
        {"status": Status.INCOMPLETE},
        {"status": Status.CANCELLED},
        {"usage": None},
        {"usage": Usage()},
        {"usage": Usage(input=9, output=9, estimated=True)},
        {"first_token_at": None},
    ],
    ids=str,
)
def test_what_says_nothing_of_the_model_does_not_count(changes: dict[str, Any]) -> None:
    """Jobs that are not completed, hits of the cache, estimates."""
    assert count_job(CountMark(job_id="j"), completed(**changes)) == ([], None)


def test_the_first_token_counts_only_where_its_wait_is_known() -> None:
    """The record says when the first attempt began, not when a later one did."""
    assert "first" not in counted(completed(attempt=2, tries=2))


@pytest.mark.parametrize(("output", "streaming"), [(5, 100), (4_000, 0), (4_000, 3)])
def test_a_rate_counts_only_where_there_was_a_stream(output: int, streaming: int) -> None:
    """Not of a few words, nor of an answer that came in one piece."""
    amounts = counted(completed(output=output, streaming=streaming))

    assert amounts["n"] == 1
    assert not [name for name in amounts if name[0] == "r"]


def test_few_jobs_say_nothing() -> None:
    assert throughput_from([counted(*[completed()] * (MIN_SAMPLES - 1))]) == UNMEASURED
    assert throughput_from([counted(*[completed()] * MIN_SAMPLES)]).n == MIN_SAMPLES


SAMPLE = st.tuples(st.integers(1, 120_000), st.integers(0, 800_000), st.integers(1, 100_000))


@given(one=st.lists(SAMPLE, max_size=30), other=st.lists(SAMPLE, max_size=30))
def test_two_weeks_say_what_all_their_jobs_say(one: list[tuple[int, ...]], other: list[tuple[int, ...]]) -> None:
    """Merging two counts is counting everything once."""
    first, second = ([completed(*sample) for sample in samples] for samples in (one, other))

    assert throughput_from([counted(*first), counted(*second)]) == throughput_from([counted(*first, *second)])


@given(samples=st.lists(st.integers(1, 128_000), min_size=MIN_SAMPLES, max_size=60))
def test_percentiles_are_right_to_within_a_bin(samples: list[int]) -> None:
    measured = throughput_from([counted(*(completed(output=output) for output in samples))]).output_tokens
    assert measured is not None

    for part, told in ((0.1, measured.p10), (0.5, measured.p50), (0.9, measured.p90)):
        exact = sorted(samples)[math.ceil(part * len(samples)) - 1]
        assert exact / (1 + BIN_ERROR) <= told * 1.000001
        assert told <= exact * (1 + BIN_ERROR) * 1.000001


@given(value=st.floats(0.07, 3e7))
def test_every_number_has_a_bin_near_it(value: float) -> None:
    assert middle_of(bin_of(value)) == pytest.approx(value, rel=BIN_ERROR * 1.0001)


@pytest.mark.parametrize("value", [1e-9, 1e12])
def test_what_is_beyond_all_bins_is_in_the_last_one(value: float) -> None:
    assert bin_of(value) in (-16, 100)


def test_no_answer_is_longer_than_allowed() -> None:
    assert UNMEASURED.expected_output(600, 100) == Percentiles(100, 100, 100)
    assert UNMEASURED.expected_output(600, 4_096) == Percentiles(300, 600, 1_200)


def test_the_year_of_a_week_is_that_of_its_thursday() -> None:
    new_year = 1_798_761_600_000  # Friday, 1 January 2027

    assert counter_key("general", "m", new_year)[1] == "w2026-53"


# ---- what an environment knows


def known(memory: InMemoryAdapters, facts: list[str]) -> ThroughputCache:
    return ThroughputCache(memory.throughput, memory.clock, lambda fact, **_: facts.append(fact))


def test_this_week_and_the_last_count_and_no_older_one() -> None:
    memory = InMemoryAdapters()
    now = memory.clock.now()
    for at, output in ((now, 100), (now - WEEK, 100), (now - 2 * WEEK, 9_999)):
        for _ in range(MIN_SAMPLES):
            memory.throughput.add(count_job(CountMark(job_id="j"), completed(at=at, output=output))[0])

    found = known(memory, []).get("general", "gpt-4o-mini")

    assert found.n == 2 * MIN_SAMPLES
    assert found.output_tokens is not None
    assert found.output_tokens.p90 < 200


def test_a_speed_is_read_once_a_minute() -> None:
    memory = InMemoryAdapters()
    speeds = known(memory, [])
    assert speeds.get("general", "gpt-4o-mini") == UNMEASURED
    for _ in range(MIN_SAMPLES):
        memory.throughput.add(count_job(CountMark(job_id="j"), completed(at=memory.clock.now()))[0])

    before = speeds.get("general", "gpt-4o-mini")
    memory.clock.advance(61)

    assert (before.n, speeds.get("general", "gpt-4o-mini").n) == (0, MIN_SAMPLES)
    assert speeds.get("general", "gpt-4o") == UNMEASURED


def test_a_store_that_does_not_answer_costs_only_a_guess() -> None:
    """What was known before goes on being used, and it is asked again after a minute, not before each job."""
    memory, facts = InMemoryAdapters(), list[str]()
    for _ in range(MIN_SAMPLES):
        memory.throughput.add(count_job(CountMark(job_id="j"), completed(at=memory.clock.now()))[0])
    speeds = known(memory, facts)
    speeds.get("general", "gpt-4o-mini")
    memory.clock.advance(61)
    memory.throughput.rows = None  # type: ignore[assignment]

    assert [speeds.get("general", "gpt-4o-mini").n for _ in range(3)] == [MIN_SAMPLES] * 3
    assert facts == ["throughput_unavailable"]


def test_a_worker_expects_what_was_measured() -> None:
    """From the first chunk on, and of its own type and model."""
    world = World(Script(deltas=["word "] * 200, every=0.02))
    for _ in range(MIN_SAMPLES):
        world.container.throughput.add(count_job(CountMark(job_id="j"), completed(at=world.clock.now(), output=400))[0])
    measured, other = world.submit(), world.submit(config={"model": "gpt-4o"})

    world.deliver()

    first, unmeasured = (world.container.chunks.read(one.id, 1)[0].progress for one in (measured, other))
    assert first["estimated_total_tokens"] == pytest.approx(400, rel=BIN_ERROR)
    assert unmeasured["estimated_total_tokens"] == 600
    assert first["progress_percentage"] > unmeasured["progress_percentage"]


def test_a_job_that_was_retried_and_completed_counts_by_its_last_attempt() -> None:
    ended = replace(completed(), attempt=3, tries=1, run=2, generation=7)

    [add], said = count_job(CountMark(job_id=ended.id, version=3, counted={}), ended)

    assert said == 7
    assert add.amounts["n"] == 1
