"""The product from outside: what is up, its API as each role, and the model that stands in for OpenAI."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import uuid4

import boto3
import httpx2
import pytest

from infra.local import stack_file
from tests.kit.paths import ROOT

TERMINAL = ("completed", "incomplete", "failed", "cancelled", "expired")
PATIENCE = 60.0  # seconds after which a test gives up waiting; none asserts how long something took

T = TypeVar("T")


@dataclass(frozen=True)
class Stack:
    """What `.local/stack.json` says of the running laptop cloud."""

    api_url: str
    ws_url: str
    aws_endpoint: str
    openai_url: str
    region: str
    tokens: dict[str, str]
    http: httpx2.Client  # one for all, safe to share between threads

    def api(self, role: str | None = "user") -> Api:
        """The API as one of the keys of `tokens` sees it; None: without a key."""
        return Api(self.http, self.api_url, self.tokens[role] if role else None)

    def model(self) -> Model:
        return Model(self.http, self.openai_url)

    def aws(self, service: str) -> Any:
        """A client of the emulator: for what no public surface can do, such as a message that nobody should send."""
        return boto3.client(
            service, endpoint_url=self.aws_endpoint, region_name=self.region, aws_access_key_id="test", aws_secret_access_key="test"
        )


class Api:
    """HTTP as one caller. Answers are as they came: no error is raised for a status."""

    def __init__(self, http: httpx2.Client, url: str, token: str | None) -> None:
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.url = url
        self._http = http

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: dict[str, Any] | None = None,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx2.Response:
        sent = {**self.headers, "Content-Type": "application/json", **(headers or {})}
        payload: dict[str, Any] = {"content": content} if content is not None else {"json": body} if body is not None else {}
        return self._http.request(method, self.url + path, params=query, headers=sent, **payload)

    def get(self, path: str, **query: Any) -> Any:
        """The JSON of an answer that has to be a success."""
        answer = self.call("GET", path, query=query)
        assert answer.is_success, answer.text
        return answer.json()

    def submit(self, **fields: Any) -> str:
        """A job that has to be accepted."""
        answer = self.call("POST", "/jobs", {"prompt": "Say something.", **fields})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["job_id"])

    def wait_for_end(self, job_id: str) -> dict[str, Any]:
        """The result, once there is one."""
        deadline, version = time.monotonic() + PATIENCE, ""
        while time.monotonic() < deadline:
            seen = {"If-None-Match": version} if version else {}
            answer = self.call("GET", f"/jobs/{job_id}/status", query={"wait": 10}, headers=seen)
            version = answer.headers.get("ETag", version)
            if answer.status_code == 200 and answer.json()["status"] in TERMINAL:
                result: dict[str, Any] = self.get(f"/jobs/{job_id}/result")
                return result
        raise AssertionError(f"{job_id} has not ended: {self.get(f'/jobs/{job_id}')}")

    def wait_for_text(self, job_id: str) -> dict[str, Any]:
        """The first stretch of the text that is kept."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            part: dict[str, Any] = self.get(f"/jobs/{job_id}/text", wait=10)
            if part["text"]:
                return part
        raise AssertionError(f"nothing came of {job_id}")


@dataclass(frozen=True)
class Model:
    """A model of OpenAI's that only one test uses, so that what one scripts and counts is nothing to the others.

    llmock sends a word every 20 ms, and answers any model by any name. All that begin like these have one price.
    """

    http: httpx2.Client
    openai_url: str
    name: str = field(default_factory=lambda: f"gpt-4o-mini-audio-{uuid4().hex[:12]}")

    @property
    def config(self) -> dict[str, Any]:
        return {"model": self.name}

    @property
    def echo(self) -> dict[str, Any]:
        """A config in which nothing stands before the prompt, whose beginning llmock then repeats."""
        return {**self.config, "system_prompt": "Say:"}

    def say(self, text: str, times: int | None = None) -> None:
        self._script({"type": "reply", "text": text, "times": times})

    def fault(self, kind: str, after_chunks: int) -> None:
        """Break the next stream."""
        self._script({"type": "stream_fault", "kind": kind, "after_chunks": after_chunks, "times": 1})

    def fail(self, status: int, **more: Any) -> None:
        """Refuse the next request."""
        self._script({"type": "fail", "status": status, "times": 1, **more})

    def follow(self, script: list[dict[str, Any]]) -> None:
        """Have all of llmock's behaviours of `script` come, each in its order; they name this model themselves."""
        self.http.post(f"{self.openai_url}/_llmock/scenario", json={"behaviors": script}).raise_for_status()

    def think_first(self, seconds: float) -> None:
        """Let each answer begin so much later."""
        self._script({"type": "slow_first_token", "seconds": seconds, "times": None})

    @property
    def requests(self) -> list[dict[str, Any]]:
        """What OpenAI was asked, as far as the answers have ended."""
        answer = self.http.get(f"{self.openai_url}/_llmock/requests")
        return [request for request in answer.json()["requests"] if request["model"] == self.name]

    def _script(self, behaviour: dict[str, Any]) -> None:
        self.follow([{**behaviour, "match": {"model": self.name}}])


def until(look: Callable[[], T | None], what: str) -> T:
    """What `look` finds, as soon as it finds something."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"still not there: {what}")


def words(count: int, word: str = "word") -> str:
    """`count` words, each different, so that none can be lost or doubled unseen."""
    return " ".join(f"{word}{number}" for number in itertools.islice(itertools.count(), count))


def running_stack() -> Iterator[Stack]:
    """The laptop cloud of this checkout, with its code of now. What is started here is ended here; one that ran stays.

    The user's own key of OpenAI is kept out: these tests cost nothing.
    """
    if not (ROOT / ".venv-cloud" / "bin" / "python").exists():
        missing = "The laptop cloud has no environment (.venv-cloud): `make environments` makes it."
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    before = stack_file.read()
    was_running = before is not None and all(process.alive() for process in stack_file.processes(before))
    _infra("up")
    try:
        content = stack_file.read() or {}
        known = {name: content[name] for name in Stack.__dataclass_fields__ if name in content}
        with httpx2.Client(timeout=PATIENCE, trust_env=False) as http:
            stack = Stack(**known, http=http)
            _says_something(stack)
            yield stack
    finally:
        if not was_running:
            _infra("down")


def _says_something(stack: Stack) -> None:
    """One job from end to end: where that fails, no other test waits in vain."""
    api, model = stack.api(), stack.model()
    model.say("Hello.")
    result = api.wait_for_end(api.submit(config=model.config))
    assert result["output"] == "Hello.", result


def _infra(command: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}
    done = subprocess.run([sys.executable, "-m", "infra", command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    if done.returncode:
        pytest.fail(f"`python -m infra {command}` failed:\n{done.stdout}{done.stderr}")
