"""Every command with garbage from every side: arguments, stdin, files, environment, encodings and answers.

Nothing may end in a traceback, show the key, or claim with exit code 1 that a job has failed.
`HEADRACE_GARBAGE=5000` tries that many cases.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

import httpx2
import pytest
import typer
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cli.app import app
from cli.checks import redaction
from cli.transports import transports_for
from tests.unit.cli.server import JOB, KEY, Answer, FakeServer, run

SECRET = "hr_0123456789abcdefSECRET"
PHASES = [phase for phase in Phase if phase != Phase.explain]
MANY = settings(
    max_examples=int(os.environ.get("HEADRACE_GARBAGE") or 150), deadline=None, phases=PHASES, suppress_health_check=list(HealthCheck)
)
MAX_REQUESTS = 150
EXIT_CODES = {0, 1, 2, 3, 4, 130}


# The commands, found by walking over them


@dataclass(frozen=True)
class Command:
    """A command with its path, its options (and whether each takes a value), and the number of its arguments."""

    path: tuple[str, ...]
    options: tuple[tuple[str, bool], ...]
    arguments: int


def walk(command: Any, path: tuple[str, ...] = ()) -> Iterator[Command]:
    options = tuple(
        (name, not param.is_flag)
        for param in command.params
        if param.param_type_name == "option"
        for name in param.opts
        if "completion" not in name
    )
    yield Command(path, options, sum(param.param_type_name == "argument" for param in command.params))
    for name, child in getattr(command, "commands", {}).items():
        yield from walk(child, (*path, name))


COMMANDS = list(walk(typer.main.get_command(app)))


# Garbage


NASTY = [
    *("", "-", "--", "---", "- a", "-5", "=", "a=", "=b", "a=1", "a=12e4567", "a=NaN", "a=[", "@", "@-", "@none", "%s", "{}", "[/x]"),
    *("caf\udce9", "\ud800", "\x1b[2J", "\ufeffx", "\r\n", "\t", "a\tb c", "nan", "inf", "1e999", "-1", "0", "9" * 30, "1.5", "²"),
    *(JOB, "batch_1", "..", "a?b", "a#b", "completed", "csv", "json", "semicolon", "user", "input.json", "prompts.csv", "folder"),
    *("none.txt", "binary.bin", "http://x", "localhost:1", "https://api.example.invalid/api", "\U0001f600" * 50, "x" * 5_000, SECRET),
]
words = st.one_of(st.sampled_from(NASTY), st.text(st.characters(exclude_characters="\x00/"), max_size=12))
odd_text = st.sampled_from(["completed", "failed", "[/x]", "\x1b[2J", "\ud800"])
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), odd_text),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    command = draw(st.sampled_from(COMMANDS))
    parts = list[list[str]]()
    for name, takes_value in draw(st.lists(st.sampled_from(command.options or (("--help", False),)), max_size=4)):
        parts.append([name, draw(words)] if takes_value and draw(st.integers(0, 20)) else [name])
    ids = st.one_of(st.just(JOB), st.just("batch_1"), words)
    parts += [[draw(ids)] for _ in range(command.arguments if draw(st.integers(0, 9)) else draw(st.integers(0, 3)))]
    before = (
        draw(st.lists(st.sampled_from([["--as", "user"], ["--key", SECRET], ["--as", "x"]]), max_size=1))
        if not draw(st.integers(0, 5))
        else []
    )
    arguments = [argument for part in [*before, list(command.path), *draw(st.permutations(parts))] for argument in part]
    return [argument for argument in arguments if argument != "--watch"] if "/" in "".join(arguments) else arguments


def mutations(answer: Any) -> st.SearchStrategy[Any]:
    """The answer of the API with some fields of other types, or without them."""
    if not isinstance(answer, dict) or not answer:
        return json_values

    def mutate(changes: dict[str, Any]) -> Any:
        return {name: changes.get(name, value) for name, value in answer.items() if changes.get(name, 0) != "absent"}

    names = st.sampled_from(sorted(answer))
    return st.dictionaries(names, st.one_of(st.just("absent"), json_values), min_size=1, max_size=3).map(mutate)


class Answers(FakeServer):
    """What the API answers, without a socket."""

    ws_url = "wss://api.example.invalid/api"


types = ["text/html", "application/json; charset=hex", "x", "text/event-stream; charset=utf-16"]
odd_headers = st.fixed_dictionaries(
    {},
    optional={
        "Content-Type": st.sampled_from(types),
        "Retry-After": st.sampled_from(["²", "soon", "9" * 400, "-1", "1.5"]),
        "Location": st.sampled_from(["", "http://[", "ftp://x", "/x"]),
        "Content-Disposition": st.sampled_from(['filename=".."', 'filename="a"', "\x00"]),
    },
)


@dataclass
class Garbage:
    """An HTTP client that answers garbage a few times, and then what the API answers."""

    data: st.DataObject
    failures: int
    server: FakeServer = field(default_factory=lambda: Answers(text="Hi [/x]\x1b[2J \U0001f600"))
    requests: list[str] = field(default_factory=list)

    def request(self, method: str, url: str, **options: Any) -> httpx2.Response:
        follow = {name: value for name, value in options.items() if name != "follow_redirects"}
        request = httpx2.Request(method, url, **follow)  # refuses what the real client refuses
        path = urlsplit(url).path.removeprefix("/api")
        self.requests.append(f"{method} {path}")
        if len(self.requests) > MAX_REQUESTS:
            raise KeyboardInterrupt  # whoever waits for a job that never ends presses Ctrl-C
        query = {name: str(value) for name, value in options["params"].items()}
        more = self._more(path)
        answer = Answer(body=more) if more else self.server.answer(f"{method} {path}", query, {"Authorization": f"Bearer {KEY}"})
        body = answer.body
        if self.failures > 0:
            self.failures -= 1
            return self._garbage(request, body)
        content = body if isinstance(body, str) else json.dumps(body)
        return httpx2.Response(answer.status, headers=answer.headers, content=content.encode(), request=request)

    def _more(self, path: str) -> Any:
        """Answers of routes that the fake server does not have."""
        rows = {"data": [{"batch_id": "batch_1", "status": "completed", "created_at": "2026-01-01T00:00:00Z"}], "next_cursor": None}
        batch = {"batch_id": "batch_1", "status": "completed", "counts": {"total": 2, "completed": 2}, "cost": "0.1", "name": "[/x]"}
        graph = {"job_id": JOB, "nodes": [{"job_id": JOB, "status": "queued"}], "edges": [{"from": JOB, "to": JOB}]}
        deliveries = {"data": [{"delivery_id": "d", "status": "failed", "event": "e", "channel": "c", "address": "a", "attempts": []}]}
        if path.startswith("/batches"):
            return rows if path == "/batches" else deliveries if path.endswith("/deliveries") else batch
        if path.endswith("/graph"):
            return graph
        if path.startswith("/failed-jobs"):
            return {
                "data": [{"job_id": JOB, "error": {"code": "x"}}],
                "lanes": {"low": {}},
                "matched": 1,
                "bulk_id": "b",
                "status": "running",
            }
        if path.endswith("/explain"):
            return {"job_id": JOB, "status": "held", "events": [{"at": "2026-01-01T00:00:00.000Z", "what": "wait", "sentence": "It [/x]"}]}
        if path.startswith("/limits"):
            waiting = {"urgent": 1, "others": 2, "by_tenant": {"b": 2}, "more": True}
            model = {"model": "m", "requests": 500, "used": {"requests": 3}, "source": "header", "waiting": waiting}
            tenant = {"tenant": "acme", "weight": 1.0, "fair_by": "tenant", "shards": 1}
            types = [{"job_type": "t", "per_minute": 3, "waiting": waiting}]
            return {**tenant, **model, "limits": tenant, "tenants": [tenant], "models": [model], "types": types}
        if path.startswith(("/circuits/", "/bulk/", "/uploads")):
            return {"model": "m", "state": "open", "matched": 0, "url": "http://x", "headers": {}, "upload_id": "up_1"}
        return deliveries if path.endswith("/deliveries") else None

    def _garbage(self, request: httpx2.Request, body: Any) -> httpx2.Response:
        match self.data.draw(st.integers(0, 9)):
            case 0:
                kinds = (httpx2.ConnectError, httpx2.DecodingError, httpx2.TooManyRedirects, httpx2.LocalProtocolError, httpx2.ReadTimeout)
                raise self.data.draw(st.sampled_from(kinds))(f"Illegal header value b'Bearer {SECRET}\\r'")
            case 1 | 2:
                status = self.data.draw(
                    st.sampled_from([200, 201, 202, 204, 206, 304, 307, 400, 401, 403, 404, 409, 413, 418, 429, 500, 502, 503, 599])
                )
                content = self.data.draw(
                    st.one_of(st.binary(max_size=40), st.sampled_from([b"", b"<html>", b"[" * 100_000, b"9" * 5_000, b'{"a": NaN}']))
                )
                headers = self.data.draw(odd_headers)
                return httpx2.Response(status, headers=headers, content=content, request=request)
            case 3:
                error = self.data.draw(
                    st.one_of(json_values, st.fixed_dictionaries({"code": json_values, "message": json_values, "details": json_values}))
                )
                status = self.data.draw(st.sampled_from([400, 401, 409, 429, 500]))
                return self._json(status, {"error": error}, request)
            case 4 | 5:
                return self._json(200, self.data.draw(json_values), request)
            case 6 if request.url.path.endswith("/stream"):
                lines = self.data.draw(
                    st.lists(st.sampled_from(["data: {", 'data: {"attempt": "x"}', "data: []", "id: ²", "retry: 9²", "", "event"]))
                )
                return httpx2.Response(200, content="\n".join([*lines, "", ""]).encode(), request=request)
        return self._json(200, self.data.draw(mutations(body)), request)

    @staticmethod
    def _json(status: int, value: Any, request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(status, content=json.dumps(value).encode("utf-8", "surrogatepass"), request=request)

    def close(self) -> None:
        """Nothing is open."""

    def __enter__(self) -> Garbage:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""

    def put(self, url: str, **_: Any) -> httpx2.Response:
        return httpx2.Response(self.data.draw(st.sampled_from([200, 403, 500])), request=httpx2.Request("PUT", url))

    def stream(self, method: str, url: str) -> Any:
        class Opened:
            def __enter__(self) -> httpx2.Response:
                return httpx2.Response(200, content=b"data", request=httpx2.Request(method, url))

            def __exit__(self, *_: object) -> None:
                """Nothing is open."""

        return Opened()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the command lines name."""
    folder = tmp_path_factory.mktemp("garbage")
    (folder / "input.json").write_text('{"a": 1}')
    (folder / "prompts.csv").write_text("prompt\nHi\n")
    (folder / "binary.bin").write_bytes(b"\xff\xfe\x00")
    (folder / "folder").mkdir()
    (folder / "folder" / os.fsdecode(b"caf\xe9.txt")).write_text("x")
    return folder


