"""The OpenAI provider against llmock, a third-party server in an environment of its own (`.venv-cloud`)."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from chalicelib.adapters.aws.openai_credentials import Credentials
from chalicelib.adapters.openai.provider import OpenAIResponses
from chalicelib.domain.failures import (
    AttemptFailed,
    ProviderConnectionLost,
    ProviderQuotaExhausted,
    ProviderRateLimited,
    StreamCut,
    StreamMalformed,
)
from chalicelib.ports import ModelRequest, ProviderEvent, ResponseEnded, TextDelta
from chalicelib.services.prompts.cache_scope import scope_to_tenant
from tests.kit.paths import ROOT

LLMOCK = next((str(found) for found in [ROOT / ".venv-cloud/bin/llmock"] if found.exists()), shutil.which("llmock"))
ASK = scope_to_tenant(ModelRequest(model="gpt-4o-mini", prompt="Say hello.", timeout=10.0), "acme", isolated=True)

pytestmark = pytest.mark.skipif(LLMOCK is None, reason="llmock is not installed: it comes with the laptop cloud, in .venv-cloud")


class Llmock:
    """An llmock server and its control API."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def control(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        request = urllib.request.Request(
            f"{self.url}/_llmock/{path}", json.dumps(body).encode() if body is not None else None, method=method
        )
        with urllib.request.urlopen(request, timeout=5) as answer:
            return json.load(answer)

    def script(self, **behaviour: Any) -> None:
        self.control("POST", "scenario", {"behaviors": [behaviour]})


@pytest.fixture(scope="module")
def server() -> Iterator[Llmock]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [str(LLMOCK), "serve", "--port", str(port), "--log-level", "error", "--stream-chunk-delay-ms", "5"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        llmock = Llmock(port)
        for _ in range(200):
            try:
                llmock.control("POST", "reset", {})
                break
            except OSError:
                time.sleep(0.05)
        yield llmock
        process.terminate()


@pytest.fixture
def llmock(server: Llmock) -> Llmock:
    server.control("POST", "reset", {})
    return server


def read(llmock: Llmock, limit: int = 1_000_000) -> list[ProviderEvent]:
    """Read a stream and leave it after `limit` events."""

    async def run() -> list[ProviderEvent]:
        provider = OpenAIResponses(lambda: Credentials("key", f"{llmock.url}/v1"))
        seen: list[ProviderEvent] = []
        try:
            async with provider.stream(ASK) as events:
                async for event in events:
                    seen.append(event)
                    if len(seen) == limit:
                        break
        finally:
            await provider.client().close()
        return seen

    return asyncio.run(run())


def test_llmock_reply_arrives_whole(llmock: Llmock) -> None:
    llmock.script(type="reply", text="Grüße an alle 👋")

    seen = read(llmock)

    assert "".join(one.text for one in seen if isinstance(one, TextDelta)) == "Grüße an alle 👋"
    assert isinstance(seen[-1], ResponseEnded)
    assert seen[-1].usage is not None


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        ({"type": "stream_fault", "kind": "disconnect", "after_chunks": 5}, ProviderConnectionLost),
        ({"type": "stream_fault", "kind": "truncate", "after_chunks": 5}, StreamCut),
        ({"type": "stream_fault", "kind": "malformed", "after_chunks": 5}, StreamMalformed),
        ({"type": "fail", "status": 429, "retry_after": 2}, ProviderRateLimited),
        ({"type": "fail", "status": 429, "code": "insufficient_quota"}, ProviderQuotaExhausted),
    ],
)
def test_llmock_faults_are_classified(llmock: Llmock, behaviour: dict[str, Any], kind: type[AttemptFailed]) -> None:
    llmock.script(**behaviour)

    with pytest.raises(AttemptFailed) as raised:
        read(llmock)

    assert type(raised.value) is kind


def test_leaving_the_stream_early_stops_llmock(llmock: Llmock) -> None:
    llmock.script(type="reply", text="word " * 1_000)

    read(llmock, limit=20)

    [request] = llmock.control("GET", "requests")["requests"]
    assert request["completed"] is False
    assert request["chunks_sent"] < 100
