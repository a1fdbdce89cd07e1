"""OpenAI's errors, as a subscriber and the attempt records show them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest

from tests.e2e.stack import Api, Model, Stack, until, words
from tests.e2e.subscribers import SocketSubscriber

Held = tuple[dict[str, Any], dict[str, Any]]  # a job while it was held, and its result
ACCOUNT_ERRORS = {"provider_quota_exhausted": (429, "insufficient_quota"), "authentication_failed": (401, "x")}


@pytest.fixture(scope="module", autouse=True)
def held_jobs(stack: Stack) -> Iterator[dict[str, Future[Held]]]:
    """Jobs whose requests meet an error of the account, by its code.

    Each is held until its circuit lets a request through again, which takes half a minute. They wait
    beside the other tests.
    """
    with ThreadPoolExecutor() as threads:
        yield {code: threads.submit(_hold, stack.api(), stack.model(), *error) for code, error in ACCOUNT_ERRORS.items()}


def _hold(api: Api, model: Model, status: int, openai_code: str) -> Held:
    model.reply("At last.")
    model.fail(status, code=openai_code)
    job_id = api.submit(config={**model.config, "max_attempts": 1})
    held = until(lambda: (job := api.get(f"/jobs/{job_id}"))["status"] == "held" and job, "a held job")
    return held, api.wait_for_end(job_id, seconds=120)


@pytest.mark.parametrize(
    ("fault", "code"), [("truncate", "stream_cut"), ("disconnect", "provider_connection_lost"), ("malformed", "stream_malformed")]
)
def test_a_broken_stream_is_followed_by_a_second_attempt(stack: Stack, api: Api, model: Model, fault: str, code: str) -> None:
    """A reset voids the text of the first, and the subscriber ends with the second alone."""
    model.reply(words(400, "first"), times=1)
    model.reply(words(30, "second"), times=1)
    model.fault(fault, after_chunks=150)
    job_id = api.submit(config=model.config)
    subscriber = SocketSubscriber(stack, job_id)

    subscriber.watch()
    result = api.wait_for_end(job_id)

    assert (result["status"], result["attempt"]) == ("completed", 2)
    assert result["output"] == words(30, "second") == subscriber.text
    assert subscriber.appended[0].startswith("first0 ")
    assert subscriber.started_over
    assert [frame["attempt"] for frame in subscriber.events("reset")] == [2]
    first, second = sorted(api.get(f"/jobs/{job_id}/attempts")["data"], key=lambda attempt: attempt["attempt"])
    assert (first["error_code"], second["error_code"]) == (code, None)
    assert first["usage"]["estimated"] is True
    assert 0 < Decimal(first["cost"]) < Decimal(result["cost"])
    assert Decimal(result["cost"]) == Decimal(first["cost"]) + Decimal(second["cost"])


def test_server_error_of_openai_is_retried(api: Api, model: Model) -> None:
    """It costs an attempt, and the next one answers."""
    model.reply("At last.")
    model.fail(500)

    job_id = api.submit(config=model.config)
    result = api.wait_for_end(job_id)

    assert (result["status"], result["attempt"], result["output"]) == ("completed", 2, "At last.")
    codes = {attempt["attempt"]: attempt["error_code"] for attempt in api.get(f"/jobs/{job_id}/attempts")["data"]}
    assert codes == {1: "provider_unavailable", 2: None}


def test_rate_limit_of_openai_is_waited_for(api: Api, model: Model) -> None:
    """A job with one attempt only completes, not before the time that OpenAI asked for."""
    model.reply("At last.")
    model.fail(429, retry_after=1)

    job_id = api.submit(config={**model.config, "max_attempts": 1})
    result = api.wait_for_end(job_id)

    assert (result["status"], result["output"]) == ("completed", "At last.")
    codes = {attempt["attempt"]: attempt["error_code"] for attempt in api.get(f"/jobs/{job_id}/attempts")["data"]}
    assert codes == {1: "provider_rate_limited", 2: None}
    refused, answered = model.requests
    assert (refused["status"], answered["status"]) == (429, 200)
    assert answered["started_at"] - refused["ended_at"] >= 1


@pytest.mark.parametrize(
    ("status", "openai_code", "code"),
    [(400, "invalid_value", "request_invalid"), (404, "model_not_found", "request_invalid")],
)
def test_permanent_openai_error_fails_the_job(stack: Stack, api: Api, model: Model, status: int, openai_code: str, code: str) -> None:
    """Only one request is made."""
    model.fail(status, code=openai_code)
    job_id = api.submit(config=model.config)
    subscriber = SocketSubscriber(stack, job_id)

    subscriber.watch()
    result = api.wait_for_end(job_id)

    assert (result["status"], result["output"]) == ("failed", "")
    assert (result["error"]["code"], result["error"]["retryable"]) == (code, False)
    assert result["error"]["suggestion"]
    assert len(model.requests) == 1
    assert subscriber.frames[-1]["event"] == "job_failed"
    assert subscriber.frames[-1]["error"]["code"] == code


def test_a_job_fails_when_its_attempts_are_used_up(api: Api, model: Model) -> None:
    """`max_attempts` includes the first attempt, and a manual retry opens a new run."""
    model.fail(500)
    model.fail(503)
    model.reply("The third time.")
    job_id = api.submit(config={**model.config, "max_attempts": 2})

    failed = api.wait_for_end(job_id)
    api.call("POST", f"/jobs/{job_id}/retry")
    result = api.wait_for_end(job_id)

    assert (failed["status"], failed["attempt"], failed["error"]["code"]) == ("failed", 2, "provider_unavailable")
    assert (result["status"], result["attempt"], result["output"]) == ("completed", 3, "The third time.")


@pytest.mark.parametrize("code", ACCOUNT_ERRORS)
def test_an_error_of_the_account_holds_the_job(held_jobs: dict[str, Future[Held]], code: str) -> None:
    """It uses up no attempt, and says what the account lacks."""
    held, result = held_jobs[code].result()

    assert (held["reason"], held["error"]["code"]) == ("circuit_open", code)
    assert held["error"]["suggestion"]
    assert (result["status"], result["output"]) == ("completed", "At last.")
