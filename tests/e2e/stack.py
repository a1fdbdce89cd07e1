"""The running laptop cloud: its API as each role, its emulators, and llmock in place of OpenAI."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import uuid4

import boto3
import httpx2
import pytest

from infra.local import stack_file
from infra.naming import openai_secret_name
from tests.kit.paths import ROOT

SWEEPS = ("sweep", "sweep_lines", "sweep_deliveries", "sweep_job_ends", "sweep_batches")
SWEEP_SECONDS = 5.0  # between two runs of what a schedule invokes every minute
SCHEDULED = {**dict.fromkeys(("version", "account", "region", "source", "id", "time", "detail-type"), ""), "detail": {}, "resources": []}
TERMINAL = ("completed", "incomplete", "failed", "cancelled", "expired")
TIMEOUT = 60.0  # seconds that a test waits for an event; no test asserts a duration

T = TypeVar("T")


@dataclass(frozen=True)
class Stack:
    """The running laptop cloud, as described in `.local/stack.json`."""

    api_url: str
    ws_url: str
    aws_endpoint: str
    openai_url: str
    region: str
    tokens: dict[str, str]
    http: httpx2.Client  # shared; safe to use from several threads

    def api(self, role: str | None = "user") -> Api:
        """Return the API with one of the keys of `tokens`, or without a key."""
        return Api(self.http, self.api_url, self.tokens[role] if role else None)

    def model(self) -> Model:
        return Model(self.http, self.openai_url)

    def aws(self, service: str) -> Any:
        """Return a boto3 client of the emulator, for what the API cannot do."""
        return boto3.client(
            service, endpoint_url=self.aws_endpoint, region_name=self.region, aws_access_key_id="test", aws_secret_access_key="test"
        )

    def run_schedule(self, name: str = "sweep") -> None:
        """Run a scheduled function once, with the event of its schedule."""
        function = f"headrace-local-{name}"
        answer = self.aws("lambda").invoke(FunctionName=function, Payload=json.dumps(SCHEDULED).encode())
        assert "FunctionError" not in answer, answer["Payload"].read()

    @contextmanager
    def sweeping(self) -> Iterator[None]:
        """Run the scheduled functions all the time: what waits for one need not wait for the next minute."""
        over = threading.Event()

        def sweep() -> None:
            while not over.wait(SWEEP_SECONDS):
                for name in SWEEPS:
                    self.run_schedule(name)

        with ThreadPoolExecutor(1) as threads:
            running = threads.submit(sweep)
            try:
                yield
            finally:
                over.set()
            running.result()


class Api:
    """HTTP requests of one caller. `call` raises no error for an HTTP status."""

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
        """Return the JSON of a response, which has to be a success."""
        answer = self.call("GET", path, query=query)
        assert answer.is_success, answer.text
        return answer.json()

    def submit(self, **fields: Any) -> str:
        """Submit a job, which has to be accepted. Return its id."""
        answer = self.call("POST", "/jobs", {"prompt": "Say something.", **fields})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["job_id"])

    def wait_for_end(self, job_id: str, seconds: float = TIMEOUT) -> dict[str, Any]:
        """Wait for the end of a job, for at most `seconds`, and return its result."""
        deadline, version = time.monotonic() + seconds, ""
        while time.monotonic() < deadline:
            seen = {"If-None-Match": version} if version else {}
            answer = self.call("GET", f"/jobs/{job_id}/status", query={"wait": 10}, headers=seen)
            version = answer.headers.get("ETag", version)
            if answer.status_code == 200 and answer.json()["status"] in TERMINAL:
                result: dict[str, Any] = self.get(f"/jobs/{job_id}/result")
                return result
        raise AssertionError(f"{job_id} has not ended: {self.get(f'/jobs/{job_id}')}")

    def run_now(self, job_id: str) -> None:
        """Let a delayed job run."""
        answer = self.call("PATCH", f"/jobs/{job_id}", {"delay": 0})
        assert answer.is_success, answer.text

    def upload(self, content_type: str, data: bytes) -> str:
        """Upload a file. Return the id of the upload."""
        link = self.call("POST", "/uploads", {"content_type": content_type, "size": len(data)})
        assert link.status_code == 201, link.text
        ticket = link.json()
        put = httpx2.request(ticket["method"], ticket["url"], content=data, headers=ticket["headers"], trust_env=False, timeout=TIMEOUT)
        assert put.status_code == 200, put.text
        return str(ticket["upload_id"])

    def wait_for_text(self, job_id: str) -> dict[str, Any]:
        """Wait until some text is stored, and return the first part of it."""
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline:
            part: dict[str, Any] = self.get(f"/jobs/{job_id}/text", wait=10)
            if part["text"]:
                return part
        raise AssertionError(f"{job_id} has no text")


@dataclass(frozen=True)
class Model:
    """A model name that only one test uses, so that tests do not share scripts and requests.

    llmock accepts any model name, and sends a word every 20 ms. All names with this beginning have
    one price.
    """

    http: httpx2.Client
    openai_url: str
    name: str = field(default_factory=lambda: f"gpt-4o-mini-audio-{uuid4().hex[:12]}")

    @property
    def config(self) -> dict[str, Any]:
        return {"model": self.name}

    @property
    def echo(self) -> dict[str, Any]:
        """A config with a minimal system prompt.

        Without a script, llmock repeats the beginning of its input.
        """
        return {**self.config, "system_prompt": "Say:"}

    def reply(self, text: str, times: int | None = None) -> None:
        """Answer requests with this text."""
        self._add({"type": "reply", "text": text, "times": times})

    def fault(self, kind: str, after_chunks: int) -> None:
        """Break the next stream."""
        self._add({"type": "stream_fault", "kind": kind, "after_chunks": after_chunks, "times": 1})

    def fail(self, status: int, **more: Any) -> None:
        """Refuse the next request."""
        self._add({"type": "fail", "status": status, "times": 1, **more})

    def script(self, behaviours: list[dict[str, Any]]) -> None:
        """Add behaviours to llmock, in this order. Each has to name this model itself."""
        self.http.post(f"{self.openai_url}/_llmock/scenario", json={"behaviors": behaviours}).raise_for_status()

    def delay_first_token(self, seconds: float) -> None:
        """Delay the first token of each answer."""
        self._add({"type": "slow_first_token", "seconds": seconds, "times": None})

    @property
    def requests(self) -> list[dict[str, Any]]:
        """The requests to this model whose responses have ended."""
        answer = self.http.get(f"{self.openai_url}/_llmock/requests")
        return [request for request in answer.json()["requests"] if request["model"] == self.name]

    def _add(self, behaviour: dict[str, Any]) -> None:
        self.script([{**behaviour, "match": {"model": self.name}}])


@contextmanager
def reached_at(stack: Stack, url: str) -> Iterator[None]:
    """Set OpenAI's URL for the workers that start from now on."""
    secrets, name = stack.aws("secretsmanager"), openai_secret_name("local")
    before = secrets.get_secret_value(SecretId=name)["SecretString"]
    secrets.put_secret_value(SecretId=name, SecretString=json.dumps(json.loads(before) | {"base_url": url}))
    try:
        yield
    finally:
        secrets.put_secret_value(SecretId=name, SecretString=before)


