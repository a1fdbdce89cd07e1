"""Take one job from submission to result, and count its requests to AWS.

The job goes through `app.py` and the real container. moto stands in for AWS and a script for
OpenAI; pauses take no real time. A client opens a WebSocket, submits an 8 KB prompt with an
Idempotency-Key, subscribes before a worker starts, receives 1,000 tokens in 20 s, reads the record
and the result, and closes the socket. The records of the change stream are delivered one by one.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

from moto import mock_aws

from bench.metering import Change, Meter
from bench.prose import prose, tokens
from bench.units import Raw
from chalicelib import bootstrap
from chalicelib.adapters.aws import client as aws
from chalicelib.adapters.dynamodb.api_keys import DynamoApiKeys
from chalicelib.adapters.memory.all import run_inline
from chalicelib.adapters.memory.streaming import MemorySockets
from chalicelib.domain.auth.identity import Key, Role
from chalicelib.domain.jobs.job import Usage
from chalicelib.domain.queues.lanes import LANES, queue_name
from chalicelib.domain.streaming.frames import encode
from chalicelib.observability import logger
from chalicelib.ports import ResponseEnded
from chalicelib.services.auth.authenticate import secret_hash
from chalicelib.settings import Settings
from infra.tables import TABLES, create_table_arguments
from tests.kit.container import InlineLoop
from tests.kit.http import Api
from tests.kit.provider import Script, ScriptedProvider
from tests.kit.time import JumpingLoop, LoopClock

STAGE, LANE = "dev", "normal"
TOKENS, SECONDS, PROMPT_POINTS = 1_000, 20.0, 8 * 1024
FIRST_TOKEN = 0.5  # seconds until the first token, of the 20
CONNECTION = "conn-0123456789="
CONTEXT = SimpleNamespace(
    log_stream_name="2026/11/22/[$LATEST]0123456789abcdef0123456789abcdef", get_remaining_time_in_millis=lambda: 900_000
)
REMOVED_VARIABLES = {"AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_SESSION_TOKEN"}
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}


@dataclass
class Journey:
    """What one job used."""

    meter: Meter
    invocations: Counter[str] = field(default_factory=Counter)  # by function
    frames: list[int] = field(default_factory=list)  # bytes of each frame that was posted
    messages_in: int = 0  # WebSocket messages from the client
    calls: int = 0  # REST calls
    response_bytes: int = 0  # of all REST calls, with headers
    log_bytes: int = 0  # of Headrace's own lines
    worker_seconds: float = 0.0
    connected_seconds: float = 0.0
    ended_at: int = 0  # milliseconds since 1970


class _Container(bootstrap.Container):
    """The real container with a scripted provider, in-memory sockets and the event loop's clock."""

    offload: Any = staticmethod(run_inline)
    offload_sends: Any = staticmethod(run_inline)

    def __init__(self, clock: LoopClock, loop: InlineLoop) -> None:
        super().__init__(Settings(stage=STAGE))
        replaced: dict[str, Any] = {"clock": clock, "provider": _scripted_provider(), "sockets": MemorySockets(), "worker_loop": loop}
        vars(self).update(replaced)  # takes precedence over the cached properties


class _Api(Api):
    def __init__(self) -> None:
        self.module = importlib.import_module("app")
        self.app = self.module.app


def run_journey() -> Journey:
    """Run the job once. The counts do not depend on the machine's clock or speed."""
    with mocked_aws(), _deployed_stage() as (container, loop, journey):
        client = _Client(_Api(), container, journey)
        client.open()
        job_id = client.submit()
        client.subscribe(job_id)
        started_at = loop.moment
        client.work()
        journey.worker_seconds = loop.moment - started_at
        client.read(job_id)
        client.close()
        client.stream_changes()
        journey.connected_seconds = loop.moment
        frames = container.sockets.frames[CONNECTION]  # type: ignore[attr-defined]
        assert "".join(frame.get("text", "") for frame in frames) == "".join(tokens(TOKENS)), "the frames differ from the model's text"
        journey.frames = [len(encode(frame)) for frame in frames]
        journey.ended_at = container.clock.now()
        return journey


