"""The lines that are made of requests: slices and polls turn into the same frames as a socket's."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from cli.api import Api
from cli.errors import Refused
from cli.lines.polling import PollingLine
from cli.lines.sse import SseLine
from cli.reducer import Assembly
from cli.target import Target
from cli.watch import LineBroken
from tests.unit.cli.test_cli_watch import FakeClock

Json = dict[str, Any]


class FakeTransport:
    """Answers requests in order, and remembers them."""

    def __init__(self, *answers: httpx2.Response | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, Json, Json]] = []

    def request(self, method: str, url: str, *, params: Json, json: Any, headers: dict[str, str], **_: Any) -> httpx2.Response:
        self.asked.append((f"{method} {url.removeprefix('http://api')}", params, headers))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        """Nothing is open."""


def text(attempt: int, offset: int, content: str, done: bool = False) -> httpx2.Response:
    body = {"attempt": attempt, "offset": offset, "text": content, "next_offset": offset + len(content), "done": done}
    return httpx2.Response(200, json=body)


def progress(attempt: int, status: str, version: int) -> httpx2.Response:
    return httpx2.Response(200, json={"job_id": "j", "attempt": attempt, "status": status, "version": version})


def api(transport: FakeTransport) -> Api:
    return Api(Target("http://api", "hr_k"), transport, sleep=lambda _: None)


def frames(line: PollingLine | SseLine, assembly: Assembly, rounds: int) -> list[str]:
    """What a line brings in so many turns, told to `assembly`."""
    seen = []
    for _ in range(rounds):
        if (frame := line.receive(30.0)) is not None:
            seen.append(frame["event"])
            assembly.receive(frame)
    return seen


def test_polls_follow_a_new_attempt_from_its_beginning() -> None:
    """The text of an attempt does not tell that there is another; the state does."""
    transport = FakeTransport(
        text(1, 0, "old"), progress(1, "processing", 2),
        text(1, 3, "", done=True), progress(2, "processing", 5),
        text(2, 0, "new", done=True), progress(2, "completed", 7),
    )  # fmt: skip
    assembly = Assembly()

    seen = frames(PollingLine(api(transport), "j", FakeClock()), assembly, 6)

    assert seen == ["tokens", "progress", "progress", "tokens", "progress", "job_completed"]
    assert (assembly.text, assembly.done) == ("new", True)
    assert [asked[1] for asked in transport.asked[::2]] == [
        {"offset": 0, "wait": 10}, {"attempt": 1, "offset": 3, "wait": 10}, {"attempt": 2, "offset": 0, "wait": 10},
    ]  # fmt: skip


def test_polls_do_not_end_before_the_record_does() -> None:
    """The text of an attempt that failed is whole, but the job goes on."""
    transport = FakeTransport(text(1, 0, "a", done=True), progress(1, "retrying", 3))
    assembly = Assembly()

    assert frames(PollingLine(api(transport), "j", FakeClock()), assembly, 2) == ["tokens", "progress"]
    assert not assembly.done


def slice_of(*events: tuple[str, Json], retry: int = 250) -> httpx2.Response:
    body = f"retry: {retry}\n\n" + "".join(f"id: {at}\nevent: {frame['event']}\ndata: {json.dumps(frame)}\n\n" for at, frame in events)
    return httpx2.Response(200, text=body)


def test_slices_go_on_from_the_last_id_at_the_pace_that_they_name() -> None:
    token = {"event": "tokens", "job_id": "j", "attempt": 1, "version": 2, "offset": 0, "text": "ab"}
    end = {"event": "job_completed", "job_id": "j", "attempt": 1, "version": 4, "length": 2}
    transport = FakeTransport(slice_of(("1:2", token)), slice_of(("1:2:end", end)))
    clock, assembly = FakeClock(), Assembly()

    seen = frames(SseLine(api(transport), "j", clock), assembly, 2)

    assert (seen, assembly.done) == (["tokens", "job_completed"], True)
    assert [asked[2].get("Last-Event-ID") for asked in transport.asked] == [None, "1:2"]
    assert clock.now() == 0.25


def test_slices_that_bring_nothing_are_not_hurried() -> None:
    connected = {"event": "connected", "job_id": "j", "attempt": 0, "version": 1, "status": "queued", "offset": 0}
    transport = FakeTransport(*[slice_of(("0:0", connected))] * 3)
    clock = FakeClock()

    frames(SseLine(api(transport), "j", clock), Assembly(), 3)

    assert clock.now() == 2.0


def test_an_ended_stream_is_begun_again_from_the_position() -> None:
    line = SseLine(api(FakeTransport(httpx2.Response(204))), "j", FakeClock())

    with pytest.raises(LineBroken):
        line.receive(30.0)


def test_a_network_that_fails_breaks_the_line_and_a_refusal_ends_the_watch() -> None:
    """A line may be opened again; what the API refuses stays refused."""
    down = FakeTransport(*[httpx2.ConnectError("down")] * 4)
    with pytest.raises(LineBroken, match="down"):
        SseLine(api(down), "j", FakeClock()).receive(30.0)

    no = FakeTransport(httpx2.Response(404, json={"success": False, "error": {"code": "job_not_found", "message": "No such job."}}))
    with pytest.raises(Refused, match="No such job"):
        PollingLine(api(no), "j", FakeClock()).receive(30.0)
