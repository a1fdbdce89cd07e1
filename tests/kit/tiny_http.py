"""As much of HTTP/1.1 as a stand-in needs: requests with a length, answers as JSON or as a stream of events."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True)
class Request:
    """`head` are the lines as they came, the first one included."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    head: list[str]

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query))

    @property
    def json(self) -> dict[str, Any]:
        """The body as an object, an empty one if it is none."""
        try:
            said = json.loads(self.body or b"{}")
        except ValueError:
            return {}
        return said if isinstance(said, dict) else {}


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    """The next request of a connection, None when there are no more."""
    try:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    method, target, _ = lines[0].split(" ", 2)
    return Request(method, target, headers, body, lines)


class Refusal(Exception):
    """Answered as an error in OpenAI's shape."""

    def __init__(self, status: int, message: str, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}


class Connection:
    """One client. What is written goes out at once."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def answer(self, status: int, said: Any) -> None:
        data = json.dumps(said).encode()
        self._head(status, "application/json", f"content-length: {len(data)}")
        self.writer.write(data)
        await self.writer.drain()

    async def begin_events(self) -> None:
        self._head(200, "text/event-stream; charset=utf-8", "transfer-encoding: chunked")
        await self.writer.drain()

    async def event(self, event: dict[str, Any]) -> None:
        data = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
        self.writer.write(b"%x\r\n%s\r\n" % (len(data), data))
        await self.writer.drain()

    async def end_events(self) -> None:
        self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()

    def abort(self) -> None:
        """Reset it, with whatever was being said."""
        self.writer.transport.abort()

    def _head(self, status: int, kind: str, *more: str) -> None:
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", f"content-type: {kind}", "x-request-id: req_standin", *more]
        self.writer.write("\r\n".join([*lines, "", ""]).encode())
