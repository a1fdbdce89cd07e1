"""The queues, on SQS.

Each message carries its tenant as `MessageGroupId`, which makes a standard queue a fair one: there
is no order, and a tenant with a flood of messages does not make other tenants wait.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from threading import Lock
from typing import Any

from chalicelib.adapters.aws import client as aws
from chalicelib.domain.errors import Unavailable
from chalicelib.domain.queues.lanes import dead_letter_queue_name, queue_name
from chalicelib.domain.queues.wakeup import WakeUp
from chalicelib.domain.units import Ms
from chalicelib.ports import Clock, DeadLetter

MAX_DELAY = 900  # seconds
MAX_BATCH = 10
DEPTH_CACHE_MS = 3_000
VISIBILITY_SECONDS = 60  # of a dead letter that was received
WAIT_SECONDS = 1  # a receive that does not wait queries only some of SQS's servers, and misses messages
MAX_DEAD_LETTER_LENGTH = 100_000  # characters, at most 400 KB of SQS's 1 MiB
MAX_REASON_LENGTH = 500

# SQS, SendMessage: "can be up to 128 characters, alphanumeric and punctuation".
_GROUP = re.compile(r"[!-~]{1,128}")
# SQS, SendMessage: the characters that a message may not hold. SQS refuses the whole message.
# Compiled at its first use, which is rare: compiling takes 4 ms.
_FORBIDDEN = "[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"


class SqsQueues:
    """The queues `headrace-<stage>-<name>` and their dead-letter queues.

    The URL of each is cached from its first use on.
    """

    def __init__(self, stage: str, clock: Clock) -> None:
        self._stage = stage
        self._clock = clock
        self._urls: dict[str, str] = {}
        self._depths: dict[str, tuple[Ms, int]] = {}
        self._lock = Lock()

    def send(self, queue: str, wake_up: WakeUp, tenant: str, delay: int = 0) -> None:
        self.send_task(queue, wake_up.to_json(), tenant, delay)

    def send_task(self, queue: str, body: str, tenant: str, delay: int = 0) -> None:
        if not 0 <= delay <= MAX_DELAY:
            raise ValueError(f"SQS delays a message by 0 to {MAX_DELAY} seconds, not by {delay}")
        self._call(
            "send_message",
            queue_name(self._stage, queue),
            MessageBody=body,
            MessageGroupId=message_group(tenant),
            DelaySeconds=delay,
        )

    def send_many(self, queue: str, wake_ups: Sequence[WakeUp], tenant: str) -> None:
        self.send_released(queue, [(wake_up, tenant) for wake_up in wake_ups])

    def send_released(self, queue: str, wake_ups: Sequence[tuple[WakeUp, str]]) -> None:
        name = queue_name(self._stage, queue)
        for start in range(0, len(wake_ups), MAX_BATCH):
            chunk = wake_ups[start : start + MAX_BATCH]
            entries = [
                {"Id": str(at), "MessageBody": wake_up.to_json(), "MessageGroupId": message_group(tenant)}
                for at, (wake_up, tenant) in enumerate(chunk)
            ]
            failed = [entry["Code"] for entry in self._call("send_message_batch", name, Entries=entries).get("Failed", [])]
            if failed:
                raise Unavailable(f"SQS did not take {len(failed)} of {len(chunk)} messages ({failed[0]}).")

    def acknowledge(self, queue: str, receipts: Sequence[str]) -> None:
        self._delete(queue_name(self._stage, queue), receipts)

    def delete_dead(self, queue: str, receipts: Sequence[str]) -> None:
        self._delete(dead_letter_queue_name(self._stage, queue), receipts)

    def _delete(self, queue: str, receipts: Sequence[str]) -> None:
        if len(receipts) > MAX_BATCH:
            raise ValueError(f"SQS deletes at most {MAX_BATCH} messages at once")
        if not receipts:
            return
        entries = [{"Id": str(at), "ReceiptHandle": receipt} for at, receipt in enumerate(receipts)]
        response = self._call("delete_message_batch", queue, Entries=entries)
        failed = [entry["Code"] for entry in response.get("Failed", []) if not entry.get("SenderFault")]
        if failed:  # an invalid receipt is not among these: its message is delivered again, loses its claim and is dropped
            raise Unavailable(f"SQS did not delete {len(failed)} of {len(receipts)} messages ({failed[0]}). Nothing was lost; try again.")

    def send_to_dead_letter(self, queue: str, body: str, reason: str) -> None:
        self._call(
            "send_message",
            dead_letter_queue_name(self._stage, queue),
            MessageBody=strip_forbidden(body)[:MAX_DEAD_LETTER_LENGTH] or "(empty)",
            MessageAttributes={"reason": {"DataType": "String", "StringValue": strip_forbidden(reason)[:MAX_REASON_LENGTH] or "unknown"}},
        )

    def depth(self, queue: str) -> int:
        return self._depth(queue_name(self._stage, queue))

    def dead_letters(self, queue: str) -> int:
        return self._depth(dead_letter_queue_name(self._stage, queue))

    def _depth(self, queue: str) -> int:
        now = self._clock.now()
        with self._lock:
            cached = self._depths.get(queue)
        if cached and now - cached[0] < DEPTH_CACHE_MS:
            return cached[1]
        response = self._call("get_queue_attributes", queue, AttributeNames=["ApproximateNumberOfMessages"])
        depth = int(response["Attributes"]["ApproximateNumberOfMessages"])
        with self._lock:
            self._depths[queue] = (now, depth)
        return depth

    def receive_dead(self, queue: str) -> list[DeadLetter]:
        response = self._call(
            "receive_message",
            dead_letter_queue_name(self._stage, queue),
            MaxNumberOfMessages=MAX_BATCH,
            VisibilityTimeout=VISIBILITY_SECONDS,
            WaitTimeSeconds=WAIT_SECONDS,
            MessageAttributeNames=["reason"],
        )
        return [_dead_letter(message) for message in response.get("Messages", [])]

    def _call(self, operation: str, queue: str, **arguments: Any) -> dict[str, Any]:
        sqs = aws.client("sqs")
        with aws.translate_errors():
            url = self._urls.get(queue)
            if url is None:
                url = self._urls[queue] = sqs.get_queue_url(QueueName=queue)["QueueUrl"]
            response: dict[str, Any] = getattr(sqs, operation)(QueueUrl=url, **arguments)
            return response


def _dead_letter(message: dict[str, Any]) -> DeadLetter:
    reason = message.get("MessageAttributes", {}).get("reason", {}).get("StringValue")
    return DeadLetter(message["Body"], message["ReceiptHandle"], reason)


def message_group(tenant: str) -> str:
    """Return the message group of a tenant: its name, or a hash of it if SQS would refuse the name."""
    return tenant if _GROUP.fullmatch(tenant) else hashlib.sha256(tenant.encode("utf-8", "surrogatepass")).hexdigest()


def strip_forbidden(text: str) -> str:
    """Replace the characters that SQS refuses by U+FFFD."""
    return re.sub(_FORBIDDEN, "\ufffd", text)
