"""The HTTP client of the API. It retries requests and translates every error.

GET, PATCH and DELETE requests are repeated as they are. Each POST carries one Idempotency-Key for
all of its attempts, so the API answers a repeated POST with its first answer.
"""

from __future__ import annotations

import json
import random
import ssl
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from cli.checks.proxies import is_loopback, proxy_of
from cli.checks.redaction import redact
from cli.checks.sendable import check_sendable
from cli.errors import ApiError, CliError, Unreachable, UsageError
from cli.http_client import new_client
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
        self.answered = False  # anything, by whatever answers at this address
        self._http: HttpClient | None = http
        self._sleep = sleep or time.sleep

    def close(self) -> None:
        if self._http is not None:
            self._http.close()

    def get(self, path: str, **query: Any) -> Json:
        return self.request_json("GET", path, query=query)

    def post(self, path: str, body: Json | None = None) -> Json:
        return self.request_json("POST", path, body=body)

    def put(self, path: str, body: Json) -> Json:
        """Send a PUT. It is retried too, as a PATCH is."""
        return self.request_json("PUT", path, body=body)

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
        return json_of(response) if response.content else {}

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
            Unreachable: the API cannot be reached, or something else answered.
            UsageError: the request cannot be sent, as with text that is not UTF-8.
        """
        params = {name: value for name, value in (query or {}).items() if value is not None}
        check_sendable({"address": path}, params, body)
        if body is not None and REPLACEMENT in (text := json.dumps(body, ensure_ascii=False)):
            # The API refuses U+FFFD, which the gateway puts in the place of lost bytes, unless it is written as an escape.
            body, content = None, text.replace(REPLACEMENT, r"\ufffd").encode()
            headers = {"Content-Type": "application/json", **(headers or {})}
        options: dict[str, Any] = {} if content is None else {"content": content}
        options |= {} if follow_redirects else {"follow_redirects": False}
        all_headers = {**self.headers(), **(headers or {})}
        for attempts_left in reversed(range(MAX_ATTEMPTS)):
            try:
                response = self._send(method, path, params=params, json=body, headers=all_headers, **options)
            except Unreachable as error:
                if not attempts_left or not error.may_pass:
                    raise
                self._sleep(_retry_delay(MAX_ATTEMPTS - attempts_left, None))
                continue
            self.answered = True
            delay = _retry_delay(MAX_ATTEMPTS - attempts_left, response.headers.get("Retry-After"))
            if response.status_code not in RETRYABLE_STATUSES or not attempts_left or delay > MAX_RETRY_DELAY:
                return _checked(response)
            self._sleep(delay)
        raise AssertionError("the last attempt returns or raises")

    def _send(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """Send a request once. Raises Unreachable, which says whether another try may help, and UsageError."""
        import httpx2

        try:
            return self._client().request(method, self.target.api_url + path, **options)
        except httpx2.RequestError as error:
            raise _unreachable(self.target, error) from error
        except (httpx2.InvalidURL, UnicodeError) as error:
            raise UsageError(f"{self.target.api_url} is no address: {redact(str(error))}.") from error

    def headers(self) -> dict[str, str]:
        """The headers of every request; without a key there is no Authorization."""
        common = {"User-Agent": "headrace-cli"}
        return common | ({"Authorization": f"Bearer {self.target.key}"} if self.target.key else {})

    def _client(self) -> HttpClient:
        """The HTTP client, created at the first request so that commands without one start fast."""
        if self._http is None:
            self._http = new_client(self.target.api_url, TIMEOUT, follow_redirects=True)
        return self._http


def _retry_delay(failures: int, retry_after: str | None) -> float:
    """Seconds until the next attempt: `Retry-After`, else 0.5 s, doubling, with jitter."""
    if retry_after and retry_after.isascii() and retry_after.isdigit():
        return float(retry_after)
    return 0.5 * 2.0 ** (failures - 1) * random.uniform(0.75, 1.25)


def _checked(response: httpx2.Response) -> httpx2.Response:
    """Return a response that is no error. Raises ApiError for one that is."""
    if response.is_success or response.status_code in (304, 307):
        return response
    try:
        content = response.json()
    except (ValueError, RecursionError):
        content = None
    error = content.get("error") if isinstance(content, dict) else None
    if not isinstance(error, dict):
        raise _not_ours(response)
    error.setdefault("request_id", response.headers.get("X-Request-Id"))
    raise ApiError(response.status_code, error)


def json_of(response: httpx2.Response) -> Json:
    """The JSON object of an answer. Raises Unreachable for anything else."""
    try:
        content = response.json(parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise Unreachable(f"{_origin(response)} did not answer with JSON. Is this the address of the API?") from error
    if not isinstance(content, dict):
        raise Unreachable(f"{_origin(response)} did not answer with a JSON object. Is this the address of the API?")
    return content


def _not_ours(response: httpx2.Response) -> CliError:
    """An error in another shape than the API's: of a gateway, a proxy, or a server of something else."""
    code, kind = response.status_code, response.headers.get("Content-Type", "").partition(";")[0].strip()
    what = f" with {kind[:40]}" if kind and kind != "application/json" else ""
    if code == 413:
        return UsageError("The request is too large for the API (413).")
    return Unreachable(
        f"{_origin(response)} answered {code} {response.reason_phrase}".rstrip() + f"{what}, which is not an answer of the API.",
        "Is this the address of the API, including its stage? A proxy or gateway in between may have answered, too.",
    )


def _origin(response: httpx2.Response) -> str:
    """The address that answered, without its query, which can hold a signature."""
    return redact(str(response.url.copy_with(query=None, fragment=None)))


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _unreachable(target: Target, error: httpx2.RequestError) -> Unreachable:
    """Why no answer came. Only what may be over soon is tried again."""
    import httpx2

    words = redact(str(error)) or type(error).__name__
    if certificate := _certificate_error(error):
        return Unreachable(
            f"The certificate of {target.api_url} is not trusted: {certificate}.",
            "Behind a proxy that has a certificate of its own, name it in SSL_CERT_FILE.",
            may_pass=False,
        )
    if isinstance(error, httpx2.DecodingError | httpx2.TooManyRedirects | httpx2.UnsupportedProtocol | httpx2.LocalProtocolError):
        return Unreachable(
            f"{target.api_url} gave an answer that cannot be used: {words}.", "Is this the address of the API?", may_pass=False
        )
    if proxy := proxy_of(target.api_url):
        return Unreachable(
            f"{target.api_url} cannot be reached through the proxy {proxy}: {words}",
            "Check the proxy; NO_PROXY names hosts that need none.",
        )
    hint = "Is it running? `make up` starts it." if is_loopback(target.api_url) else "Check the address and the network."
    return Unreachable(f"{target.api_url} cannot be reached: {words}", hint)


def _certificate_error(error: BaseException) -> str | None:
    """What is wrong with the certificate, if that is the cause of this error."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError):
            return seen.verify_message or str(seen)
        seen = seen.__cause__ or seen.__context__
    return None
