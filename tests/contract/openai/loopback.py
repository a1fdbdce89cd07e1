"""A server on the loopback that sends exactly the bytes that a test gives it, valid or not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any


@dataclass(frozen=True)
class Pause:
    seconds: float


class Abort:
    """Reset the connection in the middle of a chunk."""


Step = bytes | Pause | Abort


@dataclass
class Answer:
    """One response. Each of `steps` is sent as one chunk. `whole=False` leaves out the end of the body."""

    steps: list[Step] = field(default_factory=list)
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    whole: bool = True


def event(kind: str, **fields: Any) -> bytes:
    """Encode an event as OpenAI does."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def delta(text: str, number: int = 0) -> bytes:
    return event("response.output_text.delta", delta=text, sequence_number=number, item_id="msg_1", logprobs=[])


CREATED = event(
    "response.created", sequence_number=0, response={"id": "resp_1", "model": "gpt-4o-mini-2024-07-18", "status": "in_progress"}
)
USAGE = {
    "input_tokens": 12,
    "input_tokens_details": {"cached_tokens": 4},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 2},
    "total_tokens": 19,
}


def completed(**fields: Any) -> bytes:
    response = {"id": "resp_1", "model": "gpt-4o-mini-2024-07-18", "status": "completed", "output": [], "usage": USAGE}
    return event("response.completed", response={**response, **fields})


def refused(status: int, *, headers: Mapping[str, str] | None = None, **error: Any) -> Answer:
    return Answer([json.dumps({"error": error}).encode()], status, {"content-type": "application/json", **(headers or {})})


class Loopback:
    """Sends `answers` in turn, and the last one again and again. Records requests, connections and hang-ups."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.connections = 0
        self.hung_up = asyncio.Event()
        self._serving: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Loopback:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._serving.add(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while await self._one(reader, writer):
                continue
        except (ConnectionError, asyncio.IncompleteReadError):
            self.hung_up.set()
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        header = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in header.split("\r\n")[1:-2])}
        self.headers.append(headers)
        self.requests.append(json.loads(await reader.readexactly(int(headers.get("content-length", 0))) or b"{}"))
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        given = {"content-type": "text/event-stream", "x-request-id": "req_1", **answer.headers, "transfer-encoding": "chunked"}
        lines = [f"HTTP/1.1 {answer.status} X", *(f"{name}: {value}" for name, value in given.items())]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        gone = asyncio.create_task(reader.read(1))  # the client sends nothing more, so this ends only when it hangs up
        for step in answer.steps:
            if not await self._take(step, writer, gone):
                return False
        if answer.whole:
            writer.write(b"0\r\n\r\n")
            await writer.drain()
        else:
            return False
        gone.cancel()
        await asyncio.wait([gone])
        return not gone.done() or gone.cancelled()

    async def _take(self, step: Step, writer: asyncio.StreamWriter, gone: asyncio.Task[bytes]) -> bool:
        if isinstance(step, Abort):
            writer.write(b"ff\r\nhalf a chu")
            await writer.drain()
            writer.transport.abort()
            return False
        if isinstance(step, Pause):
            await asyncio.wait([gone], timeout=step.seconds)
        else:
            writer.write(b"%x\r\n%s\r\n" % (len(step), step))
            await writer.drain()
            await asyncio.sleep(0)
        if gone.done():
            self.hung_up.set()
            return False
        return True
