"""A stand-in for OpenAI's Responses API that misbehaves as providers, proxies and accounts do.

    with QuirkyOpenAI() as openai:
        OpenAIResponses(lambda: Credentials("key", openai.url))

A prompt chooses its quirk by its name in double brackets, such as `[[flagged]] hello`; without one
the answer is `You asked: <prompt>`. `QUIRKS` has those that refuse a request, `STREAMS` those that
answer it in an unusual way. Requests are recorded in `requests`.

As a process, in place of OpenAI (`OPENAI_BASE_URL`): python -m tests.kit.quirky_openai --port 9192
"""

from __future__ import annotations

import argparse
import json
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from tests.kit.rate_meter import RateMeter

PERSON = '{"name": "Ada", "born": 1815}'
PREAMBLE = "I will extract the person now."
WORD_SECONDS = 0.01
SLOW_WORD_SECONDS = 0.5


@dataclass(frozen=True)
class Limit:
    """The rate limit of `[[rpm]]`: this many requests in this many seconds, in a sliding window."""

    requests: int = 20
    seconds: float = 60.0


@dataclass(frozen=True)
class Asked:
    """One request."""

    path: str
    body: Mapping[str, Any]

    @property
    def prompt(self) -> str:
        given = self.body.get("input")
        return given if isinstance(given, str) else json.dumps(given)

    @property
    def quirk(self) -> str:
        found = re.search(r"\[\[([a-z0-9-]+)\]\]", self.prompt)
        return found[1] if found else ""

    @property
    def model(self) -> str:
        return str(self.body.get("model"))

    @property
    def format(self) -> Mapping[str, Any]:
        found = (self.body.get("text") or {}).get("format")
        return found if isinstance(found, dict) else {}


@dataclass(frozen=True)
class Refusal:
    """An answer without a stream. A body that is no bytes is sent as JSON."""

    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"


Quirk = Callable[[Asked], Refusal | None]
Step = bytes | float  # bytes to send, or seconds of silence


