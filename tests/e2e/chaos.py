"""What goes wrong on purpose with a running stack: its worker processes are killed and frozen, its functions time out, its queues lie.

Only processes are touched that are children of this stack's own emulator, and each is let go again at the end.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from random import Random
from typing import Any
from uuid import uuid4

import psutil

from chalicelib.domain.queues.lanes import LANES, dead_letter_queue_name, queue_name
from infra.local import stack_file
from tests.e2e.cloud import Api, Stack

AT_WORK = 1.5  # seconds that an invocation must have been working before it is hit: its streams are under way by then
MOST_HITS = 2  # of one job: after three deaths alone it would fail, as it should
FUNCTION_TIMEOUT = 60  # seconds, of one lane's worker while a soak runs
VISIBILITY = 40  # seconds: what a dead worker had is given out again within the soak, and not after 16 minutes
TIMED_OUT_LANE = "urgent"


@dataclass(eq=False)
class Hit:
    """A worker that was hit in mid-stream. `victims` are the attempts that it was making: job and attempt number."""

    kind: str  # killed, frozen, timed out
    at: float
    lane: str
    process: psutil.Process
    victims: dict[str, int]
    woken_beside: set[str] = field(default_factory=set)  # jobs that its successors were running when it woke


class Workers:
    """The worker processes of a stack, and what each of them is doing."""

    def __init__(self, stack: Stack, api: Api) -> None:
        content = stack_file.read() or {}
        self._emulator = next(process.pid for process in stack_file.processes(content) if process.name == "ministack")
        self._table = stack.aws("dynamodb")
        self._api = api
        self._hits: dict[str, int] = {}
        self._stopped: list[psutil.Process] = []
        self.hits: list[Hit] = []

    def hit(self, kind: str, random: Random, lane: str | None = None) -> Hit | None:
        """Kill a worker that is in mid-stream, or stop it; None if there is none."""
        candidates = list(self._busy(lane))
        random.shuffle(candidates)
        for name, process, lease in candidates:
            running = self._owned(lease)
            if not running or any(self._hits.get(job_id, 0) >= MOST_HITS for job_id in running):
                continue
            with suppress(psutil.NoSuchProcess):
                process.kill() if kind == "killed" else process.suspend()
                if kind != "killed":
                    self._stopped.append(process)
                for job_id in running:
                    self._hits[job_id] = self._hits.get(job_id, 0) + 1
                hit = Hit(kind, time.time(), name, process, running)
                hit.victims |= self._owned(lease)  # while it stands still: it may have claimed more since it was looked at
                self.hits.append(hit)
                return hit
        return None

    def succeeded(self, hit: Hit) -> set[str]:
        """The jobs of a stopped worker that another one is running now."""
        records = {job_id: self._running(job_id) for job_id in hit.victims}
        return {job_id for job_id, record in records.items() if record and record["attempt"] > hit.victims[job_id]}

    def over(self, hit: Hit) -> bool:
        """Whether all jobs of a stopped worker have ended without it."""
        return not any(self._running(job_id) or self._waits(job_id) for job_id in hit.victims)

    def is_gone(self, hit: Hit) -> bool:
        """Whether its process has been ended, and not by us."""
        return not hit.process.is_running() or hit.process.status() == psutil.STATUS_ZOMBIE

    def wake(self, hit: Hit, beside: set[str]) -> None:
        """Let a stopped worker go on as if nothing were."""
        hit.woken_beside = beside
        with suppress(psutil.NoSuchProcess):
            hit.process.resume()

    def end_idle(self) -> None:
        """End the processes that have no job: the next ones start anew."""
        busy = {lease["env"]["S"] for lease in self._leases()}
        for name, process in self._processes().items():
            if name not in busy:
                with suppress(psutil.NoSuchProcess):
                    process.kill()

    def let_all_go(self) -> None:
        for process in self._stopped:
            with suppress(psutil.NoSuchProcess):
                process.resume()

    def _busy(self, lane: str | None) -> Iterator[tuple[str, psutil.Process, dict[str, Any]]]:
        """Lane, process and lease of each invocation that has been at work for a moment."""
        processes, now = self._processes(), time.time()
        for lease in self._leases():
            process = processes.get(lease["env"]["S"])
            at_work = now - int(lease["start"]["N"]) / 1000 > AT_WORK and lease["st"]["S"] == "alive"
            if process and at_work and process not in self._stopped and lane in (None, lease["lane"]["S"]):
                yield lease["lane"]["S"], process, lease

    def _owned(self, lease: dict[str, Any]) -> dict[str, int]:
        """The jobs that run under a lease at this moment, and their attempts. No public surface tells who owns a job.

        A lease names those that its invocation was woken for: some twice, and some that another one has.
        """
        keys = [{"id": {"S": job_id}} for job_id in dict.fromkeys(json.loads(lease["jobs"]["S"]))]
        wanted = {"Keys": keys, "ConsistentRead": True}
        heads = self._table.batch_get_item(RequestItems={"headrace-local-jobs": wanted})["Responses"]["headrace-local-jobs"]
        id_of = lease["sk"]["S"]
        mine = [head for head in heads if head["status"]["S"] == "processing" and head["owner"]["S"].startswith(f"{id_of}#")]
        return {head["id"]["S"]: int(head["attempt"]["N"]) for head in mine}

    def _leases(self) -> Iterator[dict[str, Any]]:
        """The rows themselves: no public surface tells which process has which job."""
        for shard in range(8):
            yield from self._table.query(
                TableName="headrace-local-coordination",
                KeyConditionExpression="pk = :shard",
                ExpressionAttributeValues={":shard": {"S": f"W#{shard}"}},
                ConsistentRead=True,
            )["Items"]

    def _processes(self) -> dict[str, psutil.Process]:
        """By the log stream that the emulator gave them."""
        found = {}
        for process in psutil.Process(self._emulator).children():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                environment = process.environ()
                if environment.get("AWS_LAMBDA_FUNCTION_NAME", "").startswith("headrace-local-worker_"):
                    found[environment["AWS_LAMBDA_LOG_STREAM_NAME"]] = process
        return found

    def _running(self, job_id: str) -> dict[str, Any] | None:
        record: dict[str, Any] = self._api.get(f"/jobs/{job_id}")
        return record if record["status"] == "processing" else None

    def _waits(self, job_id: str) -> bool:
        return self._api.get(f"/jobs/{job_id}")["status"] in ("queued", "retrying", "waiting")


class Lies:
    """Messages that nobody should have sent: copies of wake-ups, late ones, foreign ones, garbage."""

    def __init__(self, stack: Stack, random: Random) -> None:
        self._sqs, self._random = stack.aws("sqs"), random
        self._urls = {lane: self._url(queue_name("local", lane)) for lane in LANES}
        self._dead = {lane: self._url(dead_letter_queue_name("local", lane)) for lane in LANES}
        self.copies = self.strangers = 0
        self.garbage: set[str] = set()

    def tell(self, job_id: str, lane: str, attempt: int) -> None:
        """One lie about a job. Of its wake-ups only those are copied that were delivered: one that is delayed would come too early."""
        kind = self._random.random()
        if kind < 0.12:
            self._garbage(lane)
        elif kind < 0.24:
            self.strangers += 1
            stranger = f"job_{self._random.randrange(10**26):026}"
            self._wake(lane, *self._random.choice([(stranger, 1), (job_id, 0), (job_id, 77)]))
        else:
            for _ in range(self._random.choice((1, 1, 2, 4))):
                self.copies += 1
                self._wake(lane, job_id, self._random.randint(1, max(1, attempt)))

    def left(self) -> dict[str, int]:
        """Messages in the lanes, under way or waiting."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible", "ApproximateNumberOfMessagesDelayed"]
        answers = {lane: self._sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names) for lane, url in self._urls.items()}
        counts = {lane: sum(int(answer["Attributes"][name]) for name in names) for lane, answer in answers.items()}
        return {lane: count for lane, count in counts.items() if count}

    def set_aside(self) -> list[str]:
        """The bodies of all dead letters, which are taken away."""
        bodies = []
        for url in self._dead.values():
            while letters := self._sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", []):
                for letter in letters:
                    bodies.append(letter["Body"])
                    self._sqs.delete_message(QueueUrl=url, ReceiptHandle=letter["ReceiptHandle"])
        return bodies

    @contextmanager
    def given_out_again_soon(self) -> Iterator[None]:
        """What a dead worker had received is delivered again within the soak."""
        before = {}
        for lane, url in self._urls.items():
            answer = self._sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["VisibilityTimeout"])
            before[lane] = answer["Attributes"]["VisibilityTimeout"]
            self._sqs.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": str(VISIBILITY)})
        try:
            yield
        finally:
            for lane, url in self._urls.items():
                self._sqs.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": before[lane]})

    def _garbage(self, lane: str) -> None:
        mark = uuid4().hex
        body = self._random.choice([f"{mark} is no JSON", json.dumps([mark]), json.dumps({"job_id": mark, "generation": "one"})])
        self.garbage.add(body)
        self._send(lane, body)

    def _wake(self, lane: str, job_id: str, generation: int) -> None:
        self._send(lane, json.dumps({"job_id": job_id, "generation": generation}))

    def _send(self, lane: str, body: str) -> None:
        self._sqs.send_message(QueueUrl=self._urls[lane], MessageBody=body, MessageGroupId="demo")

    def _url(self, name: str) -> str:
        return str(self._sqs.get_queue_url(QueueName=name)["QueueUrl"])


