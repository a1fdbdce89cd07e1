"""Frames by Server-Sent Events: each request is answered by a slice of the stream, and the next one goes on from its last id."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from cli.api import Api
from cli.errors import Unreachable
from cli.reducer import Frame
from cli.watch import Clock, LineBroken, WallClock

RETRY_SECONDS = 1.0  # where a slice names no time, or brings nothing


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a slice, or only its `retry`, in seconds."""

    id: str | None = None
    data: str | None = None
    retry: float | None = None


class SseLine:
    """Slices, one request after the other."""

    def __init__(self, api: Api, job_id: str, clock: Clock | None = None) -> None:
        self._api = api
        self._path = f"/jobs/{job_id}/stream"
        self._clock = clock or WallClock()
        self._last_id: str | None = None
        self._frames: deque[Frame] = deque()
        self._not_before = 0.0

    def subscribe(self, attempt: int, offset: int) -> None:
        self._last_id = f"{attempt}:{offset}" if attempt else None
        self._frames.clear()

    def receive(self, timeout: float) -> Frame | None:
        """A request may take longer than `timeout`: the API holds it for up to 20 s until there is something to say."""
        if not self._frames:
            pause = self._not_before - self._clock.now()
            if pause > timeout:
                self._clock.sleep(timeout)
                return None
            if pause > 0:
                self._clock.sleep(pause)
            self._fetch()
        return self._frames.popleft() if self._frames else None

    def ping(self) -> None:
        """Nothing is kept open."""

    def close(self) -> None:
        self._frames.clear()

    def _fetch(self) -> None:
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": self._last_id} if self._last_id else {})
        try:
            response = self._api.send("GET", self._path, headers=headers)
        except Unreachable as problem:
            raise LineBroken(str(problem)) from problem
        if response.status_code == 204:
            raise LineBroken("the stream has ended")  # and was not heard to its end, so begin again from the position
        retry = RETRY_SECONDS
        for event in parse(response.text):
            retry = retry if event.retry is None else event.retry
            self._last_id = event.id or self._last_id
            if event.data is not None:
                self._frames.append(json.loads(event.data))
        if all(frame.get("event") == "connected" for frame in self._frames):
            retry = max(retry, RETRY_SECONDS)  # nothing happened, so there is no hurry to ask again
        self._not_before = self._clock.now() + retry


def parse(body: str) -> Iterator[Event]:
    """The events of one slice. What is not closed by an empty line was cut off and does not count."""
    identity, data, retry = None, list[str](), None
    for line in body.replace("\r\n", "\n").split("\n")[:-1]:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "" if not line:
                if data or retry is not None:
                    yield Event(identity if data else None, "\n".join(data) if data else None, retry)
                identity, data, retry = None, [], None
            case "id":
                identity = value
            case "data":
                data.append(value)
            case "retry" if value.isdigit():
                retry = int(value) / 1000
