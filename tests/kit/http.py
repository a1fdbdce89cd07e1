"""Requests through `app.py` in API Gateway's format, with all ports in memory."""

from __future__ import annotations

import base64
import importlib
import itertools
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

from chalicelib import bootstrap
from chalicelib.domain.auth.identity import Key, Role
from chalicelib.domain.errors import Throttled
from chalicelib.domain.jobs.job import Job
from chalicelib.domain.units import Ms
from chalicelib.services.auth.authenticate import secret_hash
from tests.kit.container import InMemoryContainer
from tests.kit.provider import Script
from tests.kit.time import JumpingLoop, LoopClock

T = TypeVar("T")

CONTEXT = SimpleNamespace(log_stream_name="env-1", get_remaining_time_in_millis=lambda: 30_000)
TOKENS = {
    "admin": ("acme", "root", Role.ADMIN),
    "operator": ("acme", "olga", Role.OPERATOR),
    "user": ("acme", "alice", Role.USER),
    "colleague": ("acme", "bob", Role.USER),
    "viewer": ("acme", "vera", Role.VIEWER),
    "stranger": ("other", "mallory", Role.ADMIN),
    "stage_admin": ("house", "hal", Role.ADMIN),  # of all tenants
}


def keys(now: Ms) -> list[Key]:
    """The keys of `TOKENS`."""
    return [
        Key(
            id=f"key_{name}",
            hash=secret_hash(f"hr_{name}"),
            tenant=tenant,
            user=user,
            role=role,
            created_at=now,
            all_tenants=name == "stage_admin",
        )
        for name, (tenant, user, role) in TOKENS.items()
    ]


def unreachable(call: Callable[..., T], *numbers: int) -> Callable[..., T]:
    """Return `call` with a store failure at these of its calls, counted from 1.

    Without numbers every call fails.
    """
    counted = itertools.count(1)

    def attempt(*args: Any, **kwargs: Any) -> T:
        number = next(counted)
        if not numbers or number in numbers:
            raise Throttled
        return call(*args, **kwargs)

    return attempt


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


def _body(sent: str | bytes | None) -> str | None:
    """The body as API Gateway passes it."""
    return base64.b64encode(sent).decode() if isinstance(sent, bytes) else sent


class Api:
    """`app.py` on the in-memory twins. `call` sends one request as `token`.

    With a `loop` the clock is the loop's: it goes on while coroutines sleep.
    """

    def __init__(self, *scripts: Script, loop: JumpingLoop | None = None) -> None:
        clock: Any = LoopClock(loop) if loop is not None else None
        self.container = InMemoryContainer(*scripts, clock=clock, loop=loop)
        for key in keys(self.container.clock.now()):
            self.container.api_keys.put_key(key)
        bootstrap.override(self.container)
        self.app: Any = importlib.import_module("app").app
        self.module: Any = importlib.import_module("app")

    def call(
        self,
        method: str,
        url: str,
        body: Any = None,
        token: str | None = "user",
        raw: str | bytes | None = None,
        **headers: str,
    ) -> Reply:
        """Send a request. `raw` is a body that is not made of JSON; API Gateway passes bytes in base64."""
        parts = urlsplit(url)
        resource, values = self._match(parts.path)
        sent = {"content-type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
        if token:
            sent["authorization"] = f"Bearer hr_{token}"
        query: dict[str, list[str]] = {}
        for name, value in parse_qsl(parts.query, keep_blank_values=True):
            query.setdefault(name, []).append(value)
        event = {
            "requestContext": {
                "resourcePath": resource,
                "httpMethod": method,
                "path": f"/api{parts.path}",
                "requestId": "request-1",
                "stage": "api",
                "identity": {"sourceIp": "127.0.0.1"},
            },
            "resource": resource,
            "path": parts.path,
            "httpMethod": method,
            "headers": sent,
            "multiValueHeaders": {name: [value] for name, value in sent.items()},
            "queryStringParameters": {name: values[-1] for name, values in query.items()} or None,
            "multiValueQueryStringParameters": query or None,
            "pathParameters": values or None,
            "stageVariables": None,
            "body": _body(raw if raw is not None else None if body is None else json.dumps(body)),
            "isBase64Encoded": isinstance(raw, bytes),
        }
        answer = self.app(event, CONTEXT)
        received = {name.lower(): value for name, value in answer["headers"].items()}
        received |= {name.lower(): values[0] for name, values in answer.get("multiValueHeaders", {}).items()}
        return Reply(answer["statusCode"], received, answer["body"])

    def submit(self, token: str = "user", **fields: Any) -> str:
        reply = self.call("POST", "/jobs", {"prompt": "Say hello.", **fields}, token)
        assert reply.status == 202, reply.text
        return str(reply.json["job_id"])

    def change_key(self, token: str, **changes: Any) -> None:
        """Change a key, and advance the clock until no environment has the old one cached."""
        key = self.container.api_keys.key(secret_hash(f"hr_{token}"))
        assert key is not None
        self.container.api_keys.put_key(replace(key, **changes))
        self.container.clock.advance(31)

    def job(self, job_id: str) -> Job:
        """Return the stored job record."""
        return self.container.jobs.records[job_id]

    def _match(self, path: str) -> tuple[str, dict[str, str]]:
        best = self.find_route(path)
        assert best is not None, f"app.py has no route for {path}, so API Gateway would not call it"
        return best

    def find_route(self, path: str) -> tuple[str, dict[str, str]] | None:
        """The route for a path and the values of its parameters, None if there is none."""
        best: tuple[str, dict[str, str]] | None = None
        for route in self.app.routes:
            pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", route)
            found = re.fullmatch(pattern, path)
            if found and (best is None or len(found.groupdict()) < len(best[1])):
                best = route, found.groupdict()
        return best