def make_key(tenant: str, role: str, user: str = "default") -> str:
    """Create an API key with the admin command."""
    command = [sys.executable, "-m", "infra", "keys", "make", "--stage", "local", "--tenant", tenant, "--role", role, "--user", user]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def until(find: Callable[[], T | None], what: str) -> T:
    """Call `find` until it returns something, and return that. `what` is for the error message."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        found = find()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"not found in time: {what}")


def words(count: int, word: str = "word") -> str:
    """Return `count` distinct words, so that a lost or doubled word is detected."""
    return " ".join(f"{word}{number}" for number in itertools.islice(itertools.count(), count))


def running_stack() -> Iterator[Stack]:
    """Yield the laptop cloud of this checkout with its current code.

    It is stopped afterwards, unless it ran before.

    The user's OpenAI key is not used, so these tests cost nothing.
    """
    if not (ROOT / ".venv-cloud" / "bin" / "python").exists():
        missing = "The laptop cloud has no environment (.venv-cloud): `make environments` creates it."
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    before = stack_file.read()
    was_running = before is not None and all(process.alive() for process in stack_file.processes(before))
    _infra("up")
    try:
        content = stack_file.read() or {}
        known = {name: content[name] for name in Stack.__dataclass_fields__ if name in content}
        with httpx2.Client(timeout=TIMEOUT, trust_env=False) as http:
            stack = Stack(**known, http=http)
            _check_end_to_end(stack)
            yield stack
    finally:
        if not was_running:
            _infra("down")


def _check_end_to_end(stack: Stack) -> None:
    """Run one job. If that fails, no other test has to wait for its timeout."""
    api, model = stack.api(), stack.model()
    model.reply("Hello.")
    result = api.wait_for_end(api.submit(config=model.config))
    assert result["output"] == "Hello.", result


def _infra(command: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}
    done = subprocess.run([sys.executable, "-m", "infra", command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    if done.returncode:
        pytest.fail(f"`python -m infra {command}` failed:\n{done.stdout}{done.stderr}")
