"""WebSockets: invalid messages, tickets, refused callers, and vanished connections."""

from __future__ import annotations

import json
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from chalicelib.adapters.dynamodb.connections import connection_key
from chalicelib.domain.streaming.subscriptions import CONNECTION_SHARDS, connection_shard
from tests.e2e.stack import Api, Model, Stack
from tests.e2e.subscribers import Socket

GARBAGE = [
    "{",
    "hello",
    "[]",
    "null",
    "5",
    "{}",
    '{"action": 5}',
    '{"action": "dance"}',
    '{"action": "subscribe"}',
    '{"action": "subscribe", "job_id": 5}',
    '{"action": "subscribe", "job_id": "job_0", "offset": -1}',
    '{"action": "subscribe", "job_id": "job_0", "more": 1}',
    '{"action": "subscribe", "job_id": "job_0"}',
    '{"action": "cancel", "job_id": "\\ud800"}',
    '{"action": ' + "[" * 200,
]


def test_invalid_messages_get_error_frames_and_the_socket_stays_open(stack: Stack) -> None:
    with Socket(stack) as open_socket:
        answers = [open_socket.ask(message) for message in GARBAGE]
        pong = open_socket.ask({"action": "ping", "id": "still here"})

    assert [answer["event"] for answer in answers] == ["error"] * len(answers)
    assert {answer["code"] for answer in answers} == {"invalid_request", "job_not_found"}
    assert pong == {"event": "pong", "reply_to": "still here"}


def test_error_frame_names_its_message_and_the_wrong_fields(stack: Stack) -> None:
    """`id` comes back as `reply_to`."""
    with Socket(stack) as open_socket:
        unknown = open_socket.ask({"action": "subscribe", "job_id": "job_0", "id": 7})
        wrong = open_socket.ask({"action": "subscribe", "job_id": "job_0", "offset": "far", "id": 8})

    assert unknown["reply_to"] == 7
    assert [detail["path"] for detail in wrong["details"]] == ["offset"]


def test_a_ticket_opens_one_socket(stack: Stack, api: Api, model: Model) -> None:
    """The second connection is refused; the first reads its job and may not cancel it."""
    model.reply("For the ticket.")
    answer = api.call("POST", "/jobs", {"prompt": "hello", "config": model.config, "ticket": True}).json()
    api.wait_for_end(answer["job_id"])

    with Socket(stack, ticket=answer["ticket"]) as open_socket:
        connected = open_socket.ask({"action": "subscribe", "job_id": answer["job_id"], "id": "a"})
        tokens, end = open_socket.receive(), open_socket.receive()
        refused = open_socket.ask({"action": "cancel", "job_id": answer["job_id"]})
        with pytest.raises(InvalidStatus) as second:
            Socket(stack, ticket=answer["ticket"])

    assert (connected["event"], connected["reply_to"]) == ("connected", "a")
    assert (tokens["text"], end["event"]) == ("For the ticket.", "job_completed")
    assert (refused["event"], refused["code"]) == ("error", "forbidden")
    assert second.value.response.status_code in (401, 403)


@pytest.mark.parametrize("role", [None, "viewer"])
def test_handshake_without_a_key_or_as_a_viewer_is_refused(stack: Stack, role: str | None) -> None:
    with pytest.raises(InvalidStatus) as refused:
        Socket(stack, role)

    assert refused.value.response.status_code in (401, 403)


def test_frames_are_at_most_32_kb(stack: Stack, api: Api, model: Model) -> None:
    """The size and the characters of OpenAI's pieces make no difference."""
    text = "\x00\U0001f30d" * 20_000
    model.reply(text)
    job_id = api.submit(config=model.config)
    api.wait_for_end(job_id)

    with Socket(stack) as open_socket:
        frames = [open_socket.ask({"action": "subscribe", "job_id": job_id})]
        while not frames[-1]["event"].startswith("job_"):
            frames.append(open_socket.receive())

    assert "".join(frame["text"] for frame in frames if frame["event"] == "tokens") == text
    assert max(len(json.dumps(frame, ensure_ascii=False, separators=(",", ":")).encode()) for frame in frames) <= 32_768


def test_sweeper_forgets_only_vanished_connections(stack: Stack) -> None:
    """A sweep checks one shard; each shard holds a vanished connection and the open one."""
    with Socket(stack) as open_socket:
        open_socket.ask({"action": "ping"})
        [row] = _connections(stack)[-1:]
        row["at"] = {"N": str(int(row["at"]["N"]) - 120_000)}
        for part in range(CONNECTION_SHARDS):
            ghost = next(name for name in (f"ghost{number}" for number in range(1_000)) if connection_shard(name) == part)
            for name in (row["sk"]["S"], connection_key(ghost)[1]):
                _put(stack, {**row, "pk": {"S": f"C#{part}"}, "sk": {"S": name}})

        stack.run_schedule()

        left = [one["sk"]["S"] for one in _connections(stack)]
        assert left.count(row["sk"]["S"]) == CONNECTION_SHARDS
        assert len([name for name in left if "ghost" in name]) < CONNECTION_SHARDS
        assert open_socket.ask({"action": "ping", "id": 1}) == {"event": "pong", "reply_to": 1}


def _connections(stack: Stack) -> list[dict[str, Any]]:
    """Return the rows of all connections, the newest last."""
    pages = stack.aws("dynamodb").get_paginator("scan").paginate(TableName="headrace-local-coordination")
    rows = [item for page in pages for item in page["Items"] if item["pk"]["S"].startswith("C#")]
    return sorted(rows, key=lambda row: int(row["at"]["N"]))


def _put(stack: Stack, item: dict[str, Any]) -> None:
    stack.aws("dynamodb").put_item(TableName="headrace-local-coordination", Item=item)
