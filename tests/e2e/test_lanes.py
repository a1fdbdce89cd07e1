"""Invalid, duplicate and stale messages in the lanes' queues have no effect.

The messages are sent with SQS itself, because the API sends no such messages.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest

from chalicelib.domain.queues.lanes import dead_letter_queue_name, queue_name
from tests.e2e.stack import Api, Model, Stack, until, words


@dataclass(frozen=True)
class Lane:
    """A lane's queue and its dead-letter queue, on the emulator."""

    sqs: Any
    queue: str
    dead: str

    def send(self, body: str) -> None:
        self.sqs.send_message(QueueUrl=self.queue, MessageBody=body, MessageGroupId="demo")

    def wake(self, job_id: str, generation: int) -> None:
        self.send(json.dumps({"job_id": job_id, "generation": generation}))

    def send_together(self, *bodies: str) -> None:
        """Send messages in one request, so that one worker receives them."""
        entries = [{"Id": str(number), "MessageBody": body, "MessageGroupId": "demo"} for number, body in enumerate(bodies)]
        self.sqs.send_message_batch(QueueUrl=self.queue, Entries=entries)

    def is_empty(self) -> bool:
        """Whether no message is visible or in flight."""
        return self.counts() == (0, 0)

    def counts(self) -> tuple[int, int]:
        """Return the number of visible messages and of messages in flight."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        answer = self.sqs.get_queue_attributes(QueueUrl=self.queue, AttributeNames=names)["Attributes"]
        return int(answer[names[0]]), int(answer[names[1]])

    def dead_letter(self, body: str) -> dict[str, Any] | None:
        """Return the dead letter with this body, and delete it. Return None if there is none."""
        answer = self.sqs.receive_message(QueueUrl=self.dead, MaxNumberOfMessages=10, MessageAttributeNames=["All"], VisibilityTimeout=1)
        for message in answer.get("Messages", []):
            if message["Body"] == body:
                self.sqs.delete_message(QueueUrl=self.dead, ReceiptHandle=message["ReceiptHandle"])
                return dict(message)
        return None


@pytest.fixture
def urgent(stack: Stack) -> Lane:
    """A lane that no other test uses."""
    sqs = stack.aws("sqs")
    urls = [sqs.get_queue_url(QueueName=name("local", "urgent"))["QueueUrl"] for name in (queue_name, dead_letter_queue_name)]
    return Lane(sqs, *urls)


def test_invalid_messages_are_dead_lettered_and_their_neighbours_run(api: Api, model: Model, urgent: Lane) -> None:
    """Each arrives in the dead-letter queue once, with a reason."""
    model.reply("Undisturbed.")
    mark = uuid4().hex
    garbage = [f"{mark} is no JSON", json.dumps([mark]), json.dumps({"job_id": mark, "generation": "one"})]

    jobs = []
    for body in garbage:
        urgent.send(body)
        jobs.append(api.submit(config=model.config, priority="urgent"))
    results = [api.wait_for_end(job_id) for job_id in jobs]
    dead_letters = [until(lambda body=body: urgent.dead_letter(body), f"the dead letter {body}") for body in garbage]

    assert [result["output"] for result in results] == ["Undisturbed."] * len(garbage)
    reasons = [message["MessageAttributes"]["reason"]["StringValue"] for message in dead_letters]
    assert "JSON" in reasons[0]
    assert all("wake-up" in reason for reason in reasons[1:])
    until(urgent.is_empty, "an empty lane")
    assert [urgent.dead_letter(body) for body in garbage] == [None] * len(garbage)


def test_doubled_late_and_unknown_wake_ups_are_dropped(api: Api, model: Model, urgent: Lane) -> None:
    """They arrive while the job runs and after its end."""
    model.reply(words(100))
    job_id = api.submit(config=model.config, priority="urgent")
    api.wait_for_text(job_id)
    for generation in (1, 1, 0, 7):
        urgent.wake(job_id, generation)
    urgent.wake(f"job_{uuid4().int % 10**26:026}", 1)
    ended = api.wait_for_end(job_id)
    urgent.wake(job_id, 1)
    until(urgent.is_empty, "an empty lane")

    assert api.get(f"/jobs/{job_id}/result") == ended
    assert (ended["status"], ended["attempt"], ended["output"]) == ("completed", 1, words(100))
    assert len(model.requests) == 1


def test_wake_up_of_an_earlier_run_is_dropped(api: Api, model: Model, urgent: Lane) -> None:
    """A retry starts a new generation."""
    model.fail(400)
    model.reply("Second run.")
    job_id = api.submit(config=model.config, priority="urgent")
    assert api.wait_for_end(job_id)["status"] == "failed"

    urgent.wake(job_id, 1)
    until(urgent.is_empty, "an empty lane")
    before = len(model.requests)
    api.call("POST", f"/jobs/{job_id}/retry")
    result = api.wait_for_end(job_id)
    urgent.wake(job_id, 1)
    until(urgent.is_empty, "an empty lane")

    assert before == 1
    assert (result["status"], result["attempt"], result["output"]) == ("completed", 2, "Second run.")
    assert len(model.requests) == 2


def test_a_message_is_acknowledged_while_its_neighbour_runs(api: Api, model: Model, urgent: Lane) -> None:
    """A finished message must not come again when the worker of its batch dies."""
    model.reply(words(900))
    job_id = api.submit(config=model.config, priority="urgent", delay=3600)
    garbage = f"{uuid4().hex} is no JSON"

    urgent.send_together(garbage, json.dumps({"job_id": job_id, "generation": 1}))
    api.wait_for_text(job_id)
    until(lambda: urgent.counts() == (0, 1), "only the job's message")
    running = api.get(f"/jobs/{job_id}/status")["status"]
    api.call("DELETE", f"/jobs/{job_id}")

    assert running == "processing"
    until(lambda: urgent.dead_letter(garbage), "the dead letter")
    until(urgent.is_empty, "an empty lane")


def test_ten_concurrent_jobs_complete_once_each(api: Api, model: Model) -> None:
    model.reply(words(50))

    with ThreadPoolExecutor(10) as threads:
        jobs = list(threads.map(lambda _: api.submit(config={**model.config, "priority": "high"}), range(10)))
        results = list(threads.map(api.wait_for_end, jobs))

    assert len(set(jobs)) == 10
    assert [(result["status"], result["attempt"], result["output"]) for result in results] == [("completed", 1, words(50))] * 10
    assert len(model.requests) == 10
