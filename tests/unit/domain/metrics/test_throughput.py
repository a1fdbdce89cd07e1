"""Measured throughput: what completed jobs add to the counters, and what is read from them."""

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
from tests.kit.provider import Script
from tests.kit.records import NOW, WEEK, completed_job
from tests.kit.world import World


def counted(*jobs: Job) -> dict[str, int]:
    """The sum of what these jobs add to one counter."""
    sums: dict[str, int] = {}
    for one in jobs:
        for add in count_job(CountMark(job_id=one.id), one)[0]:
            for name, amount in add.amounts.items():
                sums[name] = sums.get(name, 0) + amount
    return sums


def test_completed_job_increments_the_counters_of_its_week() -> None:
    [add], mark = count_job(CountMark(job_id="j"), completed_job(output=300, streaming=3_000, first=400, generation=2))

    assert add.key == ("speed#general#gpt-4o-mini", "w2025-47")
    assert mark == 2
    assert {name: add.amounts[name] for name in ("n", "tokens", "streaming_ms", "first", "first_ms")} == {
        "n": 1,
        "tokens": 300,
        "streaming_ms": 3_000,
        "first": 1,
        "first_ms": 400,
    }
    assert {name for name in add.amounts if name[1:].isdigit()} == {f"r{bin_of(100)}", f"o{bin_of(300)}", f"f{bin_of(400)}"}
    assert add.ttl == (NOW + 3_400) // 1000 + 60 * 86_400


def test_job_counts_for_the_model_of_its_last_attempt() -> None:
    [add], _ = count_job(CountMark(job_id="j"), completed_job(attempt_model="gpt-4o"))

    assert add.key[0] == "speed#general#gpt-4o"


def test_job_with_a_count_mark_is_not_counted_again() -> None:
    ended = completed_job()
    _, mark = count_job(CountMark(job_id=ended.id), ended)

    assert count_job(CountMark(job_id=ended.id, version=9, counted={SPEED: mark}), ended) == ([], mark)


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
def test_unrepresentative_jobs_are_not_counted(changes: dict[str, Any]) -> None:
    """Unfinished jobs, cache hits and estimated usage say nothing about the speed of a model."""
    assert count_job(CountMark(job_id="j"), completed_job(**changes)) == ([], None)


def test_first_token_time_counts_only_for_first_attempts() -> None:
    """The job record stores the start of the first attempt, not of a later one."""
    assert "first" not in counted(completed_job(attempt=2, tries=2))


@pytest.mark.parametrize(("output", "streaming"), [(5, 100), (4_000, 0), (4_000, 3)])
def test_token_rate_counts_only_for_streamed_output(output: int, streaming: int) -> None:
    """Very short answers and answers in one piece have no meaningful rate."""
    amounts = counted(completed_job(output=output, streaming=streaming))

    assert amounts["n"] == 1
    assert not [name for name in amounts if name[0] == "r"]


def test_throughput_is_unmeasured_below_the_minimum_sample_count() -> None:
    assert throughput_from([counted(*[completed_job()] * (MIN_SAMPLES - 1))]) == UNMEASURED
    assert throughput_from([counted(*[completed_job()] * MIN_SAMPLES)]).n == MIN_SAMPLES


SAMPLE = st.tuples(st.integers(1, 120_000), st.integers(0, 800_000), st.integers(1, 100_000))


@given(one=st.lists(SAMPLE, max_size=30), other=st.lists(SAMPLE, max_size=30))
def test_merged_weeks_equal_one_count_of_all_jobs(one: list[tuple[int, ...]], other: list[tuple[int, ...]]) -> None:
    first, second = ([completed_job(*sample) for sample in samples] for samples in (one, other))

    assert throughput_from([counted(*first), counted(*second)]) == throughput_from([counted(*first, *second)])


@given(samples=st.lists(st.integers(1, 128_000), min_size=MIN_SAMPLES, max_size=60))
def test_percentiles_are_exact_to_within_one_bin(samples: list[int]) -> None:
    measured = throughput_from([counted(*(completed_job(output=output) for output in samples))]).output_tokens
    assert measured is not None

    for part, reported in ((0.1, measured.p10), (0.5, measured.p50), (0.9, measured.p90)):
        exact = sorted(samples)[math.ceil(part * len(samples)) - 1]
        assert exact / (1 + BIN_ERROR) <= reported * 1.000001
        assert reported <= exact * (1 + BIN_ERROR) * 1.000001


