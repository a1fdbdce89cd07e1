"""WebSockets through `app.py`: who gets in, what is answered, what is pushed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chalicelib.domain.jobs.job import Status
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


def test_who_gets_in(api: Api) -> None:
    """A key, or a ticket that is fresh and opens one connection; a viewer sees no content."""
    assert Socket(api, "a").connect() == 401
    assert Socket(api, "b").connect("nonsense") == 401
    assert Socket(api, "c").connect("viewer") == 403
    ticket = api.call("POST", "/stream-tickets", {}).json["ticket"]
    assert Socket(api, "d").connect(ticket=ticket) == 200
    assert Socket(api, "e").connect(ticket=ticket) == 401
    stale = api.call("POST", "/stream-tickets", {}).json["ticket"]
    api.container.clock.advance(61)
    assert Socket(api, "f").connect(ticket=stale) == 401


def test_a_subscriber_is_told_everything_as_it_happens(api: Api, socket: Socket) -> None:
    """`connected`, then the tokens, then the end; what is put together is the result."""
    job_id = api.submit()

    [connected] = socket.send({"action": "subscribe", "job_id": job_id, "id": 7})
    work(api)

    assert (connected["event"], connected["status"], connected["offset"], connected["reply_to"]) == ("connected", "queued", 0, 7)
    assert socket.assembled.text == "Hello, world"
    assert socket.assembled.done
    assert api.container.sockets.endpoints["c1"] == "https://ws.example/api"


def test_one_who_comes_after_the_end_is_told_all_at_once(api: Api, socket: Socket) -> None:
    """The whole text, or what lies beyond the offset, then the end; in frames of at most 32 KB."""
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
def test_what_cannot_be_understood_gets_an_error_frame(socket: Socket, message: Any) -> None:
    """Never a closed socket, never silence."""
    [frame] = socket.send(message)

    assert (frame["event"], frame["code"]) == ("error", "invalid_request")
    assert frame["message"]


def test_another_tenants_job_is_not_there(api: Api, socket: Socket) -> None:
    stranger = Socket(api, "c2")
    stranger.connect("stranger")
    job_id = api.submit()

    for action in ("subscribe", "cancel"):
        [frame] = stranger.send({"action": action, "job_id": job_id, "id": "q"})
        assert (frame["code"], frame["reply_to"]) == ("job_not_found", "q")
    [unknown] = socket.send({"action": "subscribe", "job_id": "job_unknown"})
    assert unknown["code"] == "job_not_found"
    assert api.container.jobs.heads[job_id].status is Status.QUEUED


def test_a_ping_is_answered(socket: Socket) -> None:
    assert socket.send({"action": "ping", "id": "p"}) == [{"event": "pong", "reply_to": "p"}]


def test_a_job_is_cancelled_over_the_socket(api: Api, socket: Socket) -> None:
    """With a key; a ticket only reads."""
    job_id = api.submit()
    reader = Socket(api, "c2")
    reader.connect(ticket=api.call("POST", "/stream-tickets", {}).json["ticket"])

    [refused] = reader.send({"action": "cancel", "job_id": job_id})
    socket.send({"action": "cancel", "job_id": job_id})

    assert refused["code"] == "forbidden"
    assert api.container.jobs.heads[job_id].status is Status.CANCELLED


def test_one_who_unsubscribes_or_leaves_is_told_no_more(api: Api, socket: Socket) -> None:
    """Their rows are gone, so no worker posts to them."""
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


def test_a_connection_has_fifty_subscriptions(api: Api, socket: Socket) -> None:
    jobs = [api.submit() for _ in range(51)]
    answers = [socket.send({"action": "subscribe", "job_id": job_id})[0] for job_id in jobs]

    assert [answer["event"] for answer in answers] == ["connected"] * 50 + ["error"]
    assert "50" in answers[-1]["message"]


def test_a_revoked_key_stops_working_on_an_open_socket(api: Api, socket: Socket) -> None:
    """Within a minute, like everywhere."""
    job_id = api.submit()
    key = next(key for key in api.container.api_keys.keys("acme") if key.id == "key_user")
    api.container.api_keys.put_key(replace(key, revoked_at=api.container.clock.now()))
    api.container.clock.advance(31)

    [frame] = socket.send({"action": "subscribe", "job_id": job_id})

    assert frame["code"] == "unauthenticated"


def test_a_message_from_an_unknown_connection_is_answered(api: Api) -> None:
    [frame] = Socket(api, "ghost").send({"action": "ping"})

    assert frame["code"] == "not_found"
