"""The HTTP client: one method to ask, which repeats what may safely be repeated and translates every error.

Safe requests and cancellation are repeated as they are. Every POST carries an Idempotency-Key, made once per call, so that it may be
repeated too: the API answers a repetition with its first answer. `Retry-After` is obeyed.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from cli.errors import Refused, Unreachable
from cli.target import Target

if TYPE_CHECKING:
    import httpx2

TRIES = 4
LONGEST_PAUSE = 30.0  # whoever is told to come back later than this is told so, instead of being kept waiting
TIMEOUT = 35.0  # the API holds a request for at most 25 s
REPEATED = frozenset({429, 500, 502, 503, 504})

Json = dict[str, Any]


class Transport(Protocol):
    """The part of `httpx2.Client` that is used; tests bring their own."""

    def request(
        self,
        method: str,
        url: str,
        *,
        params: dict[str, Any],
        json: Any,
        headers: dict[str, str],
        content: bytes | None = ...,
        follow_redirects: bool = ...,
    ) -> httpx2.Response: ...

    def close(self) -> None: ...


class Api:
    """The API at one address, with one key."""

    def __init__(self, target: Target, transport: Transport | None = None, sleep: Callable[[float], None] | None = None) -> None:
        self.target = target
        self._made: Transport | None = transport
        self._sleep = sleep or time.sleep

    def close(self) -> None:
        if self._made is not None:
            self._made.close()

    def get(self, path: str, **query: Any) -> Json:
        return self.ask("GET", path, query=query)

    def post(self, path: str, body: Json | None = None) -> Json:
        return self.ask("POST", path, body=body)

    def patch(self, path: str, body: Json) -> Json:
        """Repeated like the others: a change that was made already changes nothing more."""
        return self.ask("PATCH", path, body=body)

    def delete(self, path: str) -> Json:
        return self.ask("DELETE", path)

    def ask(
        self, method: str, path: str, *, query: Json | None = None, body: Json | None = None, content: bytes | None = None, kind: str = ""
    ) -> Json:
        """The JSON of a successful answer. Raises Refused for the API's errors and Unreachable where it cannot be reached.

        `content` is sent as it is, of the Content-Type `kind`, where the body is not JSON.
        """
        headers = {"Idempotency-Key": uuid.uuid4().hex} if method == "POST" else {}
        headers |= {"Content-Type": kind} if kind else {}
        response = self.send(method, path, query=query, body=body, headers=headers, content=content)
        return _json(response) if response.content else {}

    def send(
        self,
        method: str,
        path: str,
        *,
        query: Json | None = None,
        body: Json | None = None,
        headers: Json | None = None,
        content: bytes | None = None,
        follow: bool = True,
    ) -> httpx2.Response:
        """The response of a successful request, repeated where that helps. Without `follow`, a 307 is an answer like others."""
        import httpx2

        url = self.target.api_url + path
        more: dict[str, Any] = ({"content": content} if content is not None else {}) | ({} if follow else {"follow_redirects": False})
        params = {name: value for name, value in (query or {}).items() if value is not None}
        all_headers = {**self.headers(), **(headers or {})}
        for tries_left in reversed(range(TRIES)):
            try:
                response = self._transport.request(method, url, params=params, json=body, headers=all_headers, **more)
            except httpx2.TransportError as problem:
                if not tries_left:
                    raise _unreachable(self.target, problem) from problem
                self._sleep(_pause(TRIES - tries_left, None))
                continue
            except httpx2.InvalidURL as problem:
                raise _unreachable(self.target, problem) from problem
            pause = _pause(TRIES - tries_left, response.headers.get("Retry-After"))
            if response.status_code not in REPEATED or not tries_left or pause > LONGEST_PAUSE:
                return _successful(response)
            self._sleep(pause)
        raise AssertionError("the last try returns or raises")

    def headers(self) -> dict[str, str]:
        """What every request carries; the key only where there is one."""
        common = {"User-Agent": "headrace-cli"}
        return common | ({"Authorization": f"Bearer {self.target.key}"} if self.target.key else {})

    @property
    def _transport(self) -> Transport:
        """Made at the first request: a proxy of the environment is not asked for addresses of this machine."""
        if self._made is None:
            self._made = _client(self.target)
        return self._made


def is_local(url: str) -> bool:
    return urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")


def _client(target: Target) -> Transport:
    import httpx2

    client: Transport = httpx2.Client(timeout=TIMEOUT, trust_env=not is_local(target.api_url), follow_redirects=True)
    return client


def _pause(failures: int, retry_after: str | None) -> float:
    """Seconds until the next try: as told, else half a second, doubling, up to half of it by chance."""
    if retry_after and retry_after.isdigit():
        return float(retry_after)
    return 0.5 * 2.0 ** (failures - 1) * random.uniform(0.75, 1.25)


def _successful(response: httpx2.Response) -> httpx2.Response:
    if response.is_success or response.status_code in (304, 307):
        return response
    try:
        content = response.json()
    except ValueError:
        content = None
    error = content.get("error") if isinstance(content, dict) else None
    if not isinstance(error, dict):
        error = {"message": f"The API answered {response.status_code} {response.reason_phrase}."}
    error.setdefault("request_id", response.headers.get("X-Request-Id"))
    raise Refused(response.status_code, error)


def _json(response: httpx2.Response) -> Json:
    try:
        content = response.json()
    except ValueError as problem:
        raise Unreachable(f"{response.url} did not answer with JSON: is this the address of the API?") from problem
    if not isinstance(content, dict):
        raise Unreachable(f"{response.url} did not answer with a JSON object: is this the address of the API?")
    return content


def _unreachable(target: Target, problem: Exception) -> Unreachable:
    hint = "Is it up? `make up` starts it." if is_local(target.api_url) else "Check the address and the network."
    return Unreachable(f"{target.api_url} cannot be reached: {problem or type(problem).__name__}", hint)