class _Client:
    """The client, SQS's poller and the change stream, each step as a method."""

    def __init__(self, api: _Api, container: _Container, journey: Journey) -> None:
        self._api, self._container, self._journey = api, container, journey
        self._module: Any = api.module

    def open(self) -> None:
        with self._journey.meter.during("websocket"):
            self._socket("websocket_connect", "CONNECT", headers={"Authorization": "Bearer hr_user"})

    def submit(self) -> str:
        with self._journey.meter.during("submit"):
            body = {"prompt": prose(PROMPT_POINTS), "priority": LANE, "metadata": {"order": "4711"}, "tags": ["nightly"]}
            reply = self._call("POST", "/jobs", body, idempotency_key="0b0e7a52-5d0f-4b2c-9a51-1f8b1f5f3c55")
        return str(reply["job_id"])

    def subscribe(self, job_id: str) -> None:
        with self._journey.meter.during("websocket"):
            self._socket("websocket_message", "MESSAGE", body=f'{{"action": "subscribe", "job_id": "{job_id}"}}')
        self._journey.messages_in += 1

    def work(self) -> None:
        """Receive the wake-up, run the worker function, delete the message.

        The poller's two requests are charged like Headrace's own.
        """
        url = aws.client("sqs").get_queue_url(QueueName=queue_name(STAGE, LANE))["QueueUrl"]
        self._journey.meter.sqs["GetQueueUrl"] -= 1  # the poller does not make this request
        received = aws.client("sqs").receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
        records = [
            {"body": message["Body"], "receiptHandle": message["ReceiptHandle"], "messageId": message["MessageId"]} for message in received
        ]
        with self._journey.meter.during("work"):
            self._invoke(f"worker_{LANE}", {"Records": records})
        for message in received:
            aws.client("sqs").delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])

    def read(self, job_id: str) -> None:
        with self._journey.meter.during("read"):
            record = self._call("GET", f"/jobs/{job_id}")
            result = self._call("GET", f"/jobs/{job_id}/result")
        assert (record["status"], result["output"]) == ("completed", "".join(tokens(TOKENS))), "the result differs from the model's text"

    def close(self) -> None:
        with self._journey.meter.during("websocket"):
            self._socket("websocket_disconnect", "DISCONNECT")

    def stream_changes(self) -> None:
        """Deliver the changes to `on_job_change` one by one, and to `count_jobs` in one batch.

        `count_jobs` collects the records of some seconds.
        """
        with self._journey.meter.during("change stream"):
            for number, change in enumerate(list(self._journey.meter.job_changes)):
                self._invoke("on_job_change", {"Records": [_record(number, change)]})
            batch = [_record(number, change) for number, change in enumerate(self._journey.meter.job_changes)]
            self._invoke("count_jobs", {"Records": batch})

    def _call(self, method: str, path: str, body: Any = None, **headers: str) -> dict[str, Any]:
        reply = self._api.call(method, path, body, **headers)
        assert reply.status < 300, reply.text
        self._journey.invocations["api_handler"] += 1
        self._journey.calls += 1
        self._journey.response_bytes += len(reply.text.encode()) + sum(len(name) + len(value) + 4 for name, value in reply.headers.items())
        answer: dict[str, Any] = reply.json
        return answer

    def _socket(self, handler: str, kind: str, **event: Any) -> None:
        context = {"routeKey": "$default", "eventType": kind, "connectionId": CONNECTION, "domainName": "ws.example", "stage": "api"}
        self._invoke(handler, {**event, "requestContext": {**context, "apiId": "abc123", "requestId": "r1"}})

    def _invoke(self, function: str, event: dict[str, Any]) -> None:
        getattr(self._module, function)(event, CONTEXT)
        self._journey.invocations[function] += 1


