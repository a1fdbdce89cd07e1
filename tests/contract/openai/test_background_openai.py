"""The stand-in server for background responses sends what the SDK's types describe, and refuses as OpenAI does."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from chalicelib.adapters.aws.openai_credentials import Credentials
from chalicelib.adapters.openai.provider import OpenAIResponses
from chalicelib.ports import ModelRequest
from tests.contract.openai.loopback import CREATED, Answer, Loopback, Pause, completed, delta
from tests.kit.background_openai import BackgroundOpenAI
from tests.kit.live_response import Scenario
from tests.kit.paths import ROOT

REQUEST = {"model": "gpt-4o-mini", "input": "Say hello.", "background": True, "stream": True}


def call(url: str, method: str = "GET", body: dict[str, Any] | None = None) -> Any:
    data = json.dumps(body).encode() if body is not None else None
    with urllib.request.urlopen(
        urllib.request.Request(url, data, {"content-type": "application/json"}, method=method), timeout=5
    ) as answer:
        text = answer.read().decode()
    return json.loads(text) if answer.headers["content-type"] == "application/json" else text


def refusal(url: str, method: str = "GET", body: dict[str, Any] | None = None) -> tuple[int, str]:
    with pytest.raises(urllib.error.HTTPError) as refused:
        call(url, method, body)
    with refused.value as answer:
        return answer.code, json.load(answer)["error"]["message"]


def events_in(stream: str) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix("data: ")) for line in stream.split("\n") if line.startswith("data: ")]


def created(server: BackgroundOpenAI, **changes: Any) -> list[dict[str, Any]]:
    """The events of a response that is read to its end."""
    return events_in(call(f"{server.url}/responses", "POST", {**REQUEST, **changes}))


def id_of(events: list[dict[str, Any]]) -> str:
    return str(events[0]["response"]["id"])


@pytest.mark.parametrize(
    ("scenario", "last"),
    [
        (Scenario(), "completed"),
        (Scenario(refusal=True), "completed"),
        (Scenario(queued=0.01), "completed"),
        (Scenario(incomplete="max_output_tokens"), "incomplete"),
        (Scenario(fails={"code": "server_error", "message": "Oh."}), "failed"),
        (Scenario(deltas=[]), "completed"),
    ],
)
def test_every_event_validates_against_the_sdk_types(scenario: Scenario, last: str) -> None:
    """No event has missing or unknown fields; events are numbered from 0 without a gap."""
    event_type: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)

    with BackgroundOpenAI(scenario) as server:
        events = created(server)
        kept = call(f"{server.url}/responses/{id_of(events)}")

    for event in events:
        read = event_type.validate_python(event, strict=True)
        assert read.type == event["type"]
        assert not read.model_extra, f"{event['type']} has fields that OpenAI does not know"
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[-1]["type"] == f"response.{last}"
    assert kept == events[-1]["response"]
    assert not Response.model_validate(kept, strict=True).model_extra


def test_sdk_reads_and_resumes_streams() -> None:
    with BackgroundOpenAI(Scenario()) as server, openai.OpenAI(api_key="key", base_url=server.url, max_retries=0) as client:
        seen = list(client.responses.create(model="gpt-4o-mini", input="Hi", background=True, stream=True))
        response_id = server.verdict()["responses"][0]["id"]
        rest = list(client.responses.retrieve(response_id, stream=True, starting_after=4))

        assert [type(event) for event in rest] == [type(event) for event in seen[5:]]
        assert client.responses.retrieve(response_id).output_text == "Hello, world"


def test_response_completes_without_a_reader() -> None:
    with BackgroundOpenAI(Scenario(every=0.05)) as server:
        made = call(f"{server.url}/responses", "POST", {**REQUEST, "stream": False})

        assert (made["status"], made["output"], made["usage"]) == ("in_progress", [], None)
        time.sleep(0.4)
        assert server.verdict()["running"] == []
        assert call(f"{server.url}/responses/{made['id']}")["status"] == "completed"


# ---- refusals


def test_response_created_without_stream_cannot_be_streamed() -> None:
    with BackgroundOpenAI() as server:
        made = call(f"{server.url}/responses", "POST", {**REQUEST, "stream": False})

        status, message = refusal(f"{server.url}/responses/{made['id']}?stream=true")

        assert status == 400
        assert "not created with stream=true" in message


def test_old_stream_is_refused_and_forgotten_response_is_not_found() -> None:
    with BackgroundOpenAI(streams_for=0.0, keeps_for=0.3) as server:
        url = f"{server.url}/responses/{id_of(created(server))}"

        assert refusal(f"{url}?stream=true") == (400, "This response can no longer be streamed because it is more than 5 minutes old.")
        assert call(url)["status"] == "completed"
        time.sleep(0.4)
        for method, path in (("GET", ""), ("GET", "?stream=true"), ("POST", "/cancel")):
            status, message = refusal(url + path, method)
            assert (status, "not found" in message) == (404, True)


def test_background_request_with_store_false_is_refused() -> None:
    with BackgroundOpenAI() as server:
        assert refusal(f"{server.url}/responses", "POST", {**REQUEST, "store": False})[0] == 400


def test_only_a_running_response_can_be_cancelled() -> None:
    """Cancelling it a second time succeeds."""
    with BackgroundOpenAI(Scenario(every=0.01), Scenario(prompt="slow", every=5.0)) as server:
        ended = id_of(created(server))
        running = call(f"{server.url}/responses", "POST", {**REQUEST, "input": "slow", "stream": False})["id"]

        assert refusal(f"{server.url}/responses/{ended}/cancel", "POST") == (400, "Cannot cancel a completed response.")
        first, second = (call(f"{server.url}/responses/{running}/cancel", "POST") for _ in range(2))

        assert first == second
        assert (first["status"], first["output"]) == ("cancelled", [])


# ---- the verdict


def test_verdict_names_responses_neither_read_nor_cancelled() -> None:
    with BackgroundOpenAI(Scenario(every=0.2), Scenario(prompt="fast", every=0.0)) as server:
        created(server, input="fast")
        left, cancelled = (call(f"{server.url}/responses", "POST", {**REQUEST, "stream": False})["id"] for _ in range(2))
        call(f"{server.url}/responses/{cancelled}/cancel", "POST")

        early = server.verdict()
        assert (early["ok"], early["unheeded"], early["running"]) == (False, [left], [left])
        time.sleep(0.8)
        assert (server.verdict()["unheeded"], server.verdict()["running"]) == ([left], [])
        call(f"{server.url}/responses/{left}")
        assert server.verdict()["ok"]
        assert server.verdict()["counts"] == {"created": 3, "cancelled": 1, "retrieved": 1}


def test_cancelled_response_is_charged_for_written_tokens_only() -> None:
    with BackgroundOpenAI(Scenario(["one "] * 100, every=0.05)) as server:
        made = call(f"{server.url}/responses", "POST", {**REQUEST, "stream": False})
        time.sleep(0.3)
        usage = call(f"{server.url}/responses/{made['id']}/cancel", "POST")["usage"]
        time.sleep(0.2)

        assert 1 <= usage["output_tokens"] <= 10
        assert server.verdict()["charged"] == {name: usage[name] for name in ("input_tokens", "output_tokens")}


# ---- as a proxy


def test_other_requests_are_proxied_piece_by_piece() -> None:
    """Requests and responses pass unchanged."""

    async def work() -> None:
        async with Loopback(Answer([CREATED, delta("Hel", 4), Pause(1.0), delta("lo", 5), completed()])) as upstream:
            with BackgroundOpenAI(upstream=upstream.url.removesuffix("/v1")) as server:
                provider = OpenAIResponses(lambda: Credentials("sk-1", server.url))
                received_at: dict[str, float] = {}
                async with provider.stream(ModelRequest(model="gpt-4o-mini", prompt="Hi")) as events:
                    async for event in events:
                        received_at[getattr(event, "text", "")] = time.monotonic()
                await provider.client().close()

                assert (upstream.requests[0]["input"], upstream.headers[0]["authorization"]) == ("Hi", "Bearer sk-1")
                assert received_at["lo"] - received_at["Hel"] > 0.2
                assert server.verdict()["responses"] == []

    asyncio.run(work())


def test_client_disconnect_reaches_the_upstream() -> None:
    async def work() -> None:
        async with Loopback(Answer([CREATED, delta("Hel"), Pause(10), completed()])) as upstream:
            with BackgroundOpenAI(upstream=upstream.url.removesuffix("/v1")) as server:
                client = openai.AsyncOpenAI(api_key="sk-1", base_url=server.url, max_retries=0)
                stream = await client.responses.create(model="gpt-4o-mini", input="Hi", stream=True)
                await anext(stream)
                await stream.close()
                await asyncio.wait_for(upstream.hung_up.wait(), 2)
                await client.close()

    asyncio.run(work())


def test_unreachable_upstream_is_answered_with_502() -> None:
    with BackgroundOpenAI(upstream="http://127.0.0.1:9") as server:
        assert refusal(f"{server.url}/models")[0] == 502


# ---- as a process


@pytest.fixture
def process() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tests.kit.background_openai", "--port", str(port)]
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}) as running:
        for _ in range(200):
            try:
                call(f"http://127.0.0.1:{port}/_standin/verdict")
                break
            except OSError:
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
        running.send_signal(signal.SIGTERM)


def test_standin_process_is_controlled_over_http(process: str) -> None:
    call(f"{process}/_standin/scenarios", "POST", {"prompt": "hello", "deltas": ["Good ", "day"], "every": 0.0, "times": 1})
    call(f"{process}/_standin/settings", "POST", {"streams_for": 0})

    texts = [
        events_in(call(f"{process}/v1/responses", "POST", REQUEST))[-1]["response"]["output"][0]["content"][0]["text"] for _ in range(2)
    ]
    verdict = call(f"{process}/_standin/verdict")

    assert texts == ["Good day", "Hello, world"]
    assert (verdict["ok"], verdict["counts"]) == (True, {"created": 2})
    assert refusal(f"{process}/v1/responses/{verdict['responses'][0]['id']}?stream=true")[0] == 400
    assert len(call(f"{process}/_standin/requests")["requests"]) == 3
    assert refusal(f"{process}/_standin/scenarios", "POST", {"colour": "blue"})[0] == 400
    call(f"{process}/_standin/reset", "POST", {})
    assert call(f"{process}/_standin/verdict")["responses"] == []
