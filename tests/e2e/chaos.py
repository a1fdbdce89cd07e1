"""Faults for a running stack: killed and frozen workers, timeouts, stray messages.

Only child processes of this stack's own emulator are stopped, and each of them is resumed at the
end.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from random import Random
from typing import Any
from uuid import uuid4

import httpx2
import psutil

from chalicelib.domain.queues.lanes import JOB_QUEUES, LANES, dead_letter_queue_name, queue_name
from infra.local import stack_file
from tests.e2e.stack import Api, Stack

AT_WORK = 1.5  # seconds that an invocation must have run before it is hit, so that its streams have started
AT_TASK = 0.5  # the same of a task, which has no stream
MAX_HITS = 2  # of one job, which fails after three isolated crashes
FUNCTION_TIMEOUT = 60  # seconds, of one lane's worker while a soak runs
VISIBILITY = 40  # seconds; the messages of a dead worker are delivered again within the soak, and not after 16 minutes
TIMED_OUT_LANE = "urgent"


@dataclass(eq=False)
class Hit:
    """A worker that was killed or frozen in mid-stream.

    `victims` are its attempts: job id and attempt number.
    """

    kind: str  # killed, frozen, timed out
    at: float
    lane: str
    process: psutil.Process
    victims: dict[str, int]
    resumed_beside: set[str] = field(default_factory=set)  # the jobs that its successors were running when it resumed


class Workers:
    """The worker processes of a stack, and their jobs."""

    def __init__(self, stack: Stack, api: Api) -> None:
        content = stack_file.read() or {}
        self._emulator = next(process.pid for process in stack_file.processes(content) if process.name == "ministack")
        self._table = stack.aws("dynamodb")
        self._api = api
        self._hits: dict[str, int] = {}
        self._stopped: list[psutil.Process] = []
        self.hits: list[Hit] = []

    def hit(self, kind: str, random: Random, lane: str | None = None, at_work: float = AT_WORK) -> Hit | None:
        """Kill or freeze a worker that is in mid-stream. Return None if there is none."""
        candidates = list(self._busy(lane, at_work))
        random.shuffle(candidates)
        for name, process, lease in candidates:
            running = self._owned(lease)
            if not running or any(self._hits.get(job_id, 0) >= MAX_HITS for job_id in running):
                continue
            with suppress(psutil.NoSuchProcess):
                process.kill() if kind == "killed" else process.suspend()
                if kind != "killed":
                    self._stopped.append(process)
                for job_id in running:
                    self._hits[job_id] = self._hits.get(job_id, 0) + 1
                hit = Hit(kind, time.time(), name, process, running)
                hit.victims |= self._owned(lease)  # read again while it is frozen: it may have claimed more jobs
                self.hits.append(hit)
                return hit
        return None

    def succeeded(self, hit: Hit) -> set[str]:
        """Return the jobs of a frozen worker that another worker is running now."""
        records = {job_id: self._running(job_id) for job_id in hit.victims}
        return {job_id for job_id, record in records.items() if record and record["attempt"] > hit.victims[job_id]}

    def all_ended(self, hit: Hit) -> bool:
        """Whether all jobs of a frozen worker have ended without it."""
        return not any(self._running(job_id) or self._waiting(job_id) for job_id in hit.victims)

    def is_gone(self, hit: Hit) -> bool:
        """Whether the emulator has ended the process."""
        return not hit.process.is_running() or hit.process.status() == psutil.STATUS_ZOMBIE

    def resume(self, hit: Hit, beside: set[str]) -> None:
        """Resume a frozen worker. `beside` are its jobs that others run now."""
        hit.resumed_beside = beside
        with suppress(psutil.NoSuchProcess):
            hit.process.resume()

    def end_idle(self) -> None:
        """Kill the worker processes that have no job. The next invocations start new ones."""
        busy = {lease["env"]["S"] for lease in self._leases()}
        for name, process in self._processes().items():
            if name not in busy:
                with suppress(psutil.NoSuchProcess):
                    process.kill()

    def resume_all(self) -> None:
        for process in self._stopped:
            with suppress(psutil.NoSuchProcess):
                process.resume()

    def _busy(self, lane: str | None, at_work: float) -> Iterator[tuple[str, psutil.Process, dict[str, Any]]]:
        """Yield lane, process and lease of each invocation that has run for `at_work` seconds."""
        processes, now = self._processes(), time.time()
        for lease in self._leases():
            process = processes.get(lease["env"]["S"])
            is_running = now - int(lease["start"]["N"]) / 1000 > at_work and lease["st"]["S"] == "open"
            if process and is_running and process not in self._stopped and lane in (None, lease["lane"]["S"]):
                yield lease["lane"]["S"], process, lease

    def _owned(self, lease: dict[str, Any]) -> dict[str, int]:
        """Return the jobs that run under a lease now, with their attempts.

        The API does not show the owner of a job.

        A lease lists the jobs of its invocation's wake-ups: some twice, and some that another
        worker owns.
        """
        keys = [{"id": {"S": job_id}} for job_id in dict.fromkeys(json.loads(lease["jobs"]["S"]))]
        request = {"Keys": keys, "ConsistentRead": True}
        records = self._table.batch_get_item(RequestItems={"headrace-local-jobs": request})["Responses"]["headrace-local-jobs"]
        lease_id = lease["sk"]["S"]
        owned = [one for one in records if one["status"]["S"] == "processing" and one["owner"]["S"].startswith(f"{lease_id}#")]
        return {one["id"]["S"]: int(one["attempt"]["N"]) for one in owned}

    def _leases(self) -> Iterator[dict[str, Any]]:
        """Yield the rows of all leases. The API does not show which process has which job."""
        for shard in range(8):
            yield from self._table.query(
                TableName="headrace-local-coordination",
                KeyConditionExpression="pk = :shard",
                ExpressionAttributeValues={":shard": {"S": f"W#{shard}"}},
                ConsistentRead=True,
            )["Items"]

    def _processes(self) -> dict[str, psutil.Process]:
        """Return the worker processes by the log stream that the emulator gave them."""
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

    def _waiting(self, job_id: str) -> bool:
        return self._api.get(f"/jobs/{job_id}")["status"] in ("queued", "retrying", "waiting")


class StrayMessages:
    """Sends messages that the product does not send: duplicate and stale wake-ups, garbage."""

    def __init__(self, stack: Stack, random: Random) -> None:
        self._sqs, self._random = stack.aws("sqs"), random
        self._urls = {queue: self._url(queue_name("local", queue)) for queue in JOB_QUEUES}
        self._dead_letter_urls = {lane: self._url(dead_letter_queue_name("local", lane)) for lane in LANES}
        self._endpoint = stack.aws_endpoint
        self._others = set(self._messages())  # of earlier tests, such as a wake-up that is delayed for minutes
        self.duplicates = self.foreign = 0
        self.garbage: set[str] = set()

    def send(self, job_id: str, lane: str, attempt: int) -> None:
        """Send a stray message.

        Only delivered wake-ups are duplicated; a duplicate of a delayed one would start the job
        early.
        """
        kind = self._random.random()
        if kind < 0.12:
            self._send_garbage(lane)
        elif kind < 0.24:
            self.foreign += 1
            unknown = f"job_{self._random.randrange(10**26):026}"
            self._wake(lane, *self._random.choice([(unknown, 1), (job_id, 0), (job_id, 77)]))
        else:
            for _ in range(self._random.choice((1, 1, 2, 4))):
                self.duplicates += 1
                self._wake(lane, job_id, self._random.randint(1, max(1, attempt)))

    def left(self) -> dict[str, int]:
        """Return the number of messages by queue: visible, in flight and delayed. Those that were there before do not count."""
        return dict(Counter(queue for message_id, queue in self._messages().items() if message_id not in self._others))

    def _messages(self) -> dict[str, str]:
        """Return the queue of each message by its id. SQS has no such call, but the emulator has."""
        found = {}
        for queue, url in self._urls.items():
            answer = httpx2.get(f"{self._endpoint}/_ministack/sqs/messages", params={"QueueUrl": url}, trust_env=False)
            by_region = [region for regions in answer.json()["messages"].values() for region in regions.values()]
            found |= {message["MessageId"]: queue for by_url in by_region for messages in by_url.values() for message in messages}
        return found

    def take_dead_letters(self) -> list[str]:
        """Delete all dead letters, and return their bodies."""
        bodies = []
        for url in self._dead_letter_urls.values():
            while messages := self._sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", []):
                for message in messages:
                    bodies.append(message["Body"])
                    self._sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return bodies

    @contextmanager
    def short_visibility_timeout(self) -> Iterator[None]:
        """Shorten the visibility timeout, so that a dead worker's messages are redelivered soon."""
        before = {}
        for queue, url in self._urls.items():
            answer = self._sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["VisibilityTimeout"])
            before[queue] = answer["Attributes"]["VisibilityTimeout"]
            self._sqs.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": str(VISIBILITY)})
        try:
            yield
        finally:
            for queue, url in self._urls.items():
                self._sqs.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": before[queue]})

    def _send_garbage(self, lane: str) -> None:
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
    """Set a short timeout for one lane's worker function."""
    functions, name = stack.aws("lambda"), f"headrace-local-worker_{lane}"
    before = functions.get_function_configuration(FunctionName=name)["Timeout"]
    functions.update_function_configuration(FunctionName=name, Timeout=seconds)
    try:
        yield
    finally:
        functions.update_function_configuration(FunctionName=name, Timeout=before)


def logged_timeouts() -> int:
    """Return how often the emulator's log has a worker that ended at its function's timeout."""
    log = stack_file.log_file("ministack").read_text(errors="replace")
    return log.count(f"Lambda headrace-local-worker_{TIMED_OUT_LANE} timed out after {FUNCTION_TIMEOUT}s")


def reclaimed_at(stack: Stack) -> dict[tuple[str, int], float]:
    """Return the attempts that the sweeper reclaimed, with their times, from its log."""
    found, logs = {}, stack.aws("logs").get_paginator("filter_log_events")
    for page in logs.paginate(logGroupName="/aws/lambda/headrace-local-sweep"):
        for event in page["events"]:
            if '"worker_lost"' in event["message"]:
                line = json.loads(event["message"])
                found[line["job_id"], line["attempt"]] = datetime.strptime(line["timestamp"], "%Y-%m-%d %H:%M:%S,%f%z").timestamp()
    return found
