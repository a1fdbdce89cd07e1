"""The transports over HTTP: SSE slices and polls become the same frames as those of a WebSocket."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from cli.api import Api
from cli.errors import ApiError
from cli.reducer import TextAssembler
from cli.target import Target
from cli.transports.polling import PollingConnection
from cli.transports.sse import SseConnection
from cli.watch import ConnectionLost
from tests.unit.cli.test_cli_watch import FakeClock

Json = dict[str, Any]


class FakeHttpClient:
    """Answers requests in order and records them."""

    def __init__(self, *answers: httpx2.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[tuple[str, Json, Json]] = []

    def request(self, method: str, url: str, *, params: Json, json: Any, headers: dict[str, str], **_: Any) -> httpx2.Response:
        self.requests.append((f"{method} {url.removeprefix('http://api')}", params, headers))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        """Do nothing."""


def text(attempt: int, offset: int, content: str, done: bool = False) -> httpx2.Response:
    body = {"attempt": attempt, "offset": offset, "text": content, "next_offset": offset + len(content), "done": done}
    return httpx2.Response(200, json=body)


def progress(attempt: int, status: str, version: int) -> httpx2.Response:
    return httpx2.Response(200, json={"job_id": "j", "attempt": attempt, "status": status, "version": version})


def api(http: FakeHttpClient) -> Api:
    return Api(Target("http://api", "hr_k"), http, sleep=lambda _: None)


def receive_frames(connection: PollingConnection | SseConnection, assembly: TextAssembler, rounds: int) -> list[str]:
    """Receive up to `rounds` frames, apply them to `assembly` and return their events."""
    events = []
    for _ in range(rounds):
        if (frame := connection.receive(30.0)) is not None:
            events.append(frame["event"])
            assembly.receive(frame)
    return events


def test_polling_follows_a_new_attempt_from_offset_0() -> None:
    """Only the progress shows that there is a newer attempt; the text of the old one does not."""
    http = FakeHttpClient(
        text(1, 0, "old"), progress(1, "processing", 2),
        text(1, 3, "", done=True), progress(2, "processing", 5),
        text(2, 0, "new", done=True), progress(2, "completed", 7),
    )  # fmt: skip
    assembly = TextAssembler()

    events = receive_frames(PollingConnection(api(http), "j", FakeClock()), assembly, 6)

    assert events == ["tokens", "progress", "progress", "tokens", "progress", "job_completed"]
    assert (assembly.text, assembly.done) == ("new", True)
    assert [request[1] for request in http.requests[::2]] == [
        {"offset": 0, "wait": 10}, {"attempt": 1, "offset": 3, "wait": 10}, {"attempt": 2, "offset": 0, "wait": 10},
    ]  # fmt: skip


def test_polling_does_not_finish_before_the_job() -> None:
    """The text of a failed attempt is complete, but the job will be retried."""
    http = FakeHttpClient(text(1, 0, "a", done=True), progress(1, "retrying", 3))
    assembly = TextAssembler()

    assert receive_frames(PollingConnection(api(http), "j", FakeClock()), assembly, 2) == ["tokens", "progress"]
    assert not assembly.done


def slice_of(*events: tuple[str, Json], retry: int = 250) -> httpx2.Response:
    body = f"retry: {retry}\n\n" + "".join(f"id: {at}\nevent: {frame['event']}\ndata: {json.dumps(frame)}\n\n" for at, frame in events)
    return httpx2.Response(200, text=body)


def test_sse_continues_after_the_last_id_at_the_given_retry_interval() -> None:
    token = {"event": "tokens", "job_id": "j", "attempt": 1, "version": 2, "offset": 0, "text": "ab"}
    end = {"event": "job_completed", "job_id": "j", "attempt": 1, "version": 4, "length": 2}
    http = FakeHttpClient(slice_of(("1:2", token)), slice_of(("1:2:end", end)))
    clock, assembly = FakeClock(), TextAssembler()

    events = receive_frames(SseConnection(api(http), "j", clock), assembly, 2)

    assert (events, assembly.done) == (["tokens", "job_completed"], True)
    assert [request[2].get("Last-Event-ID") for request in http.requests] == [None, "1:2"]
    assert clock.now() == 0.25


def test_sse_slices_without_news_are_a_second_apart() -> None:
    connected = {"event": "connected", "job_id": "j", "attempt": 0, "version": 1, "status": "queued", "offset": 0}
    http = FakeHttpClient(*[slice_of(("0:0", connected))] * 3)
    clock = FakeClock()

    receive_frames(SseConnection(api(http), "j", clock), TextAssembler(), 3)

    assert clock.now() == 2.0


def test_ended_sse_stream_counts_as_a_lost_connection() -> None:
    connection = SseConnection(api(FakeHttpClient(httpx2.Response(204))), "j", FakeClock())

    with pytest.raises(ConnectionLost):
        connection.receive(30.0)


def test_network_error_loses_the_connection_and_api_error_is_raised() -> None:
    """A lost connection can be reopened. An error answer of the API ends the watch."""
    down = FakeHttpClient(*[httpx2.ConnectError("down")] * 4)
    with pytest.raises(ConnectionLost, match="down"):
        SseConnection(api(down), "j", FakeClock()).receive(30.0)

    rejecting = FakeHttpClient(httpx2.Response(404, json={"success": False, "error": {"code": "job_not_found", "message": "No such job."}}))
    with pytest.raises(ApiError, match="No such job"):
        PollingConnection(api(rejecting), "j", FakeClock()).receive(30.0)
