"""Durable jobs on the laptop cloud: worker processes die or time out, and the response continues.

llmock has no background responses, so a stand-in with them is put in front of it while these tests
run.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

import pytest

from tests.e2e.chaos import StrayMessages, Workers, function_times_out
from tests.e2e.stack import Api, Stack, reached_at, until
from tests.e2e.subscribers import EventSource, SocketSubscriber
from tests.kit.background_openai import BackgroundOpenAI
from tests.kit.live_response import Scenario

LANE = "urgent"
SECONDS = 12  # the function timeout; the worker hands over a fifth of it before it
WORDS = [f"w{number} " for number in range(120)]
TEXT = "".join(WORDS)


@pytest.fixture(scope="module")
def openai(stack: Stack) -> Iterator[BackgroundOpenAI]:
    """The stand-in for OpenAI.

    Idle workers, which have cached another URL, are killed before and after.
    """
    workers = Workers(stack, stack.api())
    with BackgroundOpenAI(upstream=stack.openai_url) as background, reached_at(stack, background.url):
        workers.end_idle()
        yield background
    workers.end_idle()


def _submitted(api: Api, openai: BackgroundOpenAI, prompt: str, every: float, **config: Any) -> str:
    """Submit a durable job whose answer has a word every `every` seconds. Return its id."""
    openai.scenarios.append(Scenario(deltas=WORDS, every=every, prompt=prompt))
    return api.submit(prompt=prompt, priority=LANE, config={"durable": True, "timeout": 600, **config})


def _follow(stack: Stack, job_id: str) -> tuple[SocketSubscriber, EventSource]:
    """Follow a job to its end, over a WebSocket and an EventSource."""
    subscriber, events = SocketSubscriber(stack, job_id, timeout=240.0), EventSource(stack.api("operator"), job_id, timeout=240.0)
    with ThreadPoolExecutor() as threads:
        for one in [threads.submit(subscriber.watch), threads.submit(events.watch)]:
            one.result()
    return subscriber, events


def _expect_one_text(api: Api, job_id: str, subscriber: SocketSubscriber, events: EventSource) -> None:
    result = api.wait_for_end(job_id)
    attempts = api.get(f"/jobs/{job_id}/attempts")["data"]
    assert (result["status"], result["output"]) == ("completed", TEXT)
    assert (subscriber.text, events.text) == (TEXT, TEXT)
    assert not subscriber.started_over
    assert [(one["attempt"], one["usage"]["estimated"]) for one in attempts] == [(1, False)]


def test_durable_job_survives_a_killed_worker(stack: Stack, api: Api, openai: BackgroundOpenAI) -> None:
    """The successor continues the same attempt, and subscribers hold the whole text."""
    queues, workers = StrayMessages(stack, Random(1)), Workers(stack, api)
    with queues.short_visibility_timeout():
        job_id = _submitted(api, openai, "killed", 0.1)
        until(lambda: api.get(f"/jobs/{job_id}")["status"] == "processing", "a worker")
    until(lambda: api.get(f"/jobs/{job_id}/text")["text"], "some text")

    assert until(lambda: workers.hit("killed", Random(1), LANE), "a worker to kill")
    with stack.sweeping():
        subscriber, events = _follow(stack, job_id)

    _expect_one_text(api, job_id, subscriber, events)
    until(lambda: not queues.left(), "the redelivery of the dead worker's message")
    [response] = [one for one in openai.responses.values() if one.request["input"] == "killed"]
    assert (response.read, response.status) == (True, "completed")


def test_durable_job_outlives_its_invocation(stack: Stack, api: Api, openai: BackgroundOpenAI) -> None:
    """Eighteen seconds of text pass through invocations of twelve seconds."""
    with function_times_out(stack, LANE, SECONDS):
        job_id = _submitted(api, openai, "handed over", 0.15)
        subscriber, events = _follow(stack, job_id)

    _expect_one_text(api, job_id, subscriber, events)
    assert sum(one.request["input"] == "handed over" for one in openai.responses.values()) == 1


def test_cancelling_a_durable_job_cancels_its_response(api: Api, openai: BackgroundOpenAI) -> None:
    """With a closed connection alone it would run on and be charged."""
    job_id = _submitted(api, openai, "cancelled", 1.0)
    until(lambda: api.get(f"/jobs/{job_id}/text")["text"], "some text")

    api.call("DELETE", f"/jobs/{job_id}")

    result = api.wait_for_end(job_id)
    assert result["status"] == "cancelled"
    assert TEXT.startswith(result["output"])
    [response] = [one for one in openai.responses.values() if one.request["input"] == "cancelled"]
    assert response.status == "cancelled"


def test_plain_job_is_answered_by_llmock(api: Api, openai: BackgroundOpenAI) -> None:
    result = api.wait_for_end(api.submit(priority=LANE))

    assert result["status"] == "completed"
    assert openai.verdict()["running"] == []
