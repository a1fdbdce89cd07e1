"""The ways to follow a job, each as a client of its kind does it. `text` is what it has put together; all can run in threads."""

from __future__ import annotations

import json
import socket
import time
from contextlib import suppress
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from cli.reducer import Appended, Ask, Assembly, Outcome, StartedOver
from tests.e2e.cloud import PATIENCE, Api, Stack

ASK_AGAIN = 10.0  # seconds of silence after which a WebSocket client subscribes again
Frame = dict[str, Any]


class Socket:
    """One WebSocket."""

    def __init__(self, stack: Stack, role: str | None = "user", ticket: str | None = None) -> None:
        headers = {"Authorization": f"Bearer {stack.tokens[role]}"} if role and not ticket else {}
        url = stack.ws_url + (f"?ticket={ticket}" if ticket else "")
        self._open: ClientConnection = connect(
            url, additional_headers=headers, ping_interval=None, close_timeout=1, proxy=None, legacy=True
        )

    def send(self, message: Any) -> None:
        self._open.send(message if isinstance(message, str | bytes) else json.dumps(message))

    def subscribe(self, job_id: str, attempt: int = 0, offset: int = 0) -> None:
        self.send({"action": "subscribe", "job_id": job_id, **({"attempt": attempt, "offset": offset} if attempt else {})})

    def receive(self, timeout: float = PATIENCE) -> Frame:
        """The next frame. Raises TimeoutError, ConnectionClosed."""
        frame: Frame = json.loads(self._open.recv(timeout))
        return frame

    def ask(self, message: Any) -> Frame:
        """Send something and take the next frame as its answer."""
        self.send(message)
        return self.receive()

    def kill(self) -> None:
        """Break the connection as a lost network does: no closing handshake."""
        self._open.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._open.close()

    def __enter__(self) -> Socket:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


class SocketWatcher:
    """A WebSocket client that keeps the five rules. It breaks its own connection whenever it holds as much as one of `break_at` says."""

    def __init__(self, stack: Stack, job_id: str, break_at: tuple[int, ...] = ()) -> None:
        self.assembly = Assembly()
        self.frames: list[Frame] = []
        self.outcomes: list[Outcome] = []
        self.connections = 0
        self.broken_at: list[int] = []
        self._stack, self._job_id, self._break_at = stack, job_id, list(break_at)

    @property
    def text(self) -> str:
        return self.assembly.text

    @property
    def started_over(self) -> bool:
        return any(isinstance(outcome, StartedOver) for outcome in self.outcomes)

    @property
    def appended(self) -> list[str]:
        return [outcome.text for outcome in self.outcomes if isinstance(outcome, Appended)]

    def events(self, name: str) -> list[Frame]:
        return [frame for frame in self.frames if frame["event"] == name]

    def watch(self) -> None:
        """Listen to the end, on as many connections as it takes."""
        deadline = time.monotonic() + PATIENCE
        while not self.assembly.over and time.monotonic() < deadline:
            self.connections += 1
            with suppress(ConnectionClosed), Socket(self._stack) as open_socket:
                self._listen(open_socket)

    def watch_again(self) -> None:
        """Come back after the end, as for a job that was retried meanwhile, and listen until nothing more comes."""
        with Socket(self._stack) as open_socket:
            open_socket.subscribe(self._job_id, self.assembly.attempt, self.assembly.position)
            while not (self.frames and self.frames[-1]["event"].startswith("job_") and self.frames[-1]["attempt"] > 1):
                self._take(open_socket, open_socket.receive())

    def _listen(self, open_socket: Socket) -> None:
        self._follow(open_socket, self.assembly.ask_again())
        while not self.assembly.over:
            try:
                frame = open_socket.receive(ASK_AGAIN)
            except TimeoutError:
                self._follow(open_socket, self.assembly.ask_again())
                continue
            self._take(open_socket, frame)
            if self._break_at and self.assembly.position >= self._break_at[0]:
                self._break_at.pop(0)
                self.broken_at.append(self.assembly.position)
                open_socket.kill()

    def _take(self, open_socket: Socket, frame: Frame) -> None:
        self.frames.append(frame)
        self._follow(open_socket, self.assembly.receive(frame))

    def _follow(self, open_socket: Socket, outcomes: list[Outcome]) -> None:
        self.outcomes += outcomes
        for outcome in outcomes:
            if isinstance(outcome, Ask):
                open_socket.subscribe(self._job_id, outcome.attempt, outcome.offset)


class EventSource:
    """A standard EventSource: it knows no offsets, repeats the last id, waits as `retry:` says, and a 204 ends it."""

    def __init__(self, api: Api, job_id: str, ticket: str | None = None) -> None:
        self.events: list[tuple[str, Frame]] = []
        self.slices = 0
        self._api, self._path = api, f"/jobs/{job_id}/stream"
        self._query = {"ticket": ticket} if ticket else None
        self._last_id, self._retry = "", 1.0

    @property
    def text(self) -> str:
        """All tokens, one after the other: the server starts each slice where the last one ended."""
        return "".join(frame["text"] for name, frame in self.events if name == "tokens")

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.events]

    def watch(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": self._last_id} if self._last_id else {})
            answer = self._api.call("GET", self._path, query=self._query, headers=headers)
            self.slices += 1
            if answer.status_code == 204:
                return
            assert answer.status_code == 200, answer.text
            assert answer.headers["Content-Type"].startswith("text/event-stream")
            self._parse(answer.content.decode("utf-8"))
            time.sleep(self._retry)
        raise AssertionError("the stream has not ended")

    def _parse(self, body: str) -> None:
        """As the HTML standard says; an event that no empty line ends is dropped."""
        name, data = "message", list[str]()
        for line in body.replace("\r\n", "\n").replace("\r", "\n").split("\n")[:-1]:
            key, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if not line:
                if data:
                    self.events.append((name, json.loads("\n".join(data))))
                name, data = "message", []
            elif key == "id":
                self._last_id = value
            elif key == "event":
                name = value
            elif key == "data":
                data.append(value)
            elif key == "retry":
                self._retry = int(value) / 1000


class Poller:
    """A client that can do nothing but ask for the text from where it is."""

    def __init__(self, api: Api, job_id: str) -> None:
        self.text = ""
        self.polls = 0
        self._api, self._path = api, f"/jobs/{job_id}/text"

    def watch(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            part = self._api.get(self._path, offset=len(self.text), wait=20)
            self.polls += 1
            assert part["offset"] == len(self.text)
            self.text += part["text"]
            assert part["next_offset"] == len(self.text)
            if part["done"]:
                return
            time.sleep(0.3)
        raise AssertionError("the text has not ended")
