"""Frames by Server-Sent Events.

Each request returns a slice of the stream; the next one continues after its last event id.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from cli.api import Api
from cli.checks.frames import is_frame
from cli.errors import Unreachable
from cli.reducer import Frame
from cli.watch import Clock, ConnectionLost, MonotonicClock

RETRY_SECONDS = 1.0  # after a slice that names no `retry` or brings nothing new


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a slice, or only a `retry` time in seconds."""

    id: str | None = None
    data: str | None = None
    retry: float | None = None


class SseConnection:
    """Fetch slice after slice."""

    def __init__(self, api: Api, job_id: str, clock: Clock | None = None) -> None:
        self._api = api
        self._path = f"/jobs/{job_id}/stream"
        self._clock = clock or MonotonicClock()
        self._last_id: str | None = None
        self._frames: deque[Frame] = deque()
        self._next_fetch_at = 0.0

    def subscribe(self, attempt: int, offset: int) -> None:
        self._last_id = f"{attempt}:{offset}" if attempt else None
        self._frames.clear()

    def receive(self, timeout: float) -> Frame | None:
        """May take longer than `timeout`: the API holds a request for up to 20 s."""
        if not self._frames:
            delay = self._next_fetch_at - self._clock.now()
            if delay > timeout:
                self._clock.sleep(timeout)
                return None
            if delay > 0:
                self._clock.sleep(delay)
            self._fetch()
        return self._frames.popleft() if self._frames else None

    def ping(self) -> None:
        """Do nothing: no connection stays open between requests."""

    def close(self) -> None:
        self._frames.clear()

    def _fetch(self) -> None:
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": self._last_id} if self._last_id else {})
        try:
            response = self._api.request("GET", self._path, headers=headers)
        except Unreachable as error:
            raise ConnectionLost(str(error)) from error
        if response.status_code == 204:
            raise ConnectionLost("the stream has ended")  # but the text is not complete, so reconnect from the position
        retry = RETRY_SECONDS
        for event in parse_events(response.text):
            retry = retry if event.retry is None else event.retry
            self._last_id = event.id or self._last_id
            if event.data is not None:
                self._frames.append(_frame(event.data))
        if all(frame.get("event") == "connected" for frame in self._frames):
            retry = max(retry, RETRY_SECONDS)  # nothing happened: do not poll faster than once a second
        self._next_fetch_at = self._clock.now() + retry


def _frame(data: str) -> Frame:
    """Raises ConnectionLost if it is none."""
    try:
        frame = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ConnectionLost("what was received is no frame of a job") from error
    if not is_frame(frame):
        raise ConnectionLost("what was received is no frame of a job")
    return dict(frame)


def parse_events(body: str) -> Iterator[Event]:
    """Yield the events of one slice.

    An event without its closing empty line was cut off and is dropped.
    """
    event_id, data, retry = None, list[str](), None
    for line in body.replace("\r\n", "\n").split("\n")[:-1]:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "" if not line:
                if data or retry is not None:
                    yield Event(event_id if data else None, "\n".join(data) if data else None, retry)
                event_id, data, retry = None, [], None
            case "id":
                event_id = value
            case "data":
                data.append(value)
            case "retry" if value.isascii() and value.isdigit() and len(value) < 10:
                retry = int(value) / 1000
