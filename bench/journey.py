"""One job's whole life, through `app.py` and the real container: moto answers for AWS, a script for OpenAI, and time jumps.

A client with a key opens a WebSocket, submits an 8 KB prompt with an Idempotency-Key, subscribes before a worker starts, follows 1,000
tokens in 20 s, then reads the record and the result, and closes the socket. The change stream's records are delivered one by one.
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
FIRST_TOKEN = 0.5  # seconds; part of the 20
CONNECTION = "conn-0123456789="
CONTEXT = SimpleNamespace(
    log_stream_name="2026/11/22/[$LATEST]0123456789abcdef0123456789abcdef", get_remaining_time_in_millis=lambda: 900_000
)
AWAY = {"AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_SESSION_TOKEN"}
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}


@dataclass
class Journey:
    """What one job asked of AWS. `invocations` by function; `answered` are bytes of REST answers; `logged` bytes of our own lines."""

    meter: Meter
    invocations: Counter[str] = field(default_factory=Counter)
    frames: list[int] = field(default_factory=list)  # bytes of each
    messages_in: int = 0
    calls: int = 0
    answered: int = 0
    logged: int = 0
    worker_seconds: float = 0.0
    connected_seconds: float = 0.0
    ended_at: int = 0


class _Container(bootstrap.Container):
    """The real container; the provider is a script, frames go to memory, time is the loop's."""

    offload: Any = staticmethod(run_inline)
    offload_sends: Any = staticmethod(run_inline)

    def __init__(self, clock: LoopClock, loop: InlineLoop) -> None:
        super().__init__(Settings(stage=STAGE))
        made: dict[str, Any] = {"clock": clock, "provider": _model(), "sockets": MemorySockets(), "worker_loop": loop}
        vars(self).update(made)  # before the cached properties are asked for


class _Api(Api):
    def __init__(self) -> None:
        self.module = importlib.import_module("app")
        self.app = self.module.app


def travel() -> Journey:
    """Live through it once. Nothing depends on the machine's clock or speed."""
    with _aws(), _stage() as (container, loop, journey):
        client = _Client(_Api(), container, journey)
        client.open()
        job_id = client.submit()
        client.subscribe(job_id)
        began = loop.moment
        client.work()
        journey.worker_seconds = loop.moment - began
        client.read(job_id)
        client.close()
        client.stream_changes()
        journey.connected_seconds = loop.moment
        journey.frames = [len(encode(frame)) for frame in container.sockets.frames[CONNECTION]]  # type: ignore[attr-defined]
        journey.ended_at = container.clock.now()
        return journey


class _Client:
    """Everything that happens to a stage while one job lives, in order."""

    def __init__(self, api: _Api, container: _Container, journey: Journey) -> None:
        self._api, self._adapters, self._journey = api, container, journey
        self._module: Any = api.module

    def open(self) -> None:
        with self._journey.meter.during("watch"):
            self._socket("websocket_connect", "CONNECT", headers={"Authorization": "Bearer hr_user"})

    def submit(self) -> str:
        with self._journey.meter.during("submit"):
            body = {"prompt": prose(PROMPT_POINTS), "priority": LANE, "metadata": {"order": "4711"}, "tags": ["nightly"]}
            reply = self._call("POST", "/jobs", body, idempotency_key="0b0e7a52-5d0f-4b2c-9a51-1f8b1f5f3c55")
        return str(reply["job_id"])

    def subscribe(self, job_id: str) -> None:
        with self._journey.meter.during("watch"):
            self._socket("websocket_message", "MESSAGE", body=f'{{"action": "subscribe", "job_id": "{job_id}"}}')
        self._journey.messages_in += 1

    def work(self) -> None:
        """SQS's poller asks and, after the function, deletes: two requests that are billed like ours."""
        url = aws.client("sqs").get_queue_url(QueueName=queue_name(STAGE, LANE))["QueueUrl"]
        self._journey.meter.sqs["GetQueueUrl"] -= 1  # the poller knows it
        received = aws.client("sqs").receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
        records = [{"body": one["Body"], "receiptHandle": one["ReceiptHandle"], "messageId": one["MessageId"]} for one in received]
        with self._journey.meter.during("work"):
            self._invoke(f"worker_{LANE}", {"Records": records})
        for one in received:
            aws.client("sqs").delete_message(QueueUrl=url, ReceiptHandle=one["ReceiptHandle"])

    def read(self, job_id: str) -> None:
        with self._journey.meter.during("read"):
            record = self._call("GET", f"/jobs/{job_id}")
            result = self._call("GET", f"/jobs/{job_id}/result")
        assert (record["status"], result["output"]) == ("completed", "".join(tokens(TOKENS))), "not what the model said"

    def close(self) -> None:
        with self._journey.meter.during("watch"):
            self._socket("websocket_disconnect", "DISCONNECT")

    def stream_changes(self) -> None:
        with self._journey.meter.during("project"):
            for number, change in enumerate(list(self._journey.meter.heads)):
                self._invoke("on_job_change", {"Records": [_record(number, change)]})
            together = [_record(number, change) for number, change in enumerate(self._journey.meter.heads)]
            self._invoke("count_jobs", {"Records": together})  # it waits for some seconds' worth of records

    def _call(self, method: str, path: str, body: Any = None, **headers: str) -> dict[str, Any]:
        reply = self._api.call(method, path, body, **headers)
        assert reply.status < 300, reply.text
        self._journey.invocations["api_handler"] += 1
        self._journey.calls += 1
        self._journey.answered += len(reply.text.encode()) + sum(len(name) + len(value) + 4 for name, value in reply.headers.items())
        answer: dict[str, Any] = reply.json
        return answer

    def _socket(self, handler: str, kind: str, **event: Any) -> None:
        context = {"routeKey": "$default", "eventType": kind, "connectionId": CONNECTION, "domainName": "ws.example", "stage": "api"}
        self._invoke(handler, {**event, "requestContext": {**context, "apiId": "abc123", "requestId": "r1"}})

    def _invoke(self, function: str, event: dict[str, Any]) -> None:
        getattr(self._module, function)(event, CONTEXT)
        self._journey.invocations[function] += 1


