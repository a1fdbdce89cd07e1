"""Submitting jobs: idempotency, limits, validation and estimates."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from uuid import uuid4

import httpx2
import pytest

from chalicelib.job_types.security_analysis import JOB_TYPE
from cli.reducer import MilestoneReached
from tests.e2e.stack import ROOT, Api, Model, Stack, words
from tests.e2e.subscribers import EventSource, SocketSubscriber

MB = 1_000_000
AT_ONCE = 20


def test_concurrent_requests_with_one_idempotency_key_create_one_job(api: Api, model: Model) -> None:
    """Every response names that job, and another request with the key is refused."""
    model.reply("Once.")
    key = uuid4().hex

    def post(_number: int) -> httpx2.Response:
        return api.call("POST", "/jobs", {"prompt": "Once.", "config": model.config}, headers={"Idempotency-Key": key})

    with ThreadPoolExecutor(AT_ONCE) as threads:
        answers = list(threads.map(post, range(AT_ONCE)))
    other = api.call("POST", "/jobs", {"prompt": "Twice.", "config": model.config}, headers={"Idempotency-Key": key})

    assert {answer.status_code for answer in answers} == {202}
    (job_id,) = {answer.json()["job_id"] for answer in answers}
    assert sum(answer.headers.get("Idempotent-Replayed") == "true" for answer in answers) == AT_ONCE - 1
    assert [job["job_id"] for job in api.get("/jobs", model=model.name)["data"]] == [job_id]
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_conflict")
    assert api.wait_for_end(job_id)["output"] == "Once."
    assert len(model.requests) == 1


def test_concurrent_submissions_with_one_dedupe_key_create_one_job(api: Api, model: Model) -> None:
    """When the job has ended, the key is free again."""
    model.reply("One at a time.")
    key = f"story:{uuid4().hex}"

    def post(number: int) -> httpx2.Response:
        delay = 3_600 if number < AT_ONCE else 0  # so that the first job has not ended before the last request
        return api.call("POST", "/jobs", {"prompt": f"Try {number}.", "config": model.config, "dedupe_key": key, "delay": delay})

    with ThreadPoolExecutor(AT_ONCE) as threads:
        answers = list(threads.map(post, range(AT_ONCE)))
    assert {answer.status_code for answer in answers} == {202}
    (job_id,) = {answer.json()["job_id"] for answer in answers}
    api.run_now(job_id)
    api.wait_for_end(job_id)
    later = post(AT_ONCE)

    assert sum(answer.json().get("deduplicated", False) for answer in answers) == AT_ONCE - 1
    assert later.json()["job_id"] != job_id
    api.wait_for_end(later.json()["job_id"])
    assert len(model.requests) == 2


def test_an_estimate_creates_nothing(api: Api, model: Model) -> None:
    """It has the cost, the duration and the queue of a submission."""
    answer = api.call("POST", "/jobs/estimate", {"prompt": words(200), "config": {**model.config, "priority": "high"}})

    assert answer.status_code == 200
    estimate = answer.json()
    assert estimate["queue"] == "general:high"
    assert 0 < Decimal(estimate["estimated_cost"]) <= Decimal(estimate["max_cost"])
    assert estimate["estimated_input_tokens"] > 0
    assert estimate["estimated_duration_seconds"] > 0
    assert api.get("/jobs", model=model.name)["data"] == []


def test_synchronous_submission_returns_the_result(api: Api, model: Model) -> None:
    """With `async: false` the response has the output and its cost."""
    model.reply("Here it is.")

    answer = api.call("POST", "/jobs", {"prompt": "Tell me.", "config": model.config, "async": False})

    assert answer.status_code == 200
    assert (answer.json()["status"], answer.json()["output"]) == ("completed", "Here it is.")
    assert Decimal(answer.json()["cost"]) > 0


def test_security_analysis_example_is_audited(stack: Stack, api: Api, model: Model) -> None:
    """Findings are parsed, and stages and milestones are sent while it runs."""
    reply = (ROOT / "examples" / "vulnerable_vault.reply.json").read_text(encoding="utf-8")
    model.reply(reply)
    contract = (ROOT / "examples" / "vulnerable_vault.sol").read_text(encoding="utf-8")

    job_id = api.submit(prompt=contract, job_type="security_analysis", config={**model.config, "priority": "high"})
    subscriber = SocketSubscriber(stack, job_id)
    subscriber.watch()
    result = api.wait_for_end(job_id)

    assert (result["status"], result["output"], subscriber.text) == ("completed", reply, reply)
    assert result["parsed"] == json.loads(reply)
    severities = [finding["severity"] for finding in result["parsed"]["findings"]]
    reached = [outcome.frame["name"] for outcome in subscriber.outcomes if isinstance(outcome, MilestoneReached)]
    assert reached == [*(f"{severity} finding" for severity in severities), "overall risk"]
    progress = api.get(f"/jobs/{job_id}/progress")
    assert [stage["name"] for stage in progress["stages"]] == list(JOB_TYPE.stages)
    assert {stage["status"] for stage in progress["stages"]} == {"completed"}
    assert [milestone["name"] for milestone in progress["milestones"]] == reached
    seen = {frame["stage"] for frame in subscriber.events("progress")}
    assert {"vulnerability_scan", "analysis_generation"} <= seen
    history = api.get(f"/jobs/{job_id}/progress-history")["data"]
    assert [event["name"] for event in history if event["kind"] == "milestone"] == reached
    assert contract in str(model.requests[0]["body"]["input"]).replace("\\n", "\n")


def test_large_prompt_round_trips(api: Api, model: Model) -> None:
    """600 KB exceed a DynamoDB item, so the prompt is stored in S3."""
    model.reply("Read.")
    prompt = "Grüße \U0001f30d " + "x" * 600_000

    job_id = api.submit(prompt=prompt, config=model.config)

    assert api.wait_for_end(job_id)["output"] == "Read."
    assert api.get(f"/jobs/{job_id}", include="prompt")["prompt"] == prompt
    assert "prompt" not in api.get(f"/jobs/{job_id}")


def test_large_result_is_readable_after_the_job_ended(stack: Stack, api: Api, model: Model) -> None:
    """500 KB exceed a DynamoDB item; it is read as result, by a socket and by slices."""
    text = " ".join(f"{number:*<5000}" for number in range(100))
    model.reply(text)

    job_id = api.submit(prompt="Long.", config=model.config)
    result = api.wait_for_end(job_id)
    subscriber, events = SocketSubscriber(stack, job_id), EventSource(api, job_id)
    subscriber.watch()
    events.watch()

    assert (result["output"] == text, subscriber.text == text, events.text == text) == (True, True, True)


def test_a_prompt_of_one_megabyte_is_accepted(api: Api, model: Model) -> None:
    model.reply("Read.")

    job_id = api.submit(prompt="y" * MB, config=model.config)

    assert api.wait_for_end(job_id)["status"] == "completed"


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"prompt": "y" * (MB + 1)}, "prompt"),
        ({"prompt": "\u00fc" * (MB // 2 + 1)}, "prompt"),
        ({"prompt": "hello", "metadata": {"note": "z" * 16_001}}, "metadata"),
        ({"prompt": "hello", "tags": ["t"] * 11}, "tags"),
        ({"prompt": "hello", "config": {"temperature": 3}}, "config.temperature"),
        ({"prompt": "hello", "config": {"temperatur": 1}}, "config.temperatur"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": "hello", "priority": "soon"}, "priority"),
        ({"prompt": "hello", "priority": "low", "config": {"priority": "high"}}, "priority"),
        ({}, "prompt"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_invalid_field_is_named_in_the_error(api: Api, fields: dict[str, object], path: str) -> None:
    answer = api.call("POST", "/jobs", fields)

    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "invalid_request")
    assert path in [detail["path"] for detail in error["details"]]


def test_all_wrong_fields_are_named_at_once(api: Api) -> None:
    answer = api.call("POST", "/jobs", {"prompt": 1, "tags": "x", "config": {"max_tokens": "many"}, "whatever": True})

    paths = {detail["path"] for detail in answer.json()["error"]["details"]}
    assert {"prompt", "tags", "config.max_tokens", "whatever"} <= paths


@pytest.mark.parametrize(
    "body", [b"{", b"[1]", b'"text"', b"\xff\xfe", b"null", b"[" * 50_000], ids=["cut", "list", "text", "bytes", "null", "deep"]
)
def test_request_body_that_is_no_object_is_refused(api: Api, body: bytes) -> None:
    answer = api.call("POST", "/jobs", content=body)

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")


def test_request_body_over_four_megabytes_is_refused(api: Api) -> None:
    """Larger content has to be uploaded."""
    answer = api.call("POST", "/jobs", {"prompt": "hello", "metadata": {"note": "z" * 4_100_000}})

    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
