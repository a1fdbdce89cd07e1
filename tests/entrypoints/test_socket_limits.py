"""What one WebSocket, one API key and one job may ask for, through `app.py`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chalicelib.domain.jobs.job import Status
from chalicelib.domain.streaming.socket_budget import (
    CLOSE_AT_UNITS,
    MAX_MESSAGE_LENGTH,
    MAX_WATCHERS,
    SUBSCRIBE_UNITS,
    UNITS_PER_WINDOW,
    UNWRITTEN_UNITS,
    window_of,
)
from chalicelib.settings import Settings
from tests.kit.failing_store import refusing
from tests.kit.http import Api
from tests.kit.provider import Script
from tests.kit.sockets import Socket
from tests.kit.work import work

PING = {"action": "ping"}


@pytest.fixture(autouse=True)
def _region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "us-east-1")


def connected(api: Api, connection_id: str = "c1", token: str = "user") -> Socket:
    socket = Socket(api, connection_id)
    assert socket.connect(token) == 200
    return socket


def codes(frames: list[dict[str, Any]]) -> list[str]:
    return [frame.get("code") or frame["event"] for frame in frames]


def used(api: Api, connection_id: str = "c1") -> int:
    connection = api.container.connections.get(connection_id)
    assert connection is not None
    return connection.used_in(window_of(api.container.clock.now()))


def ended_job(api: Api, length: int) -> str:
    """A job that has ended with a text of this length."""
    api.container.provider.scripts = [Script(deltas=["x" * 1_000] * (length // 1_000), every=0.001)]
    job_id = api.submit()
    work(api)
    assert api.job(job_id).status is Status.COMPLETED
    return job_id


# ---- messages of a connection


def test_a_client_that_pings_costs_no_write(api: Api) -> None:
    """A ping is counted in memory: two a minute for hours."""
    socket = connected(api)
    with refusing(api.container.connections, "charge", 0) as writes:
        for _ in range(200):
            assert codes(socket.send(PING)) == ["pong"]
            api.container.clock.advance(30)

    assert writes == [0]


def test_a_flood_of_messages_is_refused_once_then_dropped_and_the_socket_closed(api: Api) -> None:
    """One error frame tells the client until when; the row is written once for many messages."""
    socket = connected(api)
    with refusing(api.container.connections, "charge", 0) as writes:
        answers = [codes(socket.send(PING)) for _ in range(CLOSE_AT_UNITS + 1)]

    assert answers[:UNITS_PER_WINDOW] == [["pong"]] * UNITS_PER_WINDOW
    assert answers[UNITS_PER_WINDOW] == ["rate_limited"]
    assert answers[UNITS_PER_WINDOW + 1 :] == [[]] * (len(answers) - UNITS_PER_WINDOW - 1)
    [refusal] = [frame for frame in socket.frames if frame["event"] == "error"]
    assert 0 < refusal["retry_after"] <= 60
    assert writes[0] <= CLOSE_AT_UNITS // UNWRITTEN_UNITS + 1
    assert api.container.sockets.closed == ["c1"]
    assert api.container.connections.get("c1") is None


def test_a_refused_client_may_go_on_in_the_next_minute(api: Api) -> None:
    socket = connected(api)
    for _ in range(UNITS_PER_WINDOW + 5):
        socket.send(PING)
    [refusal] = [frame for frame in socket.frames if frame["event"] == "error"]

    api.container.clock.advance(refusal["retry_after"])

    assert codes(socket.send(PING)) == ["pong"]


def test_messages_that_reach_several_environments_count_together(api: Api) -> None:
    """API Gateway sends the messages of one connection to any environment; what they have counted is in the row."""
    socket = connected(api)
    environments = [type(api.container.socket_meter)() for _ in range(4)]
    answered = 0
    for number in range(UNITS_PER_WINDOW * 2):
        vars(api.container)["socket_meter"] = environments[number % 4]
        answered += codes(socket.send(PING)) == ["pong"]

    assert UNITS_PER_WINDOW <= answered <= UNITS_PER_WINDOW + 4 * UNWRITTEN_UNITS


@pytest.mark.parametrize("message", ["[", "x" * 200, '{"action": "jump"}', "{" * 120_000, '{"action":"ping","id":"' + "x" * 120_000 + '"}'])
def test_invalid_messages_are_counted_like_valid_ones(api: Api, message: str) -> None:
    """A large one is refused before it is parsed."""
    socket = connected(api)

    answers = [codes(socket.send(message)) for _ in range(UNITS_PER_WINDOW + 10)]

    assert answers[0] == ["invalid_request"]
    assert sum(len(answer) for answer in answers) == UNITS_PER_WINDOW + 1
    assert len(socket.frames[0]["message"]) < MAX_MESSAGE_LENGTH


def test_subscribing_counts_in_the_write_that_it_needs_anyway(api: Api) -> None:
    socket, job_id = connected(api), api.submit()
    with refusing(api.container.connections, "charge", 0) as writes:
        for _ in range(4):
            socket.send(PING)
        socket.send({"action": "subscribe", "job_id": job_id})

    assert (writes, used(api)) == ([0], 5 + SUBSCRIBE_UNITS)


def test_replays_of_a_large_text_use_up_the_minute_of_their_connection(api: Api) -> None:
    """Each sends 80 frames. The whole text can always be had once, but not again and again."""
    job_id, socket = ended_job(api, 400_000), connected(api)
    frames = 0
    for _ in range(40):
        frames += len(socket.send({"action": "subscribe", "job_id": job_id}))
        api.container.clock.advance(0.5)
        socket.send({"action": "unsubscribe", "job_id": job_id})

    assert socket.assembled.text == "x" * 400_000
    assert frames < UNITS_PER_WINDOW + 90


def test_the_same_subscription_within_seconds_is_not_replayed_again(api: Api) -> None:
    """The first goes on; the second is answered with `connected` only. After some seconds it is sent anew."""
    job_id, socket = ended_job(api, 20_000), connected(api)
    ask = {"action": "subscribe", "job_id": job_id}
    assert codes(socket.send(ask)) == ["connected", *["tokens"] * 4, "job_completed"]

    assert codes(socket.send({**ask, "id": "again"})) == ["connected"]
    assert socket.frames[-1]["reply_to"] == "again"
    assert codes(socket.send({**ask, "attempt": 1, "offset": 15_000})) == ["connected", "tokens", "job_completed"]
    api.container.clock.advance(5)
    assert codes(socket.send({**ask, "attempt": 1, "offset": 15_000})) == ["connected", "tokens", "job_completed"]


# ---- connections of a key


def connect_many(api: Api, count: int, prefix: str, token: str = "user") -> list[Socket]:
    """Try to open so many sockets, and return those that were opened."""
    sockets = [Socket(api, f"{prefix}{number}") for number in range(count)]
    return [socket for socket in sockets if socket.connect(token) == 200]


def test_open_connections_of_a_key_are_limited(api: Api) -> None:
    """Those of its tickets count too; other keys are not affected, and closing some makes room."""
    api.container.settings = replace(api.container.settings, max_connections=80)

    opened = connect_many(api, 400, "a")

    assert 40 < len(opened) < 160
    refused = Socket(api, "b")
    assert refused.connect(ticket=api.call("POST", "/stream-tickets", {}).json["ticket"]) == 429
    assert api.container.connections.get("b") is None
    assert len(connect_many(api, 30, "c", "colleague")) == 30
    for socket in opened:
        socket.disconnect()
    api.container.clock.advance(61)
    assert len(connect_many(api, 30, "d")) == 30


def test_connections_of_clients_that_vanished_do_not_shut_their_key_out(api: Api) -> None:
    """Neither after failed frames, nor at last when they would have been closed by API Gateway."""
    api.container.settings = replace(api.container.settings, max_connections=80)
    opened = connect_many(api, 400, "a")
    for socket in opened[:60]:
        api.container.sockets.gone.add(socket.id)
        socket.send(PING)  # the answer cannot be sent
    api.container.clock.advance(61)
    assert len(connect_many(api, 400, "b")) > 20

    api.container.clock.advance(2 * 3_600 + 301)

    assert len(connect_many(api, 30, "c")) == 30


def test_one_connection_in_eight_costs_two_writes_more(api: Api) -> None:
    """The others cost none, nor does counting connects of a key that opens a few a minute."""
    with refusing(api.container.semaphores, "acquire", 0) as slots, refusing(api.container.request_counters, "increment", 0) as counts:
        for number in range(800):
            Socket(api, f"a{number}").connect("user")
            api.container.clock.advance(10)

    assert 80 <= slots[0] <= 120
    assert counts == [0]


def test_connecting_again_and_again_is_limited_by_minute(api: Api) -> None:
    """Environments count together, each with some that are not written yet."""
    api.container.settings = Settings(requests_per_minute=100)
    environments = [type(api.container.socket_meter)() for _ in range(3)]
    answers = []
    for number in range(400):
        vars(api.container)["socket_meter"] = environments[number % 3]
        socket = Socket(api, f"c{number}")
        answers.append(socket.connect("user"))
        socket.disconnect()

    assert 100 <= answers.count(200) <= 130
    assert set(answers[-200:]) == {429}
    assert Socket(api, "other").connect("stranger") == 200
    api.container.clock.advance(60)
    assert Socket(api, "later").connect("user") == 200


# ---- watchers of a job


def test_live_watchers_of_a_job_are_limited_and_the_rest_is_told_to_poll(api: Api) -> None:
    job_id = api.submit()
    for number in range(MAX_WATCHERS):
        assert codes(connected(api, f"c{number}").send({"action": "subscribe", "job_id": job_id})) == ["connected"]
    late = connected(api, "late")

    [frame] = late.send({"action": "subscribe", "job_id": job_id, "id": 7})

    assert (frame["event"], frame["code"], frame["reply_to"]) == ("error", "too_many_watchers", 7)
    assert (frame["poll"], frame["retry_after"]) == (f"/jobs/{job_id}/text", 5)
    assert api.call("GET", frame["poll"]).status == 200
    assert len(api.container.subscriptions.for_job(job_id)) == MAX_WATCHERS
    again = Socket(api, "c5").send({"action": "subscribe", "job_id": job_id, "attempt": 1})
    assert codes(again) == ["connected"]
    Socket(api, "c6").send({"action": "unsubscribe", "job_id": job_id})
    assert codes(late.send({"action": "subscribe", "job_id": job_id})) == ["connected"]


def test_live_watchers_of_a_batch_are_limited(api: Api) -> None:
    batch_id = api.call("POST", "/batches", {"items": ["a"]}).json["batch_id"]
    for number in range(MAX_WATCHERS):
        connected(api, f"c{number}").send({"action": "subscribe", "batch_id": batch_id})

    [frame] = connected(api, "late").send({"action": "subscribe", "batch_id": batch_id})

    assert (frame["code"], frame["poll"]) == ("too_many_watchers", f"/batches/{batch_id}")


# ---- two tenants


def test_a_tenant_that_floods_sockets_costs_the_other_nothing(api: Api) -> None:
    """It opens sockets without end and sends messages without end; the other one's socket works as before."""
    api.container.settings = replace(api.container.settings, max_connections=16)
    job_id = api.submit("user")
    quiet = connected(api, "quiet")
    opened = connect_many(api, 300, "h", "stranger")
    for socket in opened:
        for _ in range(CLOSE_AT_UNITS + 50):
            socket.send({"action": "subscribe", "job_id": job_id})

    posts = sum(len(socket.frames) for socket in opened)
    assert 8 <= len(opened) <= 40
    assert posts <= len(opened) * (UNITS_PER_WINDOW + 1)
    assert set(api.container.sockets.closed) == {socket.id for socket in opened}
    assert codes(quiet.send({"action": "subscribe", "job_id": job_id})) == ["connected"]
    work(api)
    assert quiet.assembled.done
