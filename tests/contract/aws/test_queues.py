"""The queues, on SQS (moto) and on the in-memory twin; then what only SQS has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber
from moto import mock_aws
from moto.sqs.models import sqs_backends

from chalicelib.adapters.aws import client as aws
from chalicelib.adapters.aws.sqs import SqsQueues, message_group, strip_forbidden
from chalicelib.adapters.memory.clock import ManualClock
from chalicelib.adapters.memory.queues import MemoryQueues
from chalicelib.domain.errors import Throttled, Unavailable
from chalicelib.domain.queues.lanes import JOB_QUEUES, STREAM, TASKS, dead_letter_queue_name, queue_name
from chalicelib.domain.queues.wakeup import WakeUp
from chalicelib.ports import QueueMessage, Queues

STAGE = "test"
WAKE = WakeUp(f"job_{1:026}", 3)


class Side(Protocol):
    """The receiving side of the queues: what a worker receives, and what is in the dead-letter queues."""

    queues: Queues

    def receive(self, lane: str) -> list[QueueMessage]: ...

    def dead_letter_contents(self, lane: str) -> list[tuple[str, str]]: ...

    def move_to_dead_letters(self, lane: str, body: str) -> None: ...

    def advance_a_minute(self) -> None: ...


@dataclass
class InMemory:
    clock: ManualClock

    def __post_init__(self) -> None:
        self.queues = MemoryQueues(self.clock)

    def receive(self, lane: str) -> list[QueueMessage]:
        return self.queues.receive(lane)

    def dead_letter_contents(self, lane: str) -> list[tuple[str, str]]:
        return self.queues.dead_lettered[lane]

    def move_to_dead_letters(self, lane: str, body: str) -> None:
        self.queues.give_up(lane, body)

    def advance_a_minute(self) -> None:
        self.clock.advance(60)


@dataclass
class OnSqs:
    clock: ManualClock
    urls: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for lane in (*JOB_QUEUES, STREAM, TASKS):
            for name in (queue_name(STAGE, lane), dead_letter_queue_name(STAGE, lane)):
                self.urls[name] = aws.client("sqs").create_queue(QueueName=name)["QueueUrl"]
        self.queues = SqsQueues(STAGE, self.clock)

    def receive(self, lane: str) -> list[QueueMessage]:
        return [QueueMessage(one["Body"], one["ReceiptHandle"], one["MessageId"]) for one in self.raw(queue_name(STAGE, lane))]

    def dead_letter_contents(self, lane: str) -> list[tuple[str, str]]:
        return [(one["Body"], one["MessageAttributes"]["reason"]["StringValue"]) for one in self.raw(dead_letter_queue_name(STAGE, lane))]

    def move_to_dead_letters(self, lane: str, body: str) -> None:
        aws.client("sqs").send_message(QueueUrl=self.urls[dead_letter_queue_name(STAGE, lane)], MessageBody=body)

    def advance_a_minute(self) -> None:
        """Make received messages visible again at once, because moto uses the machine's clock."""
        queue = sqs_backends["123456789012"]["eu-central-1"].queues
        for name in self.urls:
            for message in queue[name]._messages:
                message.change_visibility(0)

    def raw(self, name: str) -> list[dict[str, Any]]:
        wanted = {"MaxNumberOfMessages": 10, "AttributeNames": ["All"], "MessageAttributeNames": ["All"]}
        messages: list[dict[str, Any]] = aws.client("sqs").receive_message(QueueUrl=self.urls[name], **wanted).get("Messages", [])
        return messages


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def on_sqs(clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[OnSqs]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        aws.reset_clients()
        yield OnSqs(clock)
    aws.reset_clients()


@pytest.fixture(params=["memory", "sqs"])
def side(request: pytest.FixtureRequest, clock: ManualClock) -> Side:
    return InMemory(clock) if request.param == "memory" else request.getfixturevalue("on_sqs")


# ---- on both


def test_dead_letters_are_counted_by_lane(side: Side) -> None:
    """Those of the stream are change records that could not be read."""
    side.queues.send_to_dead_letter("urgent", "x", "not JSON")
    side.queues.send_to_dead_letter(STREAM, "job_1", "not read")

    assert [side.queues.dead_letters(lane) for lane in ("urgent", "low", STREAM)] == [1, 0, 1]
    assert side.queues.depth("urgent") == 0


def test_wake_up_arrives_unchanged_and_only_in_its_lane(side: Side) -> None:
    side.queues.send("high", WAKE, "acme")

    assert [WakeUp.from_json(one.body) for one in side.receive("high")] == [WAKE]
    assert side.receive("low") == []


def test_send_many_delivers_every_wake_up(side: Side) -> None:
    sent = [WakeUp(f"job_{number:026}", 1) for number in range(23)]

    side.queues.send_many("low", sent, "acme")

    arrived = [WakeUp.from_json(one.body) for _ in range(3) for one in side.receive("low")]
    assert sorted(arrived, key=lambda wake_up: wake_up.job_id) == sent
    side.queues.send_many("low", [], "acme")


def test_task_message_arrives_unchanged(side: Side) -> None:
    side.queues.send_task(TASKS, '{"task": "advance_batch"}', "acme")

    assert [one.body for one in side.receive(TASKS)] == ['{"task": "advance_batch"}']
    with pytest.raises(ValueError, match="seconds"):
        side.queues.send_task(TASKS, "x", "acme", 901)


def test_acknowledged_messages_are_not_counted(side: Side, clock: ManualClock) -> None:
    for _ in range(3):
        side.queues.send("normal", WAKE, "acme")
    receipts = [one.receipt for one in side.receive("normal")]

    side.queues.acknowledge("normal", receipts)
    clock.advance(60)

    assert side.queues.depth("normal") == 0


def test_acknowledging_twice_nothing_or_an_unknown_receipt_is_no_error(side: Side) -> None:
    side.queues.send("normal", WAKE, "acme")
    receipts = [one.receipt for one in side.receive("normal")]

    for given in (receipts, receipts, [], ["no such receipt"]):
        side.queues.acknowledge("normal", given)


def test_more_than_ten_receipts_and_invalid_delays_are_refused(side: Side) -> None:
    with pytest.raises(ValueError, match="at most"):
        side.queues.acknowledge("normal", ["x"] * 11)
    for delay in (-1, 901):
        with pytest.raises(ValueError, match="0 to 900"):
            side.queues.send("normal", WAKE, "acme", delay)


def test_delayed_wake_up_is_not_received_yet(side: Side) -> None:
    side.queues.send("normal", WAKE, "acme", delay=900)

    assert side.receive("normal") == []


def test_dead_letter_keeps_its_body_and_reason(side: Side) -> None:
    side.queues.send_to_dead_letter("urgent", "not JSON", "The message is not JSON.")

    assert side.dead_letter_contents("urgent") == [("not JSON", "The message is not JSON.")]
    assert side.receive("urgent") == []


def test_depth_counts_the_waiting_messages(side: Side) -> None:
    for _ in range(4):
        side.queues.send("low", WAKE, "acme")

    assert side.queues.depth("low") == 4
    assert side.queues.depth("high") == 0


# ---- on SQS


def test_message_group_is_the_tenant(on_sqs: OnSqs) -> None:
    on_sqs.queues.send("normal", WAKE, "acme")

    [message] = on_sqs.raw(queue_name(STAGE, "normal"))

    assert message["Attributes"]["MessageGroupId"] == "acme"


@pytest.mark.parametrize("tenant", ["müller", "", "a b", "x" * 200, "line\nbreak"])
def test_tenant_name_invalid_in_sqs_gets_a_group_of_its_own(tenant: str) -> None:
    assert len(message_group(tenant)) == 64
    assert message_group(tenant).isalnum()
    assert message_group(tenant) != message_group(tenant + "2")


def test_depth_is_cached_for_three_seconds(on_sqs: OnSqs, clock: ManualClock) -> None:
    on_sqs.queues.send("normal", WAKE, "acme")
    assert on_sqs.queues.depth("normal") == 1

    on_sqs.queues.send("normal", WAKE, "acme")

    clock.advance(2.9)
    assert on_sqs.queues.depth("normal") == 1
    clock.advance(0.2)
    assert on_sqs.queues.depth("normal") == 2


@pytest.mark.parametrize(
    ("body", "kept"), [("a\x00b\ufffe", "a\ufffdb\ufffd"), ("", "(empty)"), ("\ud800", "\ufffd"), ("\t\r\n 👋", "\t\r\n 👋")]
)
def test_dead_letter_replaces_characters_that_sqs_refuses(on_sqs: OnSqs, body: str, kept: str) -> None:
    on_sqs.queues.send_to_dead_letter("low", body, "bad\x01")

    assert on_sqs.dead_letter_contents("low") == [(kept, "bad\ufffd")]


def test_dead_letter_body_and_reason_are_truncated(on_sqs: OnSqs) -> None:
    on_sqs.queues.send_to_dead_letter("low", "👋" * 400_000, "r" * 3_000)

    [(body, reason)] = on_sqs.dead_letter_contents("low")
    assert (len(body), len(reason)) == (100_000, 500)
    assert strip_forbidden(body) == body


def test_failed_deletion_of_a_message_raises_unavailable(on_sqs: OnSqs) -> None:
    with Stubber(aws.client("sqs")) as sqs:
        failed = {"Id": "0", "SenderFault": False, "Code": "InternalError"}
        sqs.add_response("get_queue_url", {"QueueUrl": "https://queue"})
        sqs.add_response("delete_message_batch", {"Successful": [], "Failed": [failed]})

        with pytest.raises(Unavailable, match="1 of 1"):
            on_sqs.queues.acknowledge("normal", ["r"])


SQS_ERRORS = [
    ("ThrottlingException", 400, Throttled),
    ("RequestThrottled", 403, Throttled),
    ("OverLimit", 403, Throttled),
    ("InternalFailure", 500, Unavailable),
    ("ServiceUnavailable", 503, Unavailable),
]
CALLS: list[tuple[str, Callable[[SqsQueues], object]]] = [
    ("send_message", lambda queues: queues.send("normal", WAKE, "acme")),
    ("delete_message_batch", lambda queues: queues.acknowledge("normal", ["r"])),
    ("send_message", lambda queues: queues.send_to_dead_letter("normal", "body", "reason")),
    ("get_queue_attributes", lambda queues: queues.depth("normal")),
]


@pytest.mark.parametrize(("operation", "call"), CALLS, ids=["send", "acknowledge", "send_to_dead_letter", "depth"])
@pytest.mark.parametrize(("code", "status", "kind"), SQS_ERRORS)
def test_sqs_errors_are_throttled_or_unavailable(
    on_sqs: OnSqs, operation: str, call: Callable[[SqsQueues], object], code: str, status: int, kind: type[Exception]
) -> None:
    """The call fails after the queue URL was resolved."""
    with Stubber(aws.client("sqs")) as sqs:
        sqs.add_response("get_queue_url", {"QueueUrl": "https://queue"})
        sqs.add_client_error(operation, code, http_status_code=status)

        with pytest.raises(kind) as raised:
            call(on_sqs.queues)

    assert type(raised.value) is kind


@pytest.mark.parametrize(("code", "status", "kind"), SQS_ERRORS)
def test_errors_resolving_the_queue_url_are_throttled_or_unavailable(on_sqs: OnSqs, code: str, status: int, kind: type[Exception]) -> None:
    with Stubber(aws.client("sqs")) as sqs:
        sqs.add_client_error("get_queue_url", code, http_status_code=status)

        with pytest.raises(kind) as raised:
            on_sqs.queues.send("normal", WAKE, "acme")

    assert type(raised.value) is kind


def test_missing_queue_raises_the_client_error(on_sqs: OnSqs) -> None:
    """A faulty deployment must not look like an outage."""
    with pytest.raises(ClientError, match="does not exist"):
        SqsQueues("elsewhere", on_sqs.clock).send("normal", WAKE, "acme")


# ---- dead letters, on both


def test_received_dead_letters_have_a_reason_and_are_then_hidden(side: Side) -> None:
    """A message that SQS moved to the dead-letter queue has no reason."""
    side.queues.send_to_dead_letter("low", "garbage", "The message is not JSON.")
    side.move_to_dead_letters("low", WAKE.to_json())
    assert side.queues.dead_letters("low") == 2

    received = side.queues.receive_dead("low")

    assert sorted((one.body, one.reason) for one in received) == sorted([("garbage", "The message is not JSON."), (WAKE.to_json(), None)])
    assert side.queues.receive_dead("low") == []
    assert side.queues.dead_letters("high") == 0


def test_delete_dead_removes_only_the_given_dead_letters(side: Side) -> None:
    side.queues.send_to_dead_letter("low", "garbage", "bad")
    side.move_to_dead_letters("low", WAKE.to_json())
    side.queues.send("low", WAKE, "acme")
    receipts = {one.body: one.receipt for one in side.queues.receive_dead("low")}

    side.queues.delete_dead("low", [receipts[WAKE.to_json()]])
    side.advance_a_minute()

    assert [one.body for one in side.queues.receive_dead("low")] == ["garbage"]
    assert len(side.receive("low")) == 1
    with pytest.raises(ValueError, match="at most"):
        side.queues.delete_dead("low", ["x"] * 11)
