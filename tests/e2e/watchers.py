"""The ways to follow a job, each as a client of its kind does it. `text` is what it has put together; all can run in threads."""

from __future__ import annotations

import json
import socket
import struct
import time
from contextlib import suppress
from random import Random
from typing import Any
from urllib.parse import urlsplit

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from cli.reducer import Appended, Outcome, Resubscribe, StartedOver, TextAssembler
from tests.e2e.cloud import PATIENCE, Api, Stack

ASK_AGAIN = 10.0  # seconds of silence after which a WebSocket client subscribes again
ABORT = struct.pack("ii", 1, 0)  # SO_LINGER: what is closed is reset, whatever is still under way
CUTS = 0.2  # of the requests of an EventSource whose network fails
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
        """Break the connection as a lost network does: no closing handshake, and what is under way is lost."""
        with suppress(OSError):  # it may have ended by itself at this moment
            self._open.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
            self._open.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._open.close()

    def __enter__(self) -> Socket:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


class SocketWatcher:
    """A WebSocket client that keeps the five rules. It breaks its own connection whenever it holds as much as one of `break_at` says.

    `wants` is the version of the record that its user knows of: an end that is older is not the end.
    """

    def __init__(
        self,
        stack: Stack,
        job_id: str,
        break_at: tuple[int, ...] = (),
        *,
        role: str = "user",
        patience: float = PATIENCE,
        ask_again: float = ASK_AGAIN,
    ) -> None:
        self.assembly = TextAssembler()
        self.wants = 0
        self.frames: list[Frame] = []
        self.outcomes: list[Outcome] = []
        self.connections = 0
        self.broken_at: list[int] = []
        self._stack, self._job_id, self._break_at = stack, job_id, list(break_at)
        self._role, self._patience, self._ask_again = role, patience, ask_again

    @property
    def text(self) -> str:
        return self.assembly.text

    @property
    def at_rest(self) -> bool:
        return self.assembly.over and self.assembly.version >= self.wants

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
        deadline = time.monotonic() + self._patience
        while not self.at_rest and time.monotonic() < deadline:
            self.connections += 1
            with suppress(ConnectionClosed, OSError), Socket(self._stack, self._role) as open_socket:
                self._listen(open_socket, deadline)

    def watch_again(self) -> None:
        """Come back after the end, as for a job that was retried meanwhile, and listen until nothing more comes."""
        with Socket(self._stack) as open_socket:
            open_socket.subscribe(self._job_id, self.assembly.attempt, self.assembly.position)
            while not (self.frames and self.frames[-1]["event"].startswith("job_") and self.frames[-1]["attempt"] > 1):
                self._take(open_socket, open_socket.receive())

    def _listen(self, open_socket: Socket, deadline: float) -> None:
        self._ask(open_socket)
        while not self.at_rest and time.monotonic() < deadline:
            try:
                frame = open_socket.receive(self._ask_again)
            except TimeoutError:
                self._ask(open_socket)
                continue
            self._take(open_socket, frame)
            if self._break_at and self.assembly.position >= self._break_at[0]:
                self._break_at.pop(0)
                self.broken_at.append(self.assembly.position)
                open_socket.kill()

    def _ask(self, open_socket: Socket) -> None:
        open_socket.subscribe(self._job_id, self.assembly.attempt, self.assembly.position)

    def _take(self, open_socket: Socket, frame: Frame) -> None:
        self.frames.append(frame)
        self._follow(open_socket, self.assembly.receive(frame))

    def _follow(self, open_socket: Socket, outcomes: list[Outcome]) -> None:
        self.outcomes += outcomes
        for outcome in outcomes:
            if isinstance(outcome, Resubscribe):
                open_socket.subscribe(self._job_id, outcome.attempt, outcome.offset)


class EventSource:
    """A standard EventSource: it knows no offsets, repeats the last id, waits as `retry:` says, and a 204 ends it.

    With `cuts` its network fails now and then: a request is reset before its answer, or in the middle of it, and nothing of that is seen.
    """

    def __init__(self, api: Api, job_id: str, ticket: str | None = None, *, cuts: Random | None = None, patience: float = PATIENCE) -> None:
        self.events: list[tuple[str, Frame]] = []
        self.slices = self.resets = 0
        self._api, self._path = api, f"/jobs/{job_id}/stream"
        self._query = {"ticket": ticket} if ticket else None
        self._last_id, self._retry = "", 1.0
        self._cuts, self._patience = cuts, patience

    @property
    def text(self) -> str:
        """All tokens since the last reset, one after the other: the server starts each slice where the last one ended."""
        begins = max((number for number, name in enumerate(self.names) if name == "reset"), default=-1) + 1
        return "".join(frame["text"] for name, frame in self.events[begins:] if name == "tokens")

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.events]

    def watch(self) -> None:
        deadline = time.monotonic() + self._patience
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
        """A request whose connection is reset soon, whether something has come or not."""
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
        """As the HTML standard says; an event that no empty line ends is dropped, and its id with it."""
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
