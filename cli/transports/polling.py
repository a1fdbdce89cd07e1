"""Frames made from ordinary requests: the transcript by offset and the progress of the job.

Works wherever the API does.
"""

from __future__ import annotations

from collections import deque

from cli.api import Api
from cli.checks.frames import is_frame
from cli.errors import Unreachable
from cli.reducer import TERMINAL, Frame
from cli.watch import Clock, ConnectionLost, MonotonicClock

LONG_POLL_SECONDS = 10  # for which the API may hold a request that has nothing new
POLL_INTERVAL = 1.0  # seconds after a poll without new text, in case the API does not hold requests


class PollingConnection:
    """Poll with two requests a round: the new text, then the progress."""

    def __init__(self, api: Api, job_id: str, clock: Clock | None = None) -> None:
        self._api = api
        self._job_id = job_id
        self._clock = clock or MonotonicClock()
        self._attempt = self._offset = 0
        self._frames: deque[Frame] = deque()
        self._next_poll_at = 0.0

    def subscribe(self, attempt: int, offset: int) -> None:
        self._attempt, self._offset = attempt, offset
        self._frames.clear()

    def receive(self, timeout: float) -> Frame | None:
        if not self._frames:
            self._clock.sleep(max(0.0, min(timeout, self._next_poll_at - self._clock.now())))
            try:
                self._poll()
            except Unreachable as error:
                raise ConnectionLost(str(error)) from error
        return self._frames.popleft() if self._frames else None

    def ping(self) -> None:
        """Do nothing: no connection stays open between requests."""

    def close(self) -> None:
        self._frames.clear()

    def _poll(self) -> None:
        text = self._api.get(f"/jobs/{self._job_id}/text", attempt=self._attempt or None, offset=self._offset, wait=LONG_POLL_SECONDS)
        state = self._api.get(f"/jobs/{self._job_id}/progress")
        if not _are_answers(text, state):
            raise ConnectionLost("the answers are none of a job")
        if state["attempt"] > text["attempt"]:  # the text is that of the requested attempt; only the progress shows a newer one
            self._attempt, self._offset = state["attempt"], 0
        else:
            self._attempt, self._offset = text["attempt"], text["next_offset"]
        if text["text"]:
            self._frames.append({**text, "event": "tokens", "job_id": self._job_id})
        else:
            self._next_poll_at = self._clock.now() + POLL_INTERVAL
        self._frames.append({**state, "event": "progress", "job_id": self._job_id})
        if text["done"] and state["status"] in TERMINAL and state["attempt"] == text["attempt"]:
            # All text has been read, so its end offset is the length.
            self._frames.append({**self._frames[-1], "event": f"job_{state['status']}", "length": text["next_offset"]})


def _are_answers(text: Frame, state: Frame) -> bool:
    """Whether both answers have what is read of them."""
    complete = {"attempt", "text", "next_offset", "done"} <= text.keys() and {"attempt", "status"} <= state.keys()
    counts = (text.get("attempt"), text.get("next_offset"), state.get("attempt"))
    return complete and is_frame({**text, "event": "tokens"}) and is_frame(state) and all(isinstance(count, int) for count in counts)
