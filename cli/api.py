"""The HTTP client of the API. It retries requests and translates every error.

GET, PATCH and DELETE requests are repeated as they are. Each POST carries one Idempotency-Key for
all of its attempts, so the API answers a repeated POST with its first answer.
"""

from __future__ import annotations

import json
import random
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from cli.errors import ApiError, Unreachable
from cli.target import Target

if TYPE_CHECKING:
    import httpx2

MAX_ATTEMPTS = 4
REPLACEMENT = "\ufffd"
MAX_RETRY_DELAY = 30.0  # seconds; a longer `Retry-After` is reported as an error instead of waited for
TIMEOUT = 35.0  # seconds; the API holds a long poll for at most 25 s
RETRYABLE_STATUSES = frozenset({429, 500, 502, 503, 504})

Json = dict[str, Any]


class HttpClient(Protocol):
    """The part of `httpx2.Client` that is used. Tests pass a fake."""

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
    """The API at one address, called with one key."""

    def __init__(self, target: Target, http: HttpClient | None = None, sleep: Callable[[float], None] | None = None) -> None:
        self.target = target
        self._http: HttpClient | None = http
        self._sleep = sleep or time.sleep

    def close(self) -> None:
        if self._http is not None:
            self._http.close()

    def get(self, path: str, **query: Any) -> Json:
        return self.request_json("GET", path, query=query)

    def post(self, path: str, body: Json | None = None) -> Json:
        return self.request_json("POST", path, body=body)

    def patch(self, path: str, body: Json) -> Json:
        """Send a PATCH. It is retried too: applying the same change twice has no further effect."""
        return self.request_json("PATCH", path, body=body)

    def delete(self, path: str) -> Json:
        return self.request_json("DELETE", path)

    def request_json(
        self,
        method: str,
        path: str,
        *,
        query: Json | None = None,
        body: Json | None = None,
        content: bytes | None = None,
        content_type: str = "",
    ) -> Json:
        """Send a request and return the JSON of the answer.

        `content` is a body that is not JSON, sent as it is with `content_type`.

        Raises:
            ApiError: the API answered with an error.
            Unreachable: the API cannot be reached, or the answer is not JSON.
        """
        headers = {"Idempotency-Key": uuid.uuid4().hex} if method == "POST" else {}
        headers |= {"Content-Type": content_type} if content_type else {}
        response = self.request(method, path, query=query, body=body, headers=headers, content=content)
        return _json(response) if response.content else {}

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Json | None = None,
        body: Json | None = None,
        headers: Json | None = None,
        content: bytes | None = None,
        follow_redirects: bool = True,
    ) -> httpx2.Response:
        """Send a request, with retries, and return the response.

        Without `follow_redirects`, a 307 is returned like a success.

        Raises:
            ApiError: the API answered with an error.
            Unreachable: the API cannot be reached.
        """
        import httpx2

        url = self.target.api_url + path
        if body is not None and REPLACEMENT in (text := json.dumps(body, ensure_ascii=False, allow_nan=False)):
            # The API refuses U+FFFD, which the gateway puts in the place of lost bytes, unless it is written as an escape.
            body, content = None, text.replace(REPLACEMENT, r"\ufffd").encode()
            headers = {"Content-Type": "application/json", **(headers or {})}
        options: dict[str, Any] = {} if content is None else {"content": content}
        options |= {} if follow_redirects else {"follow_redirects": False}
        params = {name: value for name, value in (query or {}).items() if value is not None}
        all_headers = {**self.headers(), **(headers or {})}
        for attempts_left in reversed(range(MAX_ATTEMPTS)):
            try:
                response = self._client().request(method, url, params=params, json=body, headers=all_headers, **options)
            except httpx2.TransportError as error:
                if not attempts_left:
                    raise _unreachable(self.target, error) from error
                self._sleep(_retry_delay(MAX_ATTEMPTS - attempts_left, None))
                continue
            except httpx2.InvalidURL as error:
                raise _unreachable(self.target, error) from error
            delay = _retry_delay(MAX_ATTEMPTS - attempts_left, response.headers.get("Retry-After"))
            if response.status_code not in RETRYABLE_STATUSES or not attempts_left or delay > MAX_RETRY_DELAY:
                return _checked(response)
            self._sleep(delay)
        raise AssertionError("the last attempt returns or raises")

    def headers(self) -> dict[str, str]:
        """The headers of every request; without a key there is no Authorization."""
        common = {"User-Agent": "headrace-cli"}
        return common | ({"Authorization": f"Bearer {self.target.key}"} if self.target.key else {})

    def _client(self) -> HttpClient:
        """The HTTP client, created at the first request so that commands without one start fast."""
        if self._http is None:
            self._http = _new_client(self.target)
        return self._http


def is_local(url: str) -> bool:
    return urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")


def _new_client(target: Target) -> HttpClient:
    """For addresses of this machine, ignore proxies of the environment: they cannot reach them."""
    import httpx2

    client: HttpClient = httpx2.Client(timeout=TIMEOUT, trust_env=not is_local(target.api_url), follow_redirects=True)
    return client


def _retry_delay(failures: int, retry_after: str | None) -> float:
    """Seconds until the next attempt: `Retry-After`, else 0.5 s, doubling, with jitter."""
    if retry_after and retry_after.isdigit():
        return float(retry_after)
    return 0.5 * 2.0 ** (failures - 1) * random.uniform(0.75, 1.25)


def _checked(response: httpx2.Response) -> httpx2.Response:
    """Return a response that is no error. Raises ApiError for one that is."""
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
    raise ApiError(response.status_code, error)


def _json(response: httpx2.Response) -> Json:
    try:
        content = response.json()
    except ValueError as error:
        raise Unreachable(f"{response.url} did not answer with JSON. Is this the address of the API?") from error
    if not isinstance(content, dict):
        raise Unreachable(f"{response.url} did not answer with a JSON object. Is this the address of the API?")
    return content


def _unreachable(target: Target, error: Exception) -> Unreachable:
    hint = "Is it running? `make up` starts it." if is_local(target.api_url) else "Check the address and the network."
    return Unreachable(f"{target.api_url} cannot be reached: {error or type(error).__name__}", hint)
