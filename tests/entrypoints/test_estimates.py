"""Estimates of duration and cost, from defaults and from the measured throughput of other jobs."""

from __future__ import annotations

from typing import Any

import pytest

from chalicelib import bootstrap
from chalicelib.domain.errors import Throttled
from chalicelib.domain.failures import StreamCut
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.jobs.transitions import claim
from chalicelib.domain.metrics.counters import CountMark
from chalicelib.domain.metrics.throughput import count_job
from tests.kit.http import Api
from tests.kit.provider import Script
from tests.kit.records import completed_job
from tests.kit.work import work

FAST = {"output": 400, "streaming": 2_000, "first": 400}  # a job of 2.4 s; the default estimate is 11.3 s


def measure_fast_jobs(api: Api, **changes: Any) -> None:
    """Count six completed jobs like FAST."""
    for _ in range(6):
        api.container.throughput.add(count_job(CountMark(job_id="j"), completed_job(at=api.container.clock.now(), **(FAST | changes)))[0])


def seconds(api: Api, **fields: Any) -> float:
    """The estimated duration of a job with these fields."""
    return float(api.call("POST", "/jobs/estimate", {"prompt": "Say hello.", **fields}).json["estimated_duration_seconds"])


def test_estimates_use_defaults_until_throughput_is_measured(api: Api) -> None:
    default = seconds(api)
    api.container.clock.advance(61)
    measure_fast_jobs(api)

    assert default == pytest.approx(11.3)
    assert seconds(api) == pytest.approx(2.7, rel=0.1)


def test_a_batch_estimate_uses_the_measurements_of_other_jobs(api: Api) -> None:
    """A dry run of one row quotes the same cost as the estimate of a single job."""
    dry_run = {"items": ["Say hello."], "dry_run": True}
    default = api.call("POST", "/batches", dry_run).json
    api.container.clock.advance(61)
    measure_fast_jobs(api)

    again = api.call("POST", "/batches", dry_run).json

    assert float(again["estimated_cost"]) < float(default["estimated_cost"])
    assert again["estimated_cost"] == api.call("POST", "/jobs/estimate", {"prompt": "Say hello."}).json["estimated_cost"]


def test_measurements_apply_only_to_their_job_type_and_model(api: Api) -> None:
    measure_fast_jobs(api)

    assert seconds(api, config={"model": "gpt-4o"}) == pytest.approx(11.3)
    assert seconds(api, job_type="security_analysis", prompt="contract C {}") > 11


def test_the_output_estimate_is_capped_by_max_tokens(api: Api) -> None:
    measure_fast_jobs(api)

    reply = api.call("POST", "/jobs/estimate", {"prompt": "Say hello.", "config": {"max_tokens": 40}}).json

    assert reply["estimated_output_tokens"] == 40


def test_an_unavailable_store_leaves_the_default_estimate(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise Throttled

    monkeypatch.setattr(api.container.throughput, "get", refuse)

    assert seconds(api) == pytest.approx(11.3)


def test_a_queued_job_shows_its_remaining_time_and_a_range(api: Api) -> None:
    """Status and progress show the measured estimate from submission on."""
    measure_fast_jobs(api)
    job_id = api.submit()

    for part in ("status", "progress"):
        shown = api.call("GET", f"/jobs/{job_id}/{part}").json
        low, high = shown["estimated_seconds_remaining_range"]
        assert shown["estimated_seconds_remaining"] == pytest.approx(2.7, rel=0.1)
        assert low <= shown["estimated_seconds_remaining"] <= high
        assert shown["estimated_completion_at"] is not None


def test_uniform_measurements_narrow_the_estimated_range(api: Api) -> None:
    def width(job_id: str) -> float:
        low, high = api.call("GET", f"/jobs/{job_id}/status").json["estimated_seconds_remaining_range"]
        return float(high - low)

    default = width(api.submit())
    api.container.clock.advance(61)
    measure_fast_jobs(api)

    assert width(api.submit()) < default / 10


def test_elapsed_time_is_subtracted_before_the_first_token(api: Api) -> None:
    """The job was claimed a second ago and has written nothing yet."""
    measure_fast_jobs(api)
    job_id = api.submit()
    job = api.job(job_id)
    started: Job = _claimed(api, job)
    api.container.jobs.records[job_id] = started
    api.container.clock.advance(1)

    shown = api.call("GET", f"/jobs/{job_id}/progress").json

    assert (shown["status"], shown["tokens_received"]) == ("processing", None)
    assert shown["estimated_seconds_remaining"] == pytest.approx(1.7, rel=0.15)
    assert shown["estimated_seconds_remaining_range"] == [1.6, 1.7]


def test_a_completed_job_has_no_remaining_time(api: Api) -> None:
    job_id = api.submit()
    work(api)

    shown = api.call("GET", f"/jobs/{job_id}/status").json

    assert (shown["estimated_seconds_remaining"], shown["estimated_seconds_remaining_range"]) == (0.0, [0.0, 0.0])


def test_the_progress_history_of_an_earlier_attempt_is_kept() -> None:
    """Each attempt has its own stages; the events of the job span both attempts."""

    api = Api(Script(error=StreamCut()), Script())
    try:
        job_id = api.submit()
        work(api)
        api.container.clock.advance(60)
        work(api)
        first, last = (api.call("GET", f"/jobs/{job_id}/progress-history{query}").json for query in ("?attempt=1", ""))
        beyond = api.call("GET", f"/jobs/{job_id}/progress-history?attempt=3")
    finally:
        bootstrap.override(None)

    assert (first["attempt"], last["attempt"], beyond.status) == (1, 2, 400)
    stages = [[event["at"] for event in history["data"] if event["kind"] == "stage"] for history in (first, last)]
    assert max(stages[0]) < min(stages[1])
    assert [event["name"] for event in first["data"] if event["kind"] == "job"] == ["created", "queued", "started", "completed"]


def _claimed(api: Api, job: Job) -> Job:
    claimed = claim(job, job.generation, "lease#1", api.container.clock.now())
    assert claimed is not None
    return claimed
