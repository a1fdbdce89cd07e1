"""Clients that follow a job over a WebSocket, an EventSource or polling.

`text` is the assembled text. Each may run in a thread.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from contextlib import suppress
from random import Random
from typing import Any
from urllib.parse import urlsplit

from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import ClientConnection, connect

from cli.reducer import Appended, Outcome, Resubscribe, StartedOver, TextAssembler
from tests.e2e.stack import TIMEOUT, Api, Stack

SILENCE_SECONDS = 10.0  # seconds of silence after which a WebSocket client subscribes again
RECONNECT_SECONDS = 1.0
ABORT = struct.pack("ii", 1, 0)  # SO_LINGER: closing resets the connection and drops unsent data
CUTS = 0.2  # the share of requests that fail, of an EventSource with `cuts`
Frame = dict[str, Any]


class Socket:
    """One WebSocket connection."""

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

    def receive(self, timeout: float = TIMEOUT) -> Frame:
        """Wait for the next frame.

        Raises:
            TimeoutError: no frame arrives within `timeout` seconds.
            ConnectionClosed: the connection has ended.
        """
        frame: Frame = json.loads(self._open.recv(timeout))
        return frame

    def ask(self, message: Any) -> Frame:
        """Send a message, and return the next frame."""
        self.send(message)
        return self.receive()

    def kill(self) -> None:
        """Break the connection without a closing handshake, as a failing network does.

        Data in transit is lost.
        """
        with suppress(OSError):  # it may just have ended
            self._open.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
            self._open.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._open.close()

    def __enter__(self) -> Socket:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


class SocketSubscriber:
    """A WebSocket client that subscribes again at a hole and after a silence.

    It breaks its connection at each text length of `break_at`.

    `expected_version` is the version of the record that its user knows. An end of an older version
    is not the end.
    """

    def __init__(
        self,
        stack: Stack,
        job_id: str,
        break_at: tuple[int, ...] = (),
        *,
        role: str = "user",
        timeout: float = TIMEOUT,
        silence: float = SILENCE_SECONDS,
    ) -> None:
        self.assembly = TextAssembler()
        self.expected_version = 0
        self.frames: list[Frame] = []
        self.outcomes: list[Outcome] = []
        self.connections = 0
        self.broken_at: list[int] = []
        self._stack, self._job_id, self._break_at = stack, job_id, list(break_at)
        self._role, self._timeout, self._silence = role, timeout, silence

    @property
    def text(self) -> str:
        return self.assembly.text

    @property
    def is_up_to_date(self) -> bool:
        return self.assembly.over and self.assembly.version >= self.expected_version

    @property
    def started_over(self) -> bool:
        return any(isinstance(outcome, StartedOver) for outcome in self.outcomes)

    @property
    def appended(self) -> list[str]:
        return [outcome.text for outcome in self.outcomes if isinstance(outcome, Appended)]

    def events(self, name: str) -> list[Frame]:
        return [frame for frame in self.frames if frame["event"] == name]

    def watch(self) -> None:
        """Receive frames until the end. A broken connection is opened again."""
        deadline = time.monotonic() + self._timeout
        while not self.is_up_to_date and time.monotonic() < deadline:
            self.connections += 1
            try:
                with Socket(self._stack, self._role) as open_socket:
                    self._receive_all(open_socket, deadline)
            except InvalidHandshake:  # refused, as it is while the function of `$connect` is replaced
                time.sleep(RECONNECT_SECONDS)
            except (ConnectionClosed, OSError):
                continue

    def watch_retried(self) -> None:
        """Subscribe again to a retried job, and receive frames until its end."""
        with Socket(self._stack) as open_socket:
            open_socket.subscribe(self._job_id, self.assembly.attempt, self.assembly.position)
            while not (self.frames and self.frames[-1]["event"].startswith("job_") and self.frames[-1]["attempt"] > 1):
                self._handle(open_socket, open_socket.receive())

    def _receive_all(self, open_socket: Socket, deadline: float) -> None:
        self._subscribe(open_socket)
        while not self.is_up_to_date and time.monotonic() < deadline:
            try:
                frame = open_socket.receive(self._silence)
            except TimeoutError:
                self._subscribe(open_socket)
                continue
            self._handle(open_socket, frame)
            if self._break_at and self.assembly.position >= self._break_at[0]:
                self._break_at.pop(0)
                self.broken_at.append(self.assembly.position)
                open_socket.kill()

    def _subscribe(self, open_socket: Socket) -> None:
        open_socket.subscribe(self._job_id, self.assembly.attempt, self.assembly.position)

    def _handle(self, open_socket: Socket, frame: Frame) -> None:
        self.frames.append(frame)
        outcomes = self.assembly.receive(frame)
        self.outcomes += outcomes
        for outcome in outcomes:
            if isinstance(outcome, Resubscribe):
                open_socket.subscribe(self._job_id, outcome.attempt, outcome.offset)


class EventSource:
    """A standard EventSource.

    It sends the last event id, waits as `retry:` says, and stops at a 204.

    With `cuts` some of its requests are reset before or during the response, and it gets nothing of
    that response.
    """

    def __init__(self, api: Api, job_id: str, ticket: str | None = None, *, cuts: Random | None = None, timeout: float = TIMEOUT) -> None:
        self.events: list[tuple[str, Frame]] = []
        self.slices = self.resets = 0
        self._api, self._path = api, f"/jobs/{job_id}/stream"
        self._query = {"ticket": ticket} if ticket else None
        self._last_id, self._retry = "", 1.0
        self._cuts, self._timeout = cuts, timeout

    @property
    def text(self) -> str:
        """All tokens since the last reset, joined.

        The server starts each response where the last one ended.
        """
        begins = max((number for number, name in enumerate(self.names) if name == "reset"), default=-1) + 1
        return "".join(frame["text"] for name, frame in self.events[begins:] if name == "tokens")

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.events]

    def watch(self) -> None:
        deadline = time.monotonic() + self._timeout
        while time.monotonic() < deadline:
            headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": self._last_id} if self._last_id else {})
            if self._cuts and self._cuts.random() < CUTS:
                self._cut_off(headers, self._cuts)
                continue
            answer = self._api.call("GET", self._path, query=self._query, headers=headers)
            self.slices += 1
            if answer.status_code == 204:
                return
            assert answer.status_code == 200, answer.text
            assert answer.headers["Content-Type"].startswith("text/event-stream")
            self._parse(answer.content.decode("utf-8"))
            time.sleep(self._retry)
        raise AssertionError("the stream has not ended")

    def _cut_off(self, headers: dict[str, str], cuts: Random) -> None:
        """Send a request, and reset its connection after a random time or number of bytes."""
        url = urlsplit(self._api.url + self._path)
        lines = [f"GET {url.path} HTTP/1.1", f"Host: {url.netloc}"]
        lines += [f"{name}: {value}" for name, value in (self._api.headers | headers).items()]
        with socket.create_connection((url.hostname, url.port)) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
            connection.sendall("\r\n".join([*lines, "", ""]).encode())
            connection.settimeout(cuts.uniform(0.01, 1.5))
            with suppress(TimeoutError):
                connection.recv(cuts.randint(1, 2000))
        self.resets += 1

    def _parse(self, body: str) -> None:
        """Parse as the HTML standard says. An incomplete event is dropped with its id."""
        name, data, last_id = "message", list[str](), self._last_id
        for line in body.replace("\r\n", "\n").replace("\r", "\n").split("\n")[:-1]:
            key, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if not line:
                self._last_id = last_id
                if data:
                    self.events.append((name, json.loads("\n".join(data))))
                name, data = "message", []
            elif key == "id":
                last_id = value
            elif key == "event":
                name = value
            elif key == "data":
                data.append(value)
            elif key == "retry":
                self._retry = int(value) / 1000


class Poller:
    """A client that polls for the text after its offset."""

    def __init__(self, api: Api, job_id: str) -> None:
        self.text = ""
        self.polls = 0
        self._api, self._path = api, f"/jobs/{job_id}/text"

    def watch(self) -> None:
        deadline = time.monotonic() + TIMEOUT
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
