"""An OpenAI that limits, refuses and breaks off, on the laptop cloud: who waits, who fails, and with which words."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.e2e.stack import Api, Model, Stack, make_key, until
from tests.kit.quirky_openai import QuirkyOpenAI


@pytest.fixture(scope="module", autouse=True)
def silent_job(api: Api, quirky_openai: QuirkyOpenAI) -> str:
    """A job whose answer begins after 75 seconds. It runs beside the other tests."""
    return api.submit(prompt="[[silent-75]] hi", priority="high", config={"timeout": 300, "max_attempts": 1})


def test_job_is_held_for_as_long_as_openai_asks_and_so_are_others_of_its_model(
    stack: Stack, api: Api, model: Model, quirky_openai: QuirkyOpenAI
) -> None:
    first = api.submit(prompt="[[hour]] hi", config=model.config)
    waiting = [until(lambda: _held(api, first), "a held job")]
    second = api.submit(prompt="hi", config=model.config)
    waiting.append(until(lambda: _held(api, second), "another held job"))

    for job in waiting:
        assert job["reason"] == "rate_limited"
        assert (datetime.fromisoformat(job["next_attempt_at"]) - datetime.now(UTC)).total_seconds() > 3_500
    assert len([one for one in quirky_openai.requests if one.model == model.name]) == 1

    assert stack.api("stage_admin").call("POST", f"/circuits/{model.name}/close").is_success
    until(lambda: _completed_after_a_retry(api, second), "the answer after the end of the pause")
    api.call("DELETE", f"/jobs/{first}")


@pytest.mark.parametrize(
    ("prompt", "code", "words"),
    [
        ("[[no-model-access]] hi", "request_invalid", "does not have access to model"),
        ("[[flagged]] FLAGGED text", "content_refused", "your input was flagged"),
        ("[[waf]] review: SELECT * FROM t", "request_invalid", "Attention Required!"),
        ("[[too-large]] hi", "request_invalid", "Limit 30000, Requested 61337"),
        ("[[in-stream-error]] hi", "request_invalid", "maximum context length is 1024 tokens"),
    ],
)
def test_what_is_about_one_request_fails_it_alone_in_the_providers_words(
    stack: Stack, api: Api, model: Model, quirky_openai: QuirkyOpenAI, prompt: str, code: str, words: str
) -> None:
    """After one attempt. A job of another tenant runs at once, with the same model."""
    ids = [api.submit(prompt=prompt, config=model.config) for _ in range(2)]
    failed = [api.wait_for_end(job_id) for job_id in ids]
    other = Api(stack.http, stack.api_url, make_key("globex", "user"))
    answered = other.wait_for_end(other.submit(prompt="hi", config=model.config))

    for result in failed:
        assert (result["status"], result["attempt"], result["error"]["code"]) == ("failed", 1, code)
        assert words in result["error"]["message"]
        assert "retried" not in result["error"]["suggestion"]
    assert (answered["status"], answered["attempt"]) == ("completed", 1)


def test_prompt_that_makes_the_provider_fail_stops_no_other_tenant(
    stack: Stack, api: Api, model: Model, quirky_openai: QuirkyOpenAI
) -> None:
    """Two jobs of one tenant fail with 500 in each of their attempts."""
    ids = [api.submit(prompt="[[poison]] x", config={**model.config, "max_attempts": 3}) for _ in range(2)]
    results = [api.wait_for_end(job_id) for job_id in ids]
    other = Api(stack.http, stack.api_url, make_key("globex", "user"))

    answered = other.wait_for_end(other.submit(prompt="hi", config=model.config))

    assert {(result["status"], result["error"]["code"]) for result in results} == {("failed", "provider_unavailable")}
    assert (answered["status"], answered["attempt"]) == ("completed", 1)


def test_job_is_held_while_the_address_has_no_such_api(api: Api, model: Model, quirky_openai: QuirkyOpenAI) -> None:
    job_id = api.submit(prompt="[[no-responses-api]] hi", config=model.config)

    held = until(lambda: _held(api, job_id), "a held job")

    assert held["reason"] == "openai_address_invalid"
    assert quirky_openai.url in held["error"]["message"]
    assert "404 page not found" in held["error"]["message"]
    api.call("DELETE", f"/jobs/{job_id}")


def test_silence_before_the_first_token_is_bounded_by_the_jobs_timeout(api: Api, silent_job: str) -> None:
    result = api.wait_for_end(silent_job, 150)

    assert (result["status"], result["attempt"]) == ("completed", 1), result


def _held(api: Api, job_id: str) -> dict[str, Any] | None:
    job: dict[str, Any] = api.get(f"/jobs/{job_id}")
    return job if job["status"] == "held" else None


def _completed_after_a_retry(api: Api, job_id: str) -> bool:
    """Wake a held job, whose worker may still remember the pause."""
    if _held(api, job_id):
        api.call("POST", f"/jobs/{job_id}/retry")
    return bool(api.get(f"/jobs/{job_id}")["status"] == "completed")