def _row_name(phase: str, table: str, item: Raw) -> str:
    """Return the row of the printed table that a request to DynamoDB counts for."""
    sort = str(next(iter(item.get("sk", {"S": ""}).values())))
    partition = str(next(iter(item.get("pk", {"S": ""}).values())))
    if table == "accounts":
        return "keys and endpoints"
    if partition.startswith("rl#"):
        return "request counter"
    if partition.startswith("W#"):
        return "lease"
    if sort.startswith("c#"):
        return "log"
    if partition.startswith(("m#", "speed#")):
        return "mark of what is counted" if partition.startswith("m#") else "counters"
    if partition.startswith(("C#", "tk#")) or sort.startswith(("sub#", "ctl")):
        return "change stream" if phase == "change stream" else "subscription"
    if phase == "work" and table == "jobs":
        return "finish" if "fin" in item else "claim"
    if phase == "work" and sort.startswith("result#"):
        return "result"
    rows = {"submit": "submit", "work": "claim", "websocket": "subscription", "read": "reads", "change stream": "change stream"}
    return rows[phase]


def _scripted_provider() -> ScriptedProvider:
    every = (SECONDS - FIRST_TOKEN) / TOKENS
    end = ResponseEnded(Usage(input=PROMPT_POINTS // 4, output=TOKENS), "gpt-4o-mini")
    return ScriptedProvider(Script(deltas=tokens(TOKENS), every=every, first=FIRST_TOKEN, end=end))


def _record(number: int, change: Change) -> dict[str, Any]:
    old, new = change
    images = {"NewImage": new, **({"OldImage": old} if old else {})}
    metadata = {"Keys": {"id": (new or {})["id"]}, "SequenceNumber": str(number), "StreamViewType": "NEW_AND_OLD_IMAGES"}
    return {"eventID": str(number), "eventName": "MODIFY" if old else "INSERT", "dynamodb": {**metadata, **images}}


@contextmanager
def mocked_aws() -> Iterator[None]:
    """Run moto in this process, with fake credentials and new AWS clients."""
    environment = {name: value for name, value in os.environ.items() if name not in REMOVED_VARIABLES}
    with mock.patch.dict(os.environ, {**environment, **CREDENTIALS}, clear=True), mock_aws():
        aws.reset_clients()
        yield
    aws.reset_clients()


@contextmanager
def _deployed_stage() -> Iterator[tuple[_Container, JumpingLoop, Journey]]:
    """Create the tables and queues of a stage and one user, and meter its requests."""
    loop = InlineLoop()
    time: JumpingLoop = loop._loop
    container = _Container(LoopClock(time), loop)
    journey = Journey(Meter(_row_name))
    for table in TABLES:
        aws.client("dynamodb").create_table(**create_table_arguments(table, STAGE))
    for lane in LANES:
        aws.client("sqs").create_queue(QueueName=queue_name(STAGE, lane))
    now = container.clock.now()
    container.api_keys.put_key(
        Key(id="key_01K", hash=secret_hash("hr_user"), tenant="acme", user="alice", role=Role.USER, created_at=now, name="a laptop")
    )
    cast(DynamoApiKeys, container.api_keys).put_endpoints(
        "wss://abc123.execute-api.us-east-1.amazonaws.com/api", "https://abc123.example/api"
    )
    journey.meter.attach(STAGE)
    bootstrap.override(container)
    with _counted_log(journey):
        yield container, time, journey
    bootstrap.override(None)
    time.close()
    JumpingLoop.made.remove(time)


@contextmanager
def _counted_log(journey: Journey) -> Iterator[None]:
    """Count the bytes of Headrace's log lines instead of printing them."""
    powertools: Any = logger()
    formatter = powertools.registered_formatter

    class Count(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            journey.log_bytes += len(formatter.format(record)) + 1

    plain = logging.getLogger(powertools.name)
    handlers, plain.handlers = plain.handlers, [Count()]
    try:
        yield
    finally:
        plain.handlers = handlers