def error(message: str, code: Any = None, kind: str = "invalid_request_error", param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def rate_limited(headers: Mapping[str, str], message: str = "Rate limit reached") -> Refusal:
    return Refusal(429, error(message, "rate_limit_exceeded", "requests"), headers)


# ---- what is refused


def _unverified(asked: Asked) -> Refusal | None:
    if not asked.body.get("stream"):
        return None
    return Refusal(400, error("Your organization must be verified to stream this model.", "unsupported_value", param="stream"))


def _json_word(asked: Asked) -> Refusal | None:
    if asked.format.get("type") != "json_object" or "json" in asked.prompt.lower().replace("[[json-word]]", ""):
        return None
    words = "Response input messages must contain the word 'json' in some form to use 'text.format' of type 'json_object'."
    return Refusal(400, error(words, param="input"))


def _strict(asked: Asked) -> Refusal | None:
    if not asked.format.get("strict") or asked.format.get("schema", {}).get("additionalProperties") is False:
        return None
    words = "Invalid schema for response_format 'person': 'additionalProperties' is required to be supplied and to be false."
    return Refusal(400, error(words, "invalid_json_schema", param="text.format.schema"))


def _no_model_access(asked: Asked) -> Refusal:
    return Refusal(403, error(f"Project `proj_fake` does not have access to model `{asked.model}`", "model_not_found"))


def _flagged(asked: Asked) -> Refusal | None:
    if "FLAGGED" not in asked.prompt:
        return None
    return Refusal(403, {"error": {"code": 403, "message": "Your chosen model requires moderation and your input was flagged"}})


def _waf(asked: Asked) -> Refusal | None:
    if "SELECT" not in asked.prompt:
        return None
    page = b"<html><head><title>Attention Required!</title><style>b{}</style></head><body><b>Sorry,</b> you have been blocked</body></html>"
    return Refusal(403, page, content_type="text/html")


def _too_large(_: Asked) -> Refusal:
    words = (
        "Request too large for gpt-4o-mini on tokens per min (TPM): Limit 30000, Requested 61337. "
        "The input or output tokens must be reduced in order to run successfully."
    )
    return Refusal(429, error(words, "rate_limit_exceeded", "tokens"))


def _no_obfuscation(asked: Asked) -> Refusal | None:
    if "stream_options" not in asked.body:
        return None
    name = "stream_options.include_obfuscation"
    return Refusal(400, error(f"Unknown parameter: '{name}'.", "unknown_parameter", param=name))


def _fastapi(_: Asked) -> Refusal:
    return Refusal(422, {"detail": [{"type": "extra_forbidden", "loc": ["body", "store"], "msg": "Extra inputs are not permitted"}]})


def _no_temperature(asked: Asked) -> Refusal | None:
    if "temperature" not in asked.body or not asked.model.startswith(("o", "gpt-5")):
        return None
    words = "Unsupported parameter: 'temperature' is not supported with this model."
    return Refusal(400, error(words, "unsupported_parameter", param="temperature"))


def _no_responses_api(_: Asked) -> Refusal:
    return Refusal(404, b"404 page not found", content_type="text/plain")


def _poison(_: Asked) -> Refusal:
    return Refusal(500, error("The server had an error while processing your request.", "server_error", "server_error"))


QUIRKS: dict[str, Quirk] = {
    "unverified": _unverified,
    "json-word": _json_word,
    "strict": _strict,
    "no-model-access": _no_model_access,
    "flagged": _flagged,
    "waf": _waf,
    "too-large": _too_large,
    "hour": lambda _: rate_limited({"Retry-After": "3600"}),
    "poison": _poison,
    "no-obfuscation": _no_obfuscation,
    "fastapi-422": _fastapi,
    "no-temperature": _no_temperature,
    "no-responses-api": _no_responses_api,
    "status-200-error": lambda _: Refusal(200, error("maximum context length is 1024 tokens, you requested 1029", 400, "BadRequestError")),
}

# ---- how it is answered


def message(number: int, text: str, **more: Any) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": []}
    return {"type": "message", "id": f"msg_{number}", "role": "assistant", "status": "completed", "content": [part], **more}


def usage(given: int = 20, written: int = 10, reasoning: int = 0) -> dict[str, Any]:
    details = {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": reasoning}}
    return {"input_tokens": given, "output_tokens": written, "total_tokens": given + written, **details}


class Events:
    """The events of one stream, with their sequence numbers."""

    def __init__(self, asked: Asked) -> None:
        self.asked, self._number = asked, -1

    def event(self, kind: str, **fields: Any) -> bytes:
        self._number += 1
        return f"event: {kind}\ndata: {json.dumps({'type': kind, 'sequence_number': self._number, **fields})}\n\n".encode()

    def begin(self) -> Iterator[Step]:
        for kind in ("response.created", "response.in_progress"):
            yield self.event(kind, response={"id": "resp_1", "model": self.asked.model, "status": "in_progress"})

    def text(self, text: str, item: int = 1, every: float = WORD_SECONDS) -> Iterator[Step]:
        for word in re.findall(r"\S+\s*|\s+", text):
            place = {"item_id": f"msg_{item}", "output_index": item - 1, "content_index": 0}
            yield self.event("response.output_text.delta", delta=word, **place)
            yield every

    def end(self, output: list[dict[str, Any]], used: Mapping[str, Any], status: str = "completed", **more: Any) -> Iterator[Step]:
        response = {"id": "resp_1", "model": self.asked.model, "status": status, "output": output, "usage": used, **more}
        yield self.event(f"response.{status}", response=response)


def _plain(events: Events, used: Mapping[str, Any] | None = None) -> Iterator[Step]:
    text = f"You asked: {events.asked.prompt[:200]}"
    yield from events.text(text)
    yield from events.end([message(1, text)], usage() if used is None else used)


def _silent(events: Events) -> Iterator[Step]:
    """A local server that loads its model, or a model that thinks before its first item."""
    yield 75.0
    yield from _plain(events)


def _in_stream_error(_: Events) -> Iterator[Step]:
    """A server in front of a model whose context is too small finds out when the stream is open."""
    words = "maximum context length is 1024 tokens, you requested 1029"
    yield f"data: {json.dumps({'error': {'message': words, 'type': 'BadRequestError', 'param': None, 'code': 400}})}\n\n".encode()


def _flat_stream_error(_: Events) -> Iterator[Step]:
    words = "This model's maximum context length is 1024 tokens."
    yield f"data: {json.dumps({'object': 'error', 'message': words, 'type': 'BadRequestError', 'param': None, 'code': 400})}\n\n".encode()


def _phases(events: Events) -> Iterator[Step]:
    items = [message(1, PREAMBLE, phase="commentary"), message(2, PERSON, phase="final_answer")]
    for index, (item, text) in enumerate(zip(items, (PREAMBLE, PERSON), strict=True)):
        yield events.event("response.output_item.added", output_index=index, item={**item, "content": []})
        yield from events.text(text, index + 1)
        yield events.event("response.output_item.done", output_index=index, item=item)
    yield from events.end(items, usage())


def _thought_only(events: Events) -> Iterator[Step]:
    item: dict[str, Any] = {"id": "rs_1", "type": "reasoning", "summary": []}
    yield events.event("response.output_item.added", output_index=0, item=item)
    yield from events.end([item], usage(20, 4096, 4096), "incomplete", incomplete_details={"reason": "max_output_tokens"})


def _slow(events: Events) -> Iterator[Step]:
    text = " ".join(f"word{number}" for number in range(60))
    yield from events.text(text, every=SLOW_WORD_SECONDS)
    yield from events.end([message(1, text)], usage())


STREAMS: dict[str, Callable[[Events], Iterator[Step]]] = {
    "silent-75": _silent,
    "in-stream-error": _in_stream_error,
    "flat-stream-error": _flat_stream_error,
    "phases": _phases,
    "thought-only": _thought_only,
    "slow": _slow,
    "chat-usage": lambda events: _plain(events, {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30}),
    "no-usage": lambda events: _plain(events, {}),
}


class QuirkyOpenAI:
    """The server, on threads of its own. Its attributes may be read from any thread.

    Args:
        limit: the rate limit of `[[rpm]]`.
        always: the quirk of prompts that name none.
    """

    def __init__(self, limit: Limit | None = None, *, always: Quirk | None = None, host: str = "127.0.0.1", port: int = 0) -> None:
        self.limit = limit or Limit()
        self.quirks = {**QUIRKS, "rpm": self._over_limit, **({"": always} if always else {})}
        self.requests: list[Asked] = []
        self.meters: dict[str, RateMeter] = {}  # by model: rate limits that are told and enforced
        self.answered_at: list[float] = []  # when the requests of `[[rpm]]` were taken, by the monotonic clock
        self._answered: deque[float] = deque()
        self._lock = threading.Lock()
        self._server = _Server((host, port), type("Handler", (_Handler,), {"openai": self}))
        self.url = f"http://{host}:{self._server.server_port}/v1"

    def __enter__(self) -> QuirkyOpenAI:
        threading.Thread(target=self.serve, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def serve(self) -> None:
        self._server.serve_forever(poll_interval=0.05)

    def asked_for(self, quirk: str) -> list[Asked]:
        """Return the requests with this quirk."""
        return [asked for asked in list(self.requests) if asked.quirk == quirk]

    def _over_limit(self, _: Asked) -> Refusal | None:
        """OpenAI says when one more request is free, not when all who wait are served."""
        count, seconds = self.limit.requests, self.limit.seconds
        with self._lock:
            now = time.monotonic()
            while self._answered and now - self._answered[0] > seconds:
                self._answered.popleft()
            if len(self._answered) < count:
                self._answered.append(now)
                self.answered_at.append(now)
                return None
        wait = seconds / count
        words = f"Rate limit reached on requests per min (RPM): Limit {count}, Used {count}, Requested 1. Please try again in {wait:g}s."
        return rate_limited({"retry-after": str(int(wait)), "retry-after-ms": str(int(wait * 1000))}, words)


class _Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no error."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    openai: QuirkyOpenAI
    rate: Mapping[str, str]  # what the response says about the rate limits

    def log_message(self, *_: Any) -> None:
        """Requests are recorded instead."""

    def do_GET(self) -> None:
        self._refuse(Refusal(404, error("no such response")))

    def do_POST(self) -> None:
        asked = Asked(self.path, json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}"))
        self.openai.requests.append(asked)
        quirk = self.openai.quirks.get(asked.quirk)
        meter = self.openai.meters.get(asked.model)
        above, self.rate = meter.ask(asked.body) if meter is not None else (None, {})
        if above is not None:
            self._refuse(rate_limited(self.rate, above))
            return
        refusal = _no_responses_api(asked) if not self.path.endswith("/v1/responses") else quirk(asked) if quirk else None
        if refusal is not None:
            self._refuse(refusal)
        elif asked.body.get("stream"):
            self._stream(asked)
        else:
            output = [message(1, "answered without a stream")]
            self._refuse(
                Refusal(
                    200,
                    {"id": "resp_1", "object": "response", "model": asked.model, "status": "completed", "output": output, "usage": usage()},
                )
            )

    def _refuse(self, refusal: Refusal) -> None:
        data = refusal.body if isinstance(refusal.body, bytes) else json.dumps(refusal.body).encode()
        given = {"Content-Type": refusal.content_type, "Content-Length": str(len(data)), "x-request-id": "req_fake", **refusal.headers}
        self.send_response(refusal.status)
        for name, value in given.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, asked: Asked) -> None:
        self.close_connection = True
        self.send_response(200)
        for name, value in {"Content-Type": "text/event-stream", "Connection": "close", "x-request-id": "req_fake", **self.rate}.items():
            self.send_header(name, value)
        self.end_headers()
        events = Events(asked)
        for steps in (events.begin(), STREAMS.get(asked.quirk, _plain)(events)):
            for step in steps:
                if isinstance(step, bytes):
                    self.wfile.write(step)
                    self.wfile.flush()
                else:
                    time.sleep(step)


def main() -> None:
    parser = argparse.ArgumentParser(description="Stand in for an OpenAI with quirks.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--requests", type=int, default=20, help="the limit of [[rpm]]")
    parser.add_argument("--seconds", type=float, default=60.0, help="the window of [[rpm]]")
    options = parser.parse_args()
    QuirkyOpenAI(Limit(options.requests, options.seconds), port=options.port).serve()


if __name__ == "__main__":
    main()