class Clock:
    """Waiting takes no time."""

    def __init__(self) -> None:
        self._now = 1_000.0

    def now(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += max(seconds, 0.001)


def without_sockets(api: Any, job_id: str, _: str | None) -> list[Any]:
    return transports_for(api, job_id, None)


def outcome(
    folder: Path, arguments: list[str], http: Any, stdin: bytes = b"Hi", encoding: str = "utf-8", env: dict[str, str] | None = None
) -> tuple[int, str, str]:
    """Run a command with everything around it replaced, and return its code, stdout and stderr."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="\n") for _ in range(2)]
    variables = {"HEADRACE_API_URL": "https://api.example.invalid/api", "HEADRACE_KEY": SECRET, "XDG_CONFIG_HOME": str(folder / "config")}
    before = Path.cwd()
    with ExitStack() as around:
        around.enter_context(patch.dict(os.environ, {**variables, **(env or {})}))
        around.enter_context(patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="ascii")))
        clock = Clock()
        around.enter_context(patch("time.sleep", clock.sleep))
        around.enter_context(patch("time.monotonic", clock.now))
        around.enter_context(patch("cli.api.new_client", lambda *_, **__: http))
        around.enter_context(patch("cli.links.new_client", lambda *_, **__: http))
        around.enter_context(patch("cli.transports.transports_for", without_sockets))
        around.enter_context(patch.object(redaction, "_remembered", set()))
        around.enter_context(redirect_stdout(streams[0]))
        around.enter_context(redirect_stderr(streams[1]))
        around.callback(os.chdir, before)
        os.chdir(folder)
        code = run(*arguments)
    out, err = (stream.buffer.getvalue().decode(encoding) for stream in streams if stream.flush() is None)  # type: ignore[attr-defined]
    return code, out, err


@MANY
@given(
    command_lines(),
    st.data(),
    st.one_of(st.binary(max_size=8), st.sampled_from([b"Hi", b"caf\xe9", b"", b'{"a": NaN}'])),
    st.sampled_from(["utf-8", "utf-8", "ascii", "cp1252", "utf-16", "latin-1"]),
    st.fixed_dictionaries(
        {},
        optional={
            "COLUMNS": st.sampled_from(["0", "1", "60", "wide", "-1", "²", "9" * 20, ""]),
            "LINES": st.sampled_from(["0", "²"]),
            "TERM": st.sampled_from(["dumb", "", "\udce9"]),
            "HEADRACE_KEY": st.sampled_from(["", SECRET + "\r", SECRET + "\xe9"]),
            "HEADRACE_API_URL": st.sampled_from(["", "localhost:1", "https://[", "https://x?y"]),
            "HEADRACE_WS_URL": st.sampled_from(["", "nonsense", "http://x"]),
            "FORCE_COLOR": st.just("1"),
        },
    ),
)
def test_garbage_ends_in_a_sentence_and_a_true_exit_code(
    folder: Path, arguments: list[str], data: st.DataObject, stdin: bytes, encoding: str, env: dict[str, str]
) -> None:
    http = Garbage(data, failures=data.draw(st.sampled_from([0, 0, 1, 2, 9])))

    code, out, err = outcome(folder, arguments, http, stdin, encoding, env)

    assert code in EXIT_CODES
    assert "Traceback" not in err
    assert "SECRET" not in err
    assert "cannot work with what it was given" not in err  # the last resort: whatever gets there needs a sentence of its own
    if not http.requests:
        assert code in (0, 2, 4)
    if code in (2, 4):
        assert err.strip()
    if code and "--json" in arguments and err.startswith("{"):
        assert json.loads(err.splitlines()[0])["success"] is False
    assert "\x1b[2J" not in err
    assert isinstance(out, str)


@pytest.mark.parametrize("command", [one for one in COMMANDS if one.path], ids=lambda one: " ".join(one.path))
@pytest.mark.parametrize("width", ["60", "120", "1"])
def test_every_command_has_help_at_every_width(folder: Path, command: Command, width: str) -> None:
    code, out, err = outcome(folder, [*command.path, "--help"], None, env={"COLUMNS": width})

    assert (code, err) == (0, "")
    assert "Usage: headrace" in out


@settings(MANY, max_examples=40)
@given(st.data(), st.sampled_from(["submit", "watch"]), st.booleans())
def test_watch_survives_garbage_in_frames(folder: Path, data: st.DataObject, command: str, as_json: bool) -> None:
    http = Garbage(data, failures=data.draw(st.integers(1, 30)))
    arguments = ["submit", "Hi", "--watch"] if command == "submit" else ["watch", JOB]

    code, _, err = outcome(folder, [*arguments, *(["--json"] if as_json else [])], http)

    assert code in EXIT_CODES
    assert "Traceback" not in err
    assert "SECRET" not in err
