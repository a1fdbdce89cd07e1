"""One background response: it produces numbered events at its own pace, and keeps them.

The objects have the shapes of the SDK (`openai/types/responses`). The texts of errors are those
that OpenAI's users report.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

FINISHED = frozenset({"completed", "failed", "incomplete", "cancelled"})


@dataclass
class Scenario:
    """How the stand-in handles the requests that match `prompt` and `model`."""

    deltas: list[str] = field(default_factory=lambda: ["Hello", ", ", "world"])
    every: float = 0.02  # seconds before each delta
    refusal: bool = False  # the text is a refusal
    queued: float = 0.0  # seconds before it starts
    fails: dict[str, str] | None = None  # the error it ends with, `{"code", "message"}`
    incomplete: str | None = None  # the reason why it ends as incomplete
    refuses: int | None = None  # the HTTP status that its creation gets
    refuses_resume: int | None = None  # the HTTP status that resuming its stream gets
    breaks: list[int] = field(default_factory=list)  # by connection: reset after so many events; 0 or no entry: never
    stalls: list[int] = field(default_factory=list)  # by connection: send nothing more after so many events
    replays: list[str] | None = None  # the deltas of a resumed stream, where they differ
    cancels_silently: bool = False  # a cancelled stream ends without `response.failed`
    prompt: str = ""  # matches a request whose input contains this
    model: str = ""  # matches a request with this model; empty: any model
    foreground: bool = False  # applies to plain streams, too, which otherwise the upstream answers
    times: int = 1_000_000  # how many requests it applies to

    def matches(self, request: dict[str, Any]) -> bool:
        applies = self.foreground or request.get("background") is True
        return applies and self.times > 0 and self.prompt in str(request.get("input")) and self.model in ("", request.get("model"))


class LiveResponse:
    """A response that runs as a task of the current loop.

    `read` is true once a client has received its end.
    """

    def __init__(self, response_id: str, request: dict[str, Any], scenario: Scenario) -> None:
        self.id = response_id
        self.request = request
        self.scenario = scenario
        self.events: list[dict[str, Any]] = []
        self.status = "queued" if scenario.queued else "in_progress"
        self.created_at = time.time()
        self.ended_at: float | None = None
        self.connections = 0
        self.read = False
        self.produced = 0
        self.deleted = False
        self._part = Part(f"msg_{response_id}", refusal=scenario.refusal)
        self._more = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    async def cancel(self) -> None:
        """Stop the response and drop its text. A response that has ended does not change."""
        self._task.cancel()
        await asyncio.wait([self._task])
        if self.status not in FINISHED:
            self._end("cancelled", None if self.scenario.cancels_silently else "response.failed")

    async def follow(self, after: int) -> AsyncIterator[dict[str, Any]]:
        """Yield each event above number `after` when it is produced, until the end."""
        at = after + 1
        while True:
            more = self._more
            while at < len(self.events):
                yield self.events[at]
                at += 1
            if self.status in FINISHED:
                return
            await more.wait()

    def replayed(self, event: dict[str, Any]) -> dict[str, Any]:
        """Return the event that a resumed stream has in place of `event`."""
        replays, index = self.scenario.replays, event["sequence_number"] - self._first_delta
        if replays is None or not event["type"].endswith(".delta") or not 0 <= index < len(replays):
            return event
        return {**event, "delta": replays[index]}

    def usage(self) -> dict[str, Any]:
        """Return the usage so far."""
        input_tokens = max(1, len(str(self.request.get("input"))) // 4)
        return {
            "input_tokens": input_tokens,
            "input_tokens_details": {"cache_write_tokens": 0, "cached_tokens": 0},
            "output_tokens": self.produced,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": input_tokens + self.produced,
        }

    def snapshot(self) -> dict[str, Any]:
        """Return the response object.

        It has an output only after its end, and none if it was cancelled.
        """
        has_output = self.status in FINISHED - {"cancelled"} and self.produced > 0
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created_at,
            "completed_at": self.ended_at if self.status == "completed" else None,
            "status": self.status,
            "background": self.request.get("background") is True,
            "error": self.scenario.fails if self.status == "failed" else None,
            "incomplete_details": {"reason": self.scenario.incomplete} if self.status == "incomplete" else None,
            "instructions": self.request.get("instructions"),
            "metadata": self.request.get("metadata") or {},
            "model": f"{self.request.get('model')}-2024-07-18",
            "output": [self._part.item("completed" if self.status == "completed" else "incomplete")] if has_output else [],
            "parallel_tool_calls": True,
            "temperature": 1.0,
            "tool_choice": "auto",
            "tools": [],
            "top_p": 1.0,
            "text": {"format": {"type": "text"}},
            "usage": self.usage() if self.status in FINISHED else None,
        }

    @property
    def _first_delta(self) -> int:
        return 5 if self.scenario.queued else 4

    async def _run(self) -> None:
        self._emit("response.created", response=self.snapshot())
        if self.scenario.queued:
            self._emit("response.queued", response=self.snapshot())
            await asyncio.sleep(self.scenario.queued)
            self.status = "in_progress"
        self._emit("response.in_progress", response=self.snapshot())
        await self._emit_text()
        last = "failed" if self.scenario.fails else "incomplete" if self.scenario.incomplete else "completed"
        self._end(last, f"response.{last}")

    async def _emit_text(self) -> None:
        for kind, fields in self._part.beginning():
            self._emit(kind, **fields)
        for delta in self.scenario.deltas:
            await asyncio.sleep(self.scenario.every)
            self.produced += 1
            kind, fields = self._part.delta(delta)
            self._emit(kind, **fields)
        if self.scenario.fails is None:
            for kind, fields in self._part.ending():
                self._emit(kind, **fields)

    def _end(self, status: str, last: str | None) -> None:
        """Set the status and emit its event together, so that a follower sees both or neither."""
        self.status, self.ended_at = status, time.time()
        if last is not None:
            self._emit(last, response=self.snapshot())
        self._more.set()

    def _emit(self, kind: str, **fields: Any) -> None:
        self.events.append({"type": kind, "sequence_number": len(self.events), **fields})
        self._more.set()
        self._more = asyncio.Event()


class Part:
    """The single message of a response, with a single part: a text or a refusal."""

    def __init__(self, item_id: str, *, refusal: bool) -> None:
        self._id = item_id
        self._text = ""
        self._name = "refusal" if refusal else "text"
        self._kind = "refusal" if refusal else "output_text"
        self._extra: dict[str, Any] = {} if refusal else {"logprobs": []}
        self._position = {"item_id": item_id, "output_index": 0, "content_index": 0}

    def item(self, status: str, *, empty: bool = False) -> dict[str, Any]:
        content = [] if empty else [self._content(self._text)]
        return {"id": self._id, "type": "message", "role": "assistant", "status": status, "content": content}

    def beginning(self) -> Iterator[tuple[str, dict[str, Any]]]:
        yield "response.output_item.added", {"output_index": 0, "item": self.item("in_progress", empty=True)}
        yield "response.content_part.added", {**self._position, "part": self._content("")}

    def delta(self, text: str) -> tuple[str, dict[str, Any]]:
        self._text += text
        return f"response.{self._kind}.delta", {**self._position, **self._extra, "delta": text}

    def ending(self) -> Iterator[tuple[str, dict[str, Any]]]:
        yield f"response.{self._kind}.done", {**self._position, **self._extra, self._name: self._text}
        yield "response.content_part.done", {**self._position, "part": self._content(self._text)}
        yield "response.output_item.done", {"output_index": 0, "item": self.item("completed")}

    def _content(self, text: str) -> dict[str, Any]:
        extra: dict[str, Any] = {} if self._kind == "refusal" else {"annotations": [], "logprobs": []}
        return {"type": self._kind, self._name: text, **extra}