@contextmanager
def function_times_out(stack: Stack, lane: str = TIMED_OUT_LANE, seconds: int = FUNCTION_TIMEOUT) -> Iterator[None]:
    """One lane's worker function has a timeout that a test can wait for."""
    functions, name = stack.aws("lambda"), f"headrace-local-worker_{lane}"
    before = functions.get_function_configuration(FunctionName=name)["Timeout"]
    functions.update_function_configuration(FunctionName=name, Timeout=seconds)
    try:
        yield
    finally:
        functions.update_function_configuration(FunctionName=name, Timeout=before)


def timeouts_told() -> int:
    """How often the emulator has ended a worker at its function's timeout, by its own log."""
    log = stack_file.log_file("ministack").read_text(errors="replace")
    return log.count(f"Lambda headrace-local-worker_{TIMED_OUT_LANE} timed out after {FUNCTION_TIMEOUT}s")


def taken_back(stack: Stack) -> dict[tuple[str, int], float]:
    """When the sweep took which attempt from a worker, by its own log."""
    found, logs = {}, stack.aws("logs").get_paginator("filter_log_events")
    for page in logs.paginate(logGroupName="/aws/lambda/headrace-local-sweep"):
        for event in page["events"]:
            if '"worker_lost"' in event["message"]:
                line = json.loads(event["message"])
                found[line["job_id"], line["attempt"]] = datetime.strptime(line["timestamp"], "%Y-%m-%d %H:%M:%S,%f%z").timestamp()
    return found