def _kind(phase: str, table: str, item: Raw) -> str:
    """The row of the table of units that a request counts for."""
    sort = str(next(iter(item.get("sk", {"S": ""}).values())))
    owner = str(next(iter(item.get("pk", {"S": ""}).values())))
    if table == "accounts":
        return "keys and addresses"
    if owner.startswith("rl#"):
        return "rate meter"
    if owner.startswith("W#"):
        return "lease"
    if sort.startswith("c#"):
        return "log"
    if owner.startswith(("m#", "speed#")):
        return "mark of what is counted" if owner.startswith("m#") else "counters"
    if owner.startswith(("C#", "tk#")) or sort.startswith(("sub#", "ctl")):
        return "projection" if phase == "project" else "watcher"
    if phase == "work" and table == "jobs":
        return "finish" if "fin" in item else "claim"
    if phase == "work" and sort.startswith("result#"):
        return "result"
    return {"submit": "submit", "work": "claim", "watch": "watcher", "read": "reads", "project": "projection"}[phase]


def _model() -> ScriptedProvider:
    every = (SECONDS - FIRST_TOKEN) / TOKENS
    end = ResponseEnded(Usage(input=PROMPT_POINTS // 4, output=TOKENS), "gpt-4o-mini")
    return ScriptedProvider(Script(deltas=tokens(TOKENS), every=every, first=FIRST_TOKEN, end=end))


def _record(number: int, change: Change) -> dict[str, Any]:
    old, new = change
    images = {"NewImage": new, **({"OldImage": old} if old else {})}
    about = {"Keys": {"id": (new or {})["id"]}, "SequenceNumber": str(number), "StreamViewType": "NEW_AND_OLD_IMAGES"}
    return {"eventID": str(number), "eventName": "MODIFY" if old else "INSERT", "dynamodb": {**about, **images}}


@contextmanager
def _aws() -> Iterator[None]:
    """moto in this process, with credentials of nobody, and the clients built anew before and after."""
    environment = {name: value for name, value in os.environ.items() if name not in AWAY}
    with mock.patch.dict(os.environ, {**environment, **CREDENTIALS}, clear=True), mock_aws():
        aws.reset_clients()
        yield
    aws.reset_clients()


@contextmanager
def _stage() -> Iterator[tuple[_Container, JumpingLoop, Journey]]:
    """A deployed stage with one user, and a meter on its wires."""
    loop = InlineLoop()
    time: JumpingLoop = loop._loop
    container = _Container(LoopClock(time), loop)
    journey = Journey(Meter(_kind))
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
    with _lines(journey):
        yield container, time, journey
    bootstrap.override(None)
    time.close()
    JumpingLoop.made.remove(time)


@contextmanager
def _lines(journey: Journey) -> Iterator[None]:
    """Count the bytes of our own lines of log, and print none."""
    ours: Any = logger()
    formatter = ours.registered_formatter

    class Count(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            journey.logged += len(formatter.format(record)) + 1

    plain = logging.getLogger(ours.name)
    handlers, plain.handlers = plain.handlers, [Count()]
    try:
        yield
    finally:
        plain.handlers = handlers
