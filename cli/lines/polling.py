"""Frames made of ordinary requests: the transcript by offset, and the record's progress. It works wherever the API does."""

from __future__ import annotations

from collections import deque

from cli.api import Api
from cli.errors import Unreachable
from cli.reducer import TERMINAL, Frame
from cli.watch import Clock, LineBroken, WallClock

HOLD = 10  # seconds that the API may keep a request waiting for something new
PAUSE = 1.0  # between polls that bring nothing, should the API answer at once


class PollingLine:
    """Two requests a round: what text there is, then what state."""

    def __init__(self, api: Api, job_id: str, clock: Clock | None = None) -> None:
        self._api = api
        self._job_id = job_id
        self._clock = clock or WallClock()
        self._attempt = self._offset = 0
        self._frames: deque[Frame] = deque()
        self._not_before = 0.0

    def subscribe(self, attempt: int, offset: int) -> None:
        self._attempt, self._offset = attempt, offset
        self._frames.clear()

    def receive(self, timeout: float) -> Frame | None:
        if not self._frames:
            self._clock.sleep(max(0.0, min(timeout, self._not_before - self._clock.now())))
            try:
                self._poll()
            except Unreachable as problem:
                raise LineBroken(str(problem)) from problem
        return self._frames.popleft() if self._frames else None

    def ping(self) -> None:
        """Nothing is kept open."""

    def close(self) -> None:
        self._frames.clear()

    def _poll(self) -> None:
        text = self._api.get(f"/jobs/{self._job_id}/text", attempt=self._attempt or None, offset=self._offset, wait=HOLD)
        state = self._api.get(f"/jobs/{self._job_id}/progress")
        if state["attempt"] > text["attempt"]:  # a text is asked for by its attempt, so nothing there tells that another began
            self._attempt, self._offset = state["attempt"], 0
        else:
            self._attempt, self._offset = text["attempt"], text["next_offset"]
        if text["text"]:
            self._frames.append({**text, "event": "tokens", "job_id": self._job_id})
        else:
            self._not_before = self._clock.now() + PAUSE
        self._frames.append({**state, "event": "progress", "job_id": self._job_id})
        if text["done"] and state["status"] in TERMINAL and state["attempt"] == text["attempt"]:
            # Its text is read to the end, so the position there is the length.
            self._frames.append({**self._frames[-1], "event": f"job_{state['status']}", "length": text["next_offset"]})
