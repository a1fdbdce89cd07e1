"""WebSockets through `app.py`: connections, messages and frames."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chalicelib.domain.errors import ConnectionBusy
from chalicelib.domain.jobs.job import Status
from tests.kit.failing_store import refusing
from tests.kit.http import Api
from tests.kit.provider import Script
from tests.kit.sockets import Socket
from tests.kit.work import work


@pytest.fixture(autouse=True)
def _region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "us-east-1")


@pytest.fixture
def socket(api: Api) -> Socket:
    made = Socket(api)
    assert made.connect("user") == 200
    return made


def test_a_connection_requires_a_valid_key_or_an_unused_fresh_ticket(api: Api) -> None:
    """A viewer may not connect, because streams show content."""
    assert Socket(api, "a").connect() == 401
    assert Socket(api, "b").connect("nonsense") == 401
    assert Socket(api, "c").connect("viewer") == 403
    ticket = api.call("POST", "/stream-tickets", {}).json["ticket"]
    assert Socket(api, "d").connect(ticket=ticket) == 200
    assert Socket(api, "e").connect(ticket=ticket) == 401
    stale = api.call("POST", "/stream-tickets", {}).json["ticket"]
    api.container.clock.advance(61)
    assert Socket(api, "f").connect(ticket=stale) == 401


def test_a_subscriber_receives_all_events_of_a_running_job(api: Api, socket: Socket) -> None:
    """The text assembled from the frames equals the output of the job."""
    job_id = api.submit()

    [connected] = socket.send({"action": "subscribe", "job_id": job_id, "id": 7})
    work(api)

    assert (connected["event"], connected["status"], connected["offset"], connected["reply_to"]) == ("connected", "queued", 0, 7)
    assert socket.assembled.text == "Hello, world"
    assert socket.assembled.done
    assert api.container.sockets.endpoints["c1"] == "https://ws.example/api"


def test_a_late_subscriber_receives_the_whole_text_at_once(api: Api, socket: Socket) -> None:
    """With an offset only the rest is sent; a long text is split into several frames."""
    api.container.provider.scripts[:] = [Script(deltas=["x" * 12_000, "y"])]
    job_id = api.submit()
    work(api)

    frames = socket.send({"action": "subscribe", "job_id": job_id})
    rest = socket.send({"action": "subscribe", "job_id": job_id, "attempt": 1, "offset": 12_000})

    assert [frame["event"] for frame in frames] == ["connected", "tokens", "tokens", "tokens", "job_completed"]
    assert [frame.get("text") for frame in rest] == [None, "y", None]
    assert socket.assembled.done


@pytest.mark.parametrize(
    "message",
    [
        None,
        "",
        "hello",
        "[]",
        "[" * 100_000,
        {"action": 5},
        {"action": "fly"},
        {"action": "subscribe"},
        {"action": "subscribe", "job_id": 7},
        {"action": "subscribe", "job_id": "job_1", "offset": -1},
        {"action": "subscribe", "job_id": "job_1", "offset": "far"},
        {"action": "subscribe", "job_id": "x" * 1000},
        {"action": "ping", "extra": 1},
        {"action": "ping", "id": {"a": 1}},
    ],
)
def test_an_invalid_message_gets_an_error_frame(socket: Socket, message: Any) -> None:
    """The socket is neither closed nor left without an answer."""
    [frame] = socket.send(message)

    assert (frame["event"], frame["code"]) == ("error", "invalid_request")
    assert frame["message"]


def test_a_job_of_another_tenant_is_not_found(api: Api, socket: Socket) -> None:
    stranger = Socket(api, "c2")
    stranger.connect("stranger")
    job_id = api.submit()

    for action in ("subscribe", "cancel"):
        [frame] = stranger.send({"action": action, "job_id": job_id, "id": "q"})
        assert (frame["code"], frame["reply_to"]) == ("job_not_found", "q")
    [unknown] = socket.send({"action": "subscribe", "job_id": "job_unknown"})
    assert unknown["code"] == "job_not_found"
    assert api.container.jobs.records[job_id].status is Status.QUEUED


def test_a_ping_is_answered(socket: Socket) -> None:
    assert socket.send({"action": "ping", "id": "p"}) == [{"event": "pong", "reply_to": "p"}]


def test_a_job_can_be_cancelled_over_a_socket(api: Api, socket: Socket) -> None:
    """A socket opened with a ticket may only read."""
    job_id = api.submit()
    reader = Socket(api, "c2")
    reader.connect(ticket=api.call("POST", "/stream-tickets", {}).json["ticket"])

    [refused] = reader.send({"action": "cancel", "job_id": job_id})
    socket.send({"action": "cancel", "job_id": job_id})

    assert refused["code"] == "forbidden"
    assert api.container.jobs.records[job_id].status is Status.CANCELLED


def test_no_frames_are_sent_after_unsubscribing_or_disconnecting(api: Api, socket: Socket) -> None:
    """The subscriptions are deleted, so no worker sends frames to the connection."""
    first, second = api.submit(), api.submit()
    for job_id in (first, second):
        socket.send({"action": "subscribe", "job_id": job_id})
    socket.send({"action": "unsubscribe", "job_id": first})
    assert not api.container.subscriptions.for_job(first)
    socket.disconnect()
    assert not api.container.subscriptions.for_job(second)
    before = len(socket.frames)

    work(api)

    assert len(socket.frames) == before


def test_a_connection_is_limited_to_fifty_subscriptions(api: Api, socket: Socket) -> None:
    jobs = [api.submit() for _ in range(51)]
    answers = [socket.send({"action": "subscribe", "job_id": job_id})[0] for job_id in jobs]

    assert [answer["event"] for answer in answers] == ["connected"] * 50 + ["error"]
    assert "50" in answers[-1]["message"]


def test_a_revoked_key_stops_working_on_an_open_socket(api: Api, socket: Socket) -> None:
    """A revocation takes effect within a minute, as on all routes."""
    job_id = api.submit()
    key = next(key for key in api.container.api_keys.keys("acme") if key.id == "key_user")
    api.container.api_keys.put_key(replace(key, revoked_at=api.container.clock.now()))
    api.container.clock.advance(31)

    [frame] = socket.send({"action": "subscribe", "job_id": job_id})

    assert frame["code"] == "unauthenticated"
    assert api.container.sockets.closed == [socket.id]


def test_a_message_from_an_unknown_connection_gets_an_error_and_the_socket_is_closed(api: Api) -> None:
    """Its client would wait on it for ever: no frame is sent to a connection without a row."""
    [frame] = Socket(api, "ghost").send({"action": "ping"})

    assert frame["code"] == "connection_unknown"
    assert api.container.sockets.closed == ["ghost"]


def test_an_unknown_connection_that_cannot_be_closed_gets_its_error_all_the_same(api: Api) -> None:
    ghost = Socket(api, "ghost")
    with refusing(api.container.sockets, "close", error=ConnectionBusy):
        [frame] = ghost.send({"action": "ping"})

    assert frame["code"] == "connection_unknown"
