"""Durable jobs on the laptop cloud: real worker processes die or come to their time's end, and the answer goes on.

llmock has no background responses, so a stand-in for those stands before it while these tests run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from random import Random
from typing import Any

import pytest

from infra.naming import openai_secret_name
from tests.e2e.chaos import Lies, Workers, function_times_out
from tests.e2e.cloud import Api, Stack, until
from tests.e2e.watchers import EventSource, SocketWatcher
from tests.kit.background_openai import BackgroundOpenAI
from tests.kit.live_response import Scenario

LANE = "urgent"
SECONDS = 20  # of an invocation: its worker leaves four seconds before
WORDS = [f"w{number} " for number in range(120)]
TEXT = "".join(WORDS)


@contextmanager
def reached_at(stack: Stack, url: str) -> Iterator[None]:
    """Workers that start from now on find OpenAI there."""
    secrets, name = stack.aws("secretsmanager"), openai_secret_name("local")
    before = secrets.get_secret_value(SecretId=name)["SecretString"]
    secrets.put_secret_value(SecretId=name, SecretString=json.dumps(json.loads(before) | {"base_url": url}))
    try:
        yield
    finally:
        secrets.put_secret_value(SecretId=name, SecretString=before)


@pytest.fixture(scope="module")
def openai(stack: Stack) -> Iterator[BackgroundOpenAI]:
    """What answers instead of llmock. Idle workers, which know another address, are ended before and after."""
    workers = Workers(stack, stack.api())
    with BackgroundOpenAI(upstream=stack.openai_url) as background, reached_at(stack, background.url):
        workers.end_idle()
        yield background
    workers.end_idle()


def _submitted(api: Api, openai: BackgroundOpenAI, prompt: str, every: float, **config: Any) -> str:
    openai.scenarios.append(Scenario(deltas=WORDS, every=every, prompt=prompt))
    return api.submit(prompt=prompt, priority=LANE, config={"durable": True, "timeout": 600, **config})


def _watched(stack: Stack, job_id: str) -> tuple[SocketWatcher, EventSource]:
    watcher, events = SocketWatcher(stack, job_id, patience=240.0), EventSource(stack.api("operator"), job_id, patience=240.0)
    with ThreadPoolExecutor() as threads:
        for one in [threads.submit(watcher.watch), threads.submit(events.watch)]:
            one.result()
    return watcher, events


def _expect_one_text(api: Api, job_id: str, watcher: SocketWatcher, events: EventSource) -> None:
    result = api.wait_for_end(job_id)
    attempts = api.get(f"/jobs/{job_id}/attempts")["data"]
    assert (result["status"], result["output"]) == ("completed", TEXT)
    assert (watcher.text, events.text) == (TEXT, TEXT)
    assert not watcher.started_over
    assert [(one["attempt"], one["usage"]["estimated"]) for one in attempts] == [(1, False)]


def test_durable_job_survives_a_killed_worker(stack: Stack, api: Api, openai: BackgroundOpenAI) -> None:
    """The successor continues the same attempt, and subscribers hold the whole text."""
    queues, workers = Lies(stack, Random(1)), Workers(stack, api)
    with queues.given_out_again_soon():
        job_id = _submitted(api, openai, "killed", 0.1)
        until(lambda: api.get(f"/jobs/{job_id}")["status"] == "processing", "a worker")
    until(lambda: api.get(f"/jobs/{job_id}/text")["text"], "some text")

    assert until(lambda: workers.hit("killed", Random(1), LANE), "a worker to kill")
    watcher, events = _watched(stack, job_id)

    _expect_one_text(api, job_id, watcher, events)
    until(lambda: not queues.left(), "the dead worker's message, given out again and dropped")
    [response] = [one for one in openai.responses.values() if one.asked["input"] == "killed"]
    assert (response.read, response.status) == (True, "completed")


def test_durable_job_outlives_its_invocation(stack: Stack, api: Api, openai: BackgroundOpenAI) -> None:
    """Thirty seconds of text pass through invocations of twenty seconds."""
    with function_times_out(stack, LANE, SECONDS):
        job_id = _submitted(api, openai, "handed over", 0.25)
        watcher, events = _watched(stack, job_id)

    _expect_one_text(api, job_id, watcher, events)
    assert sum(one.asked["input"] == "handed over" for one in openai.responses.values()) == 1


def test_cancelling_a_durable_job_cancels_its_response(api: Api, openai: BackgroundOpenAI) -> None:
    """With a closed connection alone it would run on and be charged."""
    job_id = _submitted(api, openai, "cancelled", 1.0)
    until(lambda: api.get(f"/jobs/{job_id}/text")["text"], "some text")

    api.call("DELETE", f"/jobs/{job_id}")

    result = api.wait_for_end(job_id)
    assert result["status"] == "cancelled"
    assert TEXT.startswith(result["output"])
    [response] = [one for one in openai.responses.values() if one.asked["input"] == "cancelled"]
    assert response.status == "cancelled"


def test_plain_job_is_answered_by_llmock(api: Api, openai: BackgroundOpenAI) -> None:
    result = api.wait_for_end(api.submit(priority=LANE))

    assert result["status"] == "completed"
    assert openai.verdict()["running"] == []
