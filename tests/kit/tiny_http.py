"""A minimal HTTP/1.1 server for the stand-in, with JSON and event stream responses."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True)
class Request:
    """One request. `head` is the request line and the header lines, unparsed."""

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
        """The body as a JSON object; empty if the body is anything else."""
        try:
            parsed = json.loads(self.body or b"{}")
        except ValueError:
            return {}
        return parsed if isinstance(parsed, dict) else {}


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    """Read the next request of a connection. Return None when the connection has ended."""
    try:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    method, target, _ = lines[0].split(" ", 2)
    return Request(method, target, headers, body, lines)


class HttpError(Exception):
    """Makes the server respond with an error in OpenAI's format."""

    def __init__(self, status: int, message: str, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"message": message, "type": "invalid_request_error", "param": param, "code": code}


class Connection:
    """One client connection. Every write is flushed at once."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def answer(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
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
        """Reset the connection, in the middle of a response too."""
        self.writer.transport.abort()

    def _head(self, status: int, kind: str, *more: str) -> None:
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", f"content-type: {kind}", "x-request-id: req_standin", *more]
        self.writer.write("\r\n".join([*lines, "", ""]).encode())