@given(value=st.floats(0.07, 3e7))
def test_bin_center_is_close_to_any_value_in_range(value: float) -> None:
    assert middle_of(bin_of(value)) == pytest.approx(value, rel=BIN_ERROR * 1.0001)


@pytest.mark.parametrize("value", [1e-9, 1e12])
def test_values_out_of_range_fall_into_the_outermost_bins(value: float) -> None:
    assert bin_of(value) in (-16, 100)


def test_expected_output_is_capped_by_max_tokens() -> None:
    assert UNMEASURED.expected_output(600, 100) == Percentiles(100, 100, 100)
    assert UNMEASURED.expected_output(600, 4_096) == Percentiles(300, 600, 1_200)


def test_counter_key_uses_the_iso_year_of_the_week() -> None:
    """1 January 2027 is a Friday and belongs to week 53 of 2026."""
    new_year = 1_798_761_600_000  # Friday, 1 January 2027

    assert counter_key("general", "m", new_year)[1] == "w2026-53"


# ---- the cache of an environment


def cache_of(memory: InMemoryAdapters, events: list[str]) -> ThroughputCache:
    return ThroughputCache(memory.throughput, memory.clock, lambda event, **_: events.append(event))


def test_throughput_covers_the_current_and_the_previous_week() -> None:
    memory = InMemoryAdapters()
    now = memory.clock.now()
    for at, output in ((now, 100), (now - WEEK, 100), (now - 2 * WEEK, 9_999)):
        for _ in range(MIN_SAMPLES):
            memory.throughput.add(count_job(CountMark(job_id="j"), completed_job(at=at, output=output))[0])

    found = cache_of(memory, []).get("general", "gpt-4o-mini")

    assert found.n == 2 * MIN_SAMPLES
    assert found.output_tokens is not None
    assert found.output_tokens.p90 < 200


def test_throughput_is_cached_for_a_minute_per_type_and_model() -> None:
    memory = InMemoryAdapters()
    cache = cache_of(memory, [])
    assert cache.get("general", "gpt-4o-mini") == UNMEASURED
    for _ in range(MIN_SAMPLES):
        memory.throughput.add(count_job(CountMark(job_id="j"), completed_job(at=memory.clock.now()))[0])

    before = cache.get("general", "gpt-4o-mini")
    memory.clock.advance(61)

    assert (before.n, cache.get("general", "gpt-4o-mini").n) == (0, MIN_SAMPLES)
    assert cache.get("general", "gpt-4o") == UNMEASURED


def test_throughput_cache_serves_old_values_while_the_store_is_unavailable() -> None:
    """The next read of the store follows after a minute, not at each job."""
    memory, events = InMemoryAdapters(), list[str]()
    for _ in range(MIN_SAMPLES):
        memory.throughput.add(count_job(CountMark(job_id="j"), completed_job(at=memory.clock.now()))[0])
    cache = cache_of(memory, events)
    cache.get("general", "gpt-4o-mini")
    memory.clock.advance(61)
    memory.throughput.rows = None  # type: ignore[assignment]

    assert [cache.get("general", "gpt-4o-mini").n for _ in range(3)] == [MIN_SAMPLES] * 3
    assert events == ["throughput_unavailable"]


def test_worker_progress_uses_the_measured_output_length() -> None:
    """A model without measurements uses the default of the job type."""
    world = World(Script(deltas=["word "] * 200, every=0.02))
    for _ in range(MIN_SAMPLES):
        world.container.throughput.add(count_job(CountMark(job_id="j"), completed_job(at=world.clock.now(), output=400))[0])
    measured, other = world.submit(), world.submit(config={"model": "gpt-4o"})

    world.deliver()

    first, unmeasured = (world.container.chunks.read(one.id, 1)[0].progress for one in (measured, other))
    assert first["estimated_total_tokens"] == pytest.approx(400, rel=BIN_ERROR)
    assert unmeasured["estimated_total_tokens"] == 600
    assert first["progress_percentage"] > unmeasured["progress_percentage"]


def test_retried_job_counts_once_with_its_current_generation() -> None:
    ended = replace(completed_job(), attempt=3, tries=1, run=2, generation=7)

    [add], mark = count_job(CountMark(job_id=ended.id, version=3, counted={}), ended)

    assert mark == 7
    assert add.amounts["n"] == 1
