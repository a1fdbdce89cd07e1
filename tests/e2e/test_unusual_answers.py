"""Answers and refusals as accounts and servers have them, through the public API."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.stack import Api, Stack, until
from tests.e2e.subscribers import SocketSubscriber
from tests.kit.quirky_openai import PERSON, QuirkyOpenAI

PYDANTIC = {
    "title": "Person",
    "type": "object",
    "properties": {"name": {"type": "string"}, "born": {"type": "integer"}},
    "required": ["name"],
}
FORMAT = {"type": "json_schema", "name": "person", "schema": {**PYDANTIC, "required": ["name", "born"], "additionalProperties": False}}


def answered(api: Api, prompt: str, **config: Any) -> dict[str, Any]:
    return api.wait_for_end(api.submit(prompt=prompt, config=config))


@pytest.mark.parametrize("config", [{}, {"response_format": FORMAT}])
def test_commentary_reaches_neither_the_text_nor_its_watchers(
    stack: Stack, api: Api, quirky_openai: QuirkyOpenAI, config: dict[str, Any]
) -> None:
    job_id = api.submit(prompt="[[phases]] Extract the person.", config=config)
    subscriber = SocketSubscriber(stack, job_id)
    subscriber.watch()
    result = api.wait_for_end(job_id)

    assert (result["status"], result["attempt"], result["output"]) == ("completed", 1, PERSON)
    assert subscriber.text == PERSON
    assert result["parsed"] == ({"name": "Ada", "born": 1815} if config else None)


@pytest.mark.parametrize(
    ("quirk", "config"),
    [
        ("unverified", {"model": "gpt-5.1", "streaming_mode": "none"}),
        ("unverified", {"model": "gpt-5.1"}),
        ("no-obfuscation", {}),
        ("json-word", {"response_format": "json"}),
        ("strict", {"response_format": {"type": "json_schema", "name": "person", "schema": PYDANTIC}}),
    ],
)
def test_what_the_account_or_the_server_refuses_is_not_sent(
    api: Api, quirky_openai: QuirkyOpenAI, quirk: str, config: dict[str, Any]
) -> None:
    """The answer is the stand-in's plain words, so those that ask for JSON are refused for their text alone."""
    result = answered(api, f"[[{quirk}]] Say hello", max_attempts=1, **config)

    assert result["output"], result
    assert (result["error"] or {}).get("code") in (None, "output_invalid")
    assert (result["status"] == "completed") is ("response_format" not in config)


@pytest.mark.parametrize(("quirk", "estimated"), [("chat-usage", False), ("no-usage", True)])
def test_usage_is_never_an_exact_zero(api: Api, quirky_openai: QuirkyOpenAI, quirk: str, estimated: bool) -> None:
    result = answered(api, f"[[{quirk}]] hi")
    [attempt] = api.get(f"/jobs/{result['job_id']}/attempts")["data"]

    assert result["usage"]["estimated"] is attempt["usage"]["estimated"] is estimated
    assert result["usage"]["input_tokens"] > 0 < result["usage"]["output_tokens"]
    assert float(result["cost"]) == float(attempt["cost"]) > 0


def test_an_answer_without_text_says_what_helps(api: Api, quirky_openai: QuirkyOpenAI) -> None:
    result = answered(api, "[[thought-only]] hi", model="gpt-5-mini")

    assert (result["status"], result["output"]) == ("incomplete", "")
    assert "all 4,096 output tokens went into reasoning" in result["incomplete_details"]["message"]


def test_a_fallback_model_that_refuses_a_parameter_leaves_the_job_to_its_own_model(
    stack: Stack, api: Api, quirky_openai: QuirkyOpenAI
) -> None:
    admin, name = stack.api("stage_admin"), "gpt-4.1-nano-2025-04-14"
    config = {"model": name, "temperature": 0.3, "fallback_models": ["gpt-5.2"]}
    admin.call("POST", f"/circuits/{name}/open", {"reason": "for the test"})

    def a_job_is_held() -> bool:
        """A worker may still have read the circuit as closed."""
        probe = api.submit(config={"model": name})
        return until(lambda: (status := api.get(f"/jobs/{probe}/status")["status"]) in ("held", "completed") and status, probe) == "held"

    try:
        until(a_job_is_held, "a job that is held")
        job_id = api.submit(prompt="[[no-temperature]] hi", config=config)
        held = until(lambda: (job := api.get(f"/jobs/{job_id}"))["status"] == "held" and job["attempt"] == 1 and job, "a job that waits")
    finally:
        admin.call("POST", f"/circuits/{name}/close", {})

    def retried() -> bool:
        """A worker may still have read the circuit as open."""
        api.call("POST", f"/jobs/{job_id}/retry", {})
        return bool(api.get(f"/jobs/{job_id}/status")["status"] == "completed")

    until(retried, "the end of the job")
    result = api.get(f"/jobs/{job_id}/result")

    assert held["reason"] == "circuit_open"
    assert (result["status"], result["model"]) == ("completed", name), result
    assert [one.model for one in quirky_openai.asked_for("no-temperature")] == ["gpt-5.2", name]
