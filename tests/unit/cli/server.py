"""A fake server for the command line: HTTP and WebSocket, in threads, on free ports.

It simulates one job whose text grows by a piece every `pace` seconds. Tests choose what goes wrong.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import Server as SocketServer
from websockets.sync.server import ServerConnection, serve

from cli.main import main

Json = dict[str, Any]

KEY = "hr_secret"
JOB = "job_01JABCDEFGHJKMNPQRSTVWXYZ0"


@dataclass
class Answer:
    """The response of a route: a status, headers, and JSON or text."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


class FakeServer:
    """Streams `text` in pieces of three characters.

    `planned` answers of a route come first, in order.
    """

    def __init__(self, text: str = "Hello \U0001f600 world", pace: float = 0.0, parsed: Any = None, status: str = "completed") -> None:
        self.text, self.pace, self.parsed, self.status = text, pace, parsed, status
        self.requests: list[tuple[str, str, Json, Any]] = []
        self.planned: dict[str, list[Answer]] = {}
        self.queries: list[Json] = []
        self.subscriptions: list[Json] = []
        self.socket_refuses_header = False
        self.drop_socket_after: int | None = None
        self.lose_frames: set[int] = set()
        self.system: Json = {"success": True, "status": "healthy", "parts": {"queues": {"status": "healthy"}}, "issues": []}
        self.circuits: list[Json] = []
        self.started = time.monotonic()
        self._http: ThreadingHTTPServer | None = None
        self._sockets: SocketServer | None = None

    def __enter__(self) -> FakeServer:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                fake.handle(self)

            do_POST = do_DELETE = do_PATCH = do_PUT = do_GET  # noqa: N815  as above

            def log_message(self, *_: Any) -> None:
                """Write no log."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._sockets = serve(self.socket, "127.0.0.1", 0, process_request=self._admit)
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        threading.Thread(target=self._sockets.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._http is not None
        assert self._sockets is not None
        self._http.shutdown()
        self._http.server_close()
        self._sockets.shutdown()

    @property
    def api_url(self) -> str:
        assert self._http is not None
        return f"http://127.0.0.1:{self._http.server_address[1]}/api"

    @property
    def ws_url(self) -> str:
        assert self._sockets is not None
        return f"ws://127.0.0.1:{self._sockets.socket.getsockname()[1]}/api"

    def plan(self, route: str, *answers: Answer) -> None:
        """Set the next answers of a route such as `GET /jobs`. Afterwards it answers as usual."""
        self.planned.setdefault(route, []).extend(answers)

    def sent(self, route: str) -> list[tuple[str, str, Json, Any]]:
        """The requests to a route: method, path, headers and body of each."""
        return [request for request in self.requests if f"{request[0]} {request[1]}" == route]

    # HTTP

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        url = urlsplit(request.path)
        path = url.path.removeprefix("/api")
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        is_json = request.headers.get("Content-Type", "application/json") == "application/json"
        sent = (json.loads(body) if is_json else body) if body else None
        self.requests.append((request.command, path, dict(request.headers), sent))
        self.queries.append({name: values[0] for name, values in parse_qs(url.query).items()})
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        answer = self.answer(f"{request.command} {path}", query, dict(request.headers))
        text = answer.body if isinstance(answer.body, str) else json.dumps(answer.body) if answer.body is not None else ""
        content = text.encode()
        request.send_response(answer.status)
        for name, value in {"X-Request-Id": "req_1", **answer.headers, "Content-Length": str(len(content))}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(content)

    def answer(self, route: str, query: Json, headers: Json) -> Answer:
        if self.planned.get(route):
            return self.planned[route].pop(0)
        if not route.endswith(("/health", "/_llmock/scenario")) and headers.get("Authorization") != f"Bearer {KEY}":
            return error(401, "unauthenticated", "This key is not known.")
        links = {"websocket": self.ws_url}
        match route:
            case "GET /_llmock/scenario":
                return Answer(body={"pending": []})
            case "POST /_llmock/scenario":
                return Answer(201, {"queued": 2, "pending": 2})
            case "GET /health":
                return Answer(body={"success": True, "status": "ok"})
            case "GET /health/system":
                return Answer(body=self.system)
            case "GET /circuits":
                return Answer(body={"data": self.circuits, "next_cursor": None})
            case "GET /me":
                return Answer(body={"success": True, "tenant": "acme", "user": "ann", "role": "user", "limits": {"queued": 100}})
            case "GET /job-types":
                return Answer(body={"data": [{"name": "general", "default_model": "gpt-4o-mini", "description": "Anything."}]})
            case "POST /jobs":
                self.started = time.monotonic()
                return Answer(202, {"success": True, "job_id": JOB, "status": "queued", "queue": "general:high", "links": links})
            case "POST /jobs/estimate":
                return Answer(body={"success": True, "estimated_cost": "0.001200", "currency": "USD", "estimated_duration_seconds": 8})
            case "POST /stream-tickets":
                return Answer(body={"success": True, "ticket": "tk_1"})
            case "GET /jobs":
                return Answer(body={"data": [self.record(links)], "next_cursor": None})
        if not route.split(" ")[1].startswith(f"/jobs/{JOB}"):
            return error(404, "job_not_found", f"No job {route.split('/')[-1]} here.")
        return self.job_answer(route.removesuffix("/").split(JOB)[1], query, headers, links)

    def job_answer(self, subpath: str, query: Json, headers: Json, links: Json) -> Answer:
        match subpath:
            case "":
                return Answer(body=self.record(links))
            case "/status" | "/progress":
                return Answer(body=self.state(), headers={"ETag": '"1"'})
            case "/result" if not self.ended:
                return Answer(202, self.state())
            case "/result":
                return Answer(body=self.result())
            case "/text":
                offset = int(query.get("offset", 0))
                written = self.written
                rest = written[offset : offset + 6]
                done = self.ended and offset + len(rest) == len(self.text)
                return Answer(body={"attempt": 1, "offset": offset, "text": rest, "next_offset": offset + len(rest), "done": done})
            case "/stream":
                return self.slice(headers.get("Last-Event-ID", ""))
            case "/cancel" | "/retry":
                return Answer(202, {"success": True, "job_id": JOB, "status": "processing"})
        return error(404, "not_found", "No such route.")

    def slice(self, last_id: str) -> Answer:
        if last_id.endswith(":end"):
            return Answer(204)
        offset = int(last_id.split(":")[1]) if last_id else 0
        text = self.written[offset : offset + 4]
        events = ["retry: 10\n"]
        if text:
            events.append(sse(f"1:{offset + len(text)}", self.tokens(offset, text)))
        elif self.ended:
            events.append(sse(f"1:{offset}:end", self.end()))
        return Answer(body="\n".join(events) + "\n", headers={"Content-Type": "text/event-stream"})

    # WebSocket

    def _admit(self, connection: ServerConnection, request: Any) -> Any:
        ticket = "ticket=tk_1" in request.path
        if ticket or (request.headers.get("Authorization") == f"Bearer {KEY}" and not self.socket_refuses_header):
            return None
        return connection.respond(403, "no")

    def socket(self, connection: ServerConnection) -> None:
        try:
            for message in connection:
                command = json.loads(message)
                if command["action"] == "subscribe":
                    self.subscriptions.append(command)
                    self.stream(connection, command.get("offset", 0))
        except ConnectionClosed:
            return

    def stream(self, connection: ServerConnection, offset: int) -> None:
        def send(frame: Json) -> None:
            connection.send(json.dumps(frame))

        send({**self.frame("connected"), "status": "processing", "offset": offset})
        first = len(self.subscriptions) == 1
        for number, at in enumerate(range(offset, len(self.text), 3)):
            time.sleep(self.pace)
            if first and self.drop_socket_after == number:
                connection.close()
                return
            if not (first and number in self.lose_frames):
                send(self.tokens(at, self.text[at : at + 3]))
            if number % 5 == 0:
                send({**self.frame("progress"), **self.state(at), "version": 3})
        send(self.end())

    # Frames and JSON objects

    @property
    def ended(self) -> bool:
        return len(self.written) == len(self.text)

    @property
    def written(self) -> str:
        if not self.pace:
            return self.text
        return self.text[: 3 * int((time.monotonic() - self.started) / self.pace)]

    def frame(self, event: str) -> Json:
        return {"event": event, "job_id": JOB, "attempt": 1, "version": 2, "at": "2026-01-01T00:00:00.000Z"}

    def tokens(self, offset: int, text: str) -> Json:
        percentage = round(100 * (offset + len(text)) / len(self.text), 1)
        return {**self.frame("tokens"), "offset": offset, "text": text, "tokens_received": offset // 3, "progress_percentage": percentage}

    def end(self) -> Json:
        return {**self.frame(f"job_{self.status}"), "version": 9, "status": self.status, "length": len(self.text)}

    def state(self, at: int | None = None) -> Json:
        ended = at is None and self.ended
        return {
            "success": True,
            "job_id": JOB,
            "status": self.status if ended else "processing",
            "run": 1,
            "attempt": 1,
            "version": 9 if ended else 3,
            "stage": None if ended else "generation",
            "progress_percentage": 100 if ended else 100 * (at or 0) / len(self.text),
            "stages": [{"name": "generation", "status": "completed", "duration_seconds": 1.5}],
            "milestones": [{"name": "high finding", "description": "A finding.", "progress_at_milestone": 40}],
            "tokens_received": (at or 0) // 3,
            "tokens_per_second": 48.0,
        }

    def record(self, links: Json) -> Json:
        created = "2026-01-01T00:00:00.000Z"
        more = {"job_type": "general", "priority": "high", "created_at": created, "cost": "0.001200", "currency": "USD", "links": links}
        return {**self.state(), **more}

    def result(self) -> Json:
        failed = self.status == "failed"
        return {
            "success": True,
            "job_id": JOB,
            "status": self.status,
            "output": self.text,
            "parsed": self.parsed,
            "model": "gpt-4o-mini",
            "usage": {"input_tokens": 20, "output_tokens": 42, "total_tokens": 62},
            "cost": "0.001200",
            "currency": "USD",
            "timings": {"queued": 0.2, "time_to_first_token": 0.6, "processing": 8.0, "total": 8.4, "tokens_per_second": 48.0},
            "error": {"code": "stream_cut", "message": "The stream was cut.", "suggestion": "Retry it."} if failed else None,
        }


def error(status: int, code: str, message: str, *details: Json, **headers: str) -> Answer:
    return Answer(
        status, {"success": False, "error": {"code": code, "message": message, "request_id": "req_9", "details": list(details)}}, headers
    )


def sse(identity: str, frame: Json) -> str:
    return f"id: {identity}\nevent: {frame['event']}\ndata: {json.dumps(frame)}\n"


def run(*arguments: str) -> int:
    """Run a command and return its exit code."""
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    code = ended.value.code
    return code if isinstance(code, int) else 0
