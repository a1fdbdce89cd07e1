"""A stand-in for OpenAI's background responses, which no emulator has. They run without a listener.

    with BackgroundOpenAI(Scenario(deltas=["Hel", "lo"])) as openai:
        OpenAIResponses(lambda: Credentials("key", openai.url))
        ...
    assert openai.verdict()["ok"]

A scenario with `foreground` answers plain streams, too, such as those of one prompt that fails.

As a process, in front of a server that answers all other requests (`--upstream`):

    python -m tests.kit.background_openai --port 9191 --upstream http://127.0.0.1:9190

Tests in other processes use `POST /_standin/scenarios` (the fields of a `Scenario`; the last one
that matches a request is used), `POST /_standin/settings` (the fields of `Settings`), `POST
/_standin/reset`, `GET /_standin/verdict` and `GET /_standin/requests`.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from tests.kit.live_response import FINISHED, LiveResponse, Scenario
from tests.kit.tiny_http import Connection, HttpError, Request, read_request


@dataclass(frozen=True)
class Settings:
    """Limits of the stand-in."""

    streams_for: float = 300.0  # seconds after its creation in which the stream of a response can be resumed
    keeps_for: float = 600.0  # seconds after its end until a response is deleted
    keys: tuple[str, ...] = ()  # the valid keys; empty: every key is valid


class BackgroundOpenAI:
    """The server, on its own thread. Its attributes may be read from any thread."""

    def __init__(self, *scenarios: Scenario, upstream: str | None = None, host: str = "127.0.0.1", port: int = 0, **settings: Any) -> None:
        self._upstream = urlsplit(upstream) if upstream else None
        self._host, self._port = host, port
        self._connections: set[asyncio.Task[None]] = set()
        self._ready = threading.Event()
        self.settings = Settings(**settings)
        self.scenarios = list(scenarios)
        self.reset()

    def reset(self) -> None:
        """Delete what was recorded. Running responses continue, but can no longer be retrieved."""
        self.responses: dict[str, LiveResponse] = {}
        self.counts: Counter[str] = Counter()
        self.requests: list[dict[str, Any]] = []

    # ---- for tests

    @property
    def url(self) -> str:
        return f"http://{self._host}:{self._port}/v1"

    def verdict(self) -> dict[str, Any]:
        """Return the responses, the requests for them and their usage.

        `ok` is true if the end of every response was read, or the response was cancelled.
        `unheeded` lists the others, `left` those that were not deleted.
        """
        created = list(self.responses.values())
        unheeded = [each.id for each in created if not each.read and each.status != "cancelled"]
        return {
            "ok": not unheeded,
            "unheeded": unheeded,
            "running": [each.id for each in created if each.status not in FINISHED],
            "counts": dict(self.counts),
            "charged": {name: sum(each.usage()[name] for each in created) for name in ("input_tokens", "output_tokens")},
            "left": [each.id for each in created if not each.deleted],
            "responses": [{"id": each.id, "status": each.status, "read": each.read, **each.usage()} for each in created],
        }

    def __enter__(self) -> BackgroundOpenAI:
        self._thread = threading.Thread(target=asyncio.run, args=(self.serve(),), daemon=True)
        self._thread.start()
        if not self._ready.wait(10):
            raise RuntimeError("the stand-in did not start")
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def serve(self) -> None:
        """Serve until `_stop` is set."""
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._ids = itertools.count(1)
        server = await asyncio.start_server(self._connected, self._host, self._port)
        self._port = server.sockets[0].getsockname()[1]
        self._ready.set()
        try:
            await self._stop.wait()
        finally:
            server.close()
            for task in self._connections:
                task.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)

    # ---- requests

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve_one(Connection(reader, writer)))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve_one(self, connection: Connection) -> None:
        try:
            while (request := await read_request(connection.reader)) is not None:
                try:
                    if not await self._answer(request, connection):
                        return
                except HttpError as error:
                    await connection.answer(error.status, {"error": error.body})
        except ConnectionError:
            return
        finally:
            connection.writer.close()

    async def _answer(self, request: Request, connection: Connection) -> bool:
        """Answer one request. Return False if the connection cannot be used again."""
        path = request.path
        if path.startswith("/_standin/"):
            await connection.answer(200, self._admin(request))
            return True
        is_own = path.startswith("/v1/responses/") or (path == "/v1/responses" and self._answers(request.json))
        if not is_own:
            await self._proxy(request, connection)
            return False
        return await self._respond(request, path, connection)

    def _answers(self, body: dict[str, Any]) -> bool:
        """Whether a response is created here, and not by the upstream."""
        return body.get("background") is True or self._scenario(body) is not None

    def _scenario(self, body: dict[str, Any]) -> Scenario | None:
        return next((each for each in reversed(self.scenarios) if each.matches(body)), None)

    async def _respond(self, request: Request, path: str, connection: Connection) -> bool:
        self.requests.append({"method": request.method, "path": path, "query": request.query, "body": request.json})
        self._check_key(request)
        if path == "/v1/responses":
            return await self._create(request, connection)
        response_id, _, verb = path.removeprefix("/v1/responses/").partition("/")
        if (request.method, verb) == ("POST", "cancel"):
            return await self._cancel(response_id, connection)
        if (request.method, verb) == ("DELETE", ""):
            return await self._delete(response_id, connection)
        if (request.method, verb) == ("GET", ""):
            return await self._retrieve(response_id, request, connection)
        raise HttpError(404, f"Invalid URL ({request.method} {path})")

    def _check_key(self, request: Request) -> None:
        key = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self.settings.keys and key not in self.settings.keys:
            raise HttpError(401, "Incorrect API key provided.", "invalid_api_key")

    async def _create(self, request: Request, connection: Connection) -> bool:
        body = request.json
        if body.get("background") is True and body.get("store") is False:
            raise HttpError(400, "Background mode requires 'store' to be true.", param="store")
        scenario = self._scenario(body) or Scenario()
        scenario.times -= 1
        if scenario.refuses is not None:
            raise HttpError(scenario.refuses, "The scenario refuses this.")
        self.counts["created"] += 1
        response = LiveResponse(f"resp_standin_{next(self._ids)}", body, scenario)
        self.responses[response.id] = response
        if body.get("stream"):
            return await self._stream(response, -1, connection)
        await connection.answer(200, response.snapshot())
        return True

    async def _retrieve(self, response_id: str, request: Request, connection: Connection) -> bool:
        streamed = request.query.get("stream", "false").lower() == "true"
        self.counts["reattached" if streamed else "retrieved"] += 1
        response = self._find(response_id)
        if streamed:
            self._check_streamable(response)
            return await self._stream(response, int(request.query.get("starting_after", -1)), connection)
        response.read = response.read or response.status in FINISHED
        await connection.answer(200, response.snapshot())
        return True

    async def _cancel(self, response_id: str, connection: Connection) -> bool:
        self.counts["cancelled"] += 1
        response = self._find(response_id)
        await response.cancel()
        if response.status != "cancelled":
            raise HttpError(400, f"Cannot cancel a {response.status} response.", param="response_id")
        await connection.answer(200, response.snapshot())
        return True

    async def _delete(self, response_id: str, connection: Connection) -> bool:
        self.counts["deleted"] += 1
        response = self._find(response_id)
        response.deleted = True
        await connection.answer(200, {"id": response.id, "object": "response", "deleted": True})
        return True

    def _find(self, response_id: str) -> LiveResponse:
        response = self.responses.get(response_id)
        if (
            response is None
            or response.deleted
            or (response.ended_at is not None and time.time() > response.ended_at + self.settings.keeps_for)
        ):
            raise HttpError(404, f"Response with id '{response_id}' not found.")
        return response

    def _check_streamable(self, response: LiveResponse) -> None:
        if response.scenario.refuses_resume is not None:
            raise HttpError(response.scenario.refuses_resume, "The scenario refuses this.")
        if not response.request.get("stream"):
            raise HttpError(400, "This response cannot be streamed because it was not created with stream=true.", param="stream")
        if time.time() > response.created_at + self.settings.streams_for:
            raise HttpError(400, "This response can no longer be streamed because it is more than 5 minutes old.")

    # ---- streams

    async def _stream(self, response: LiveResponse, after: int, connection: Connection) -> bool:
        """Send the events after `after` until the end, or until the client disconnects.

        The client sends nothing more on this connection, so a completed read means that it
        disconnected.
        """
        number, response.connections = response.connections, response.connections + 1
        await connection.begin_events()
        disconnected = asyncio.create_task(connection.reader.read(1))
        sending = asyncio.create_task(self._send(response, after, number, connection))
        try:
            await asyncio.wait({disconnected, sending}, return_when=asyncio.FIRST_COMPLETED)
            return sending.done() and sending.result() and not disconnected.done()
        finally:
            disconnected.cancel()
            sending.cancel()
            await asyncio.gather(disconnected, sending, return_exceptions=True)

    async def _send(self, response: LiveResponse, after: int, number: int, connection: Connection) -> bool:
        breaks, stalls = (dict(enumerate(each)).get(number, 0) for each in (response.scenario.breaks, response.scenario.stalls))
        sent = 0
        async for event in response.follow(after):
            await connection.event(response.replayed(event) if number else event)
            sent += 1
            if sent == breaks:
                connection.abort()
                return False
            if sent == stalls:
                await asyncio.Event().wait()
        response.read = True
        await connection.end_events()
        return True

    # ---- other requests

    def _admin(self, request: Request) -> Any:
        try:
            match request.method, request.path.removeprefix("/_standin/"):
                case "POST", "scenarios":
                    self.scenarios.append(Scenario(**request.json))
                case "POST", "settings":
                    self.settings = replace(self.settings, **request.json)
                case "POST", "reset":
                    self.scenarios.clear()
                    self.reset()
                case "GET", "verdict":
                    return self.verdict()
                case "GET", "requests":
                    return {"requests": self.requests}
                case _:
                    raise HttpError(404, f"The stand-in has no {request.method} {request.path}.")
        except TypeError as exc:
            raise HttpError(400, str(exc)) from exc
        return {}

    async def _proxy(self, request: Request, connection: Connection) -> None:
        """Forward a request to the upstream and stream its response back.

        A disconnect on either side ends both.
        """
        if self._upstream is None:
            raise HttpError(404, f"The stand-in knows only responses in the background, and has no upstream for {request.target}.")
        port = self._upstream.port or (443 if self._upstream.scheme == "https" else 80)
        try:
            reader, writer = await asyncio.open_connection(self._upstream.hostname, port, ssl=self._upstream.scheme == "https" or None)
        except OSError as exc:
            raise HttpError(502, f"The stand-in's upstream does not answer: {exc}") from exc
        kept = [line for line in request.head if not line.lower().startswith(("host:", "connection:"))]
        writer.write("\r\n".join([*kept, f"Host: {self._upstream.netloc}", "Connection: close", "", ""]).encode("latin-1") + request.body)
        copying = asyncio.create_task(_copy(reader, connection.writer))
        disconnected = asyncio.create_task(connection.reader.read(1))
        try:
            await asyncio.wait({copying, disconnected}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            copying.cancel()
            disconnected.cancel()
            await asyncio.gather(copying, disconnected, return_exceptions=True)
            writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(65_536):
        writer.write(piece)
        await writer.drain()


def main() -> None:
    parser = argparse.ArgumentParser(description="Stand in for OpenAI's background responses.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", help="the server that answers all other requests, such as http://127.0.0.1:9190")
    options = parser.parse_args()
    with suppress(KeyboardInterrupt):
        asyncio.run(BackgroundOpenAI(upstream=options.upstream, host=options.host, port=options.port).serve())


if __name__ == "__main__":
    main()
