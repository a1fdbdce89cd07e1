"""One background response as OpenAI has it: it writes itself in its own time, and keeps every event under its number.

The objects are those of the SDK (`openai/types/responses`). How OpenAI refuses is in the words that people report.
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
    """What becomes of a response whose prompt contains `prompt` and whose model is `model`, where these are given; `times` times.

    deltas, every: the text, and the seconds before each piece of it; refusal: it is one.
    queued: seconds before it begins.
    fails: the error it ends with, `{"code", "message"}`; incomplete: the reason for which it is cut short.
    refuses: the status with which its creation is refused; refuses_resume: that of coming back to its stream.
    breaks: after how many events the first, second ... connection is reset; stalls: falls silent. 0, or an entry too few: never.
    replays: other deltas, for those who come back.
    cancels_silently: a stream of it just ends when it is cancelled. Otherwise with `response.failed`.
    """

    deltas: list[str] = field(default_factory=lambda: ["Hello", ", ", "world"])
    every: float = 0.02
    refusal: bool = False
    queued: float = 0.0
    fails: dict[str, str] | None = None
    incomplete: str | None = None
    refuses: int | None = None
    refuses_resume: int | None = None
    breaks: list[int] = field(default_factory=list)
    stalls: list[int] = field(default_factory=list)
    replays: list[str] | None = None
    cancels_silently: bool = False
    prompt: str = ""
    model: str = ""
    times: int = 1_000_000

    def fits(self, asked: dict[str, Any]) -> bool:
        return self.times > 0 and self.prompt in str(asked.get("input")) and self.model in ("", asked.get("model"))


class LiveResponse:
    """`read`: somebody was told how it ended. Made on a running loop, on which it goes on until it ends or is cancelled."""

    def __init__(self, response_id: str, asked: dict[str, Any], scenario: Scenario) -> None:
        self.id = response_id
        self.asked = asked
        self.scenario = scenario
        self.events: list[dict[str, Any]] = []
        self.status = "queued" if scenario.queued else "in_progress"
        self.created_at = time.time()
        self.ended_at: float | None = None
        self.connections = 0
        self.read = False
        self.produced = 0
        self._part = Part(f"msg_{response_id}", refusal=scenario.refusal)
        self._more = asyncio.Event()
        self._life = asyncio.create_task(self._live())

    async def cancel(self) -> None:
        """Stop it; it keeps nothing of its text. One that has ended stays as it is."""
        self._life.cancel()
        await asyncio.wait([self._life])
        if self.status not in FINISHED:
            self._end("cancelled", None if self.scenario.cancels_silently else "response.failed")

    async def follow(self, after: int) -> AsyncIterator[dict[str, Any]]:
        """The events numbered above `after`, each as soon as it is there, until the response has ended."""
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
        """An event as those who come back get it."""
        others, index = self.scenario.replays, event["sequence_number"] - self._first_delta
        if others is None or not event["type"].endswith(".delta") or not 0 <= index < len(others):
            return event
        return {**event, "delta": others[index]}

    def usage(self) -> dict[str, Any]:
        """What it costs by now."""
        read = max(1, len(str(self.asked.get("input"))) // 4)
        return {
            "input_tokens": read,
            "input_tokens_details": {"cache_write_tokens": 0, "cached_tokens": 0},
            "output_tokens": self.produced,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": read + self.produced,
        }

    def snapshot(self) -> dict[str, Any]:
        """The response as it is now. It shows its output only when it has ended, and none if it was cancelled."""
        written = self.status in FINISHED - {"cancelled"} and self.produced > 0
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created_at,
            "completed_at": self.ended_at if self.status == "completed" else None,
            "status": self.status,
            "background": True,
            "error": self.scenario.fails if self.status == "failed" else None,
            "incomplete_details": {"reason": self.scenario.incomplete} if self.status == "incomplete" else None,
            "instructions": self.asked.get("instructions"),
            "metadata": self.asked.get("metadata") or {},
            "model": f"{self.asked.get('model')}-2024-07-18",
            "output": [self._part.item("completed" if self.status == "completed" else "incomplete")] if written else [],
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

    async def _live(self) -> None:
        self._emit("response.created", response=self.snapshot())
        if self.scenario.queued:
            self._emit("response.queued", response=self.snapshot())
            await asyncio.sleep(self.scenario.queued)
            self.status = "in_progress"
        self._emit("response.in_progress", response=self.snapshot())
        await self._write()
        last = "failed" if self.scenario.fails else "incomplete" if self.scenario.incomplete else "completed"
        self._end(last, f"response.{last}")

    async def _write(self) -> None:
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
        """The status and its event at once: whoever follows sees both or neither."""
        self.status, self.ended_at = status, time.time()
        if last is not None:
            self._emit(last, response=self.snapshot())
        self._more.set()

    def _emit(self, kind: str, **fields: Any) -> None:
        self.events.append({"type": kind, "sequence_number": len(self.events), **fields})
        self._more.set()
        self._more = asyncio.Event()


class Part:
    """The one message of a response and its one part: a text or a refusal."""

    def __init__(self, item_id: str, *, refusal: bool) -> None:
        self._id = item_id
        self._said = ""
        self._name = "refusal" if refusal else "text"
        self._kind = "refusal" if refusal else "output_text"
        self._more: dict[str, Any] = {} if refusal else {"logprobs": []}
        self._where = {"item_id": item_id, "output_index": 0, "content_index": 0}

    def item(self, status: str, *, empty: bool = False) -> dict[str, Any]:
        content = [] if empty else [self._content(self._said)]
        return {"id": self._id, "type": "message", "role": "assistant", "status": status, "content": content}

    def beginning(self) -> Iterator[tuple[str, dict[str, Any]]]:
        yield "response.output_item.added", {"output_index": 0, "item": self.item("in_progress", empty=True)}
        yield "response.content_part.added", {**self._where, "part": self._content("")}

    def delta(self, text: str) -> tuple[str, dict[str, Any]]:
        self._said += text
        return f"response.{self._kind}.delta", {**self._where, **self._more, "delta": text}

    def ending(self) -> Iterator[tuple[str, dict[str, Any]]]:
        yield f"response.{self._kind}.done", {**self._where, **self._more, self._name: self._said}
        yield "response.content_part.done", {**self._where, "part": self._content(self._said)}
        yield "response.output_item.done", {"output_index": 0, "item": self.item("completed")}

    def _content(self, said: str) -> dict[str, Any]:
        extra: dict[str, Any] = {} if self._kind == "refusal" else {"annotations": [], "logprobs": []}
        return {"type": self._kind, self._name: said, **extra}
