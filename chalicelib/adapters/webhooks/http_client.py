"""A guarded HTTP client for URLs that tenants give: they cannot reach our own network (SSRF).

A name is resolved once, all its addresses must be public, and the connection goes to exactly the
address that was checked, so a name that resolves differently a moment later ("DNS rebinding")
cannot get around the check. TLS is verified against the name. Redirects are returned and not
followed, and no proxy of the environment is used. A watchdog limits the total time, because the
timeout of a socket starts again with each byte.

It uses the standard library: other clients connect by themselves, to what a second resolution
returns.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from chalicelib.domain.errors import DeliveryError
from chalicelib.domain.notifications.network_policy import Address, Network, is_allowed, is_within, parse_ip
from chalicelib.domain.notifications.webhook_url import WebhookUrl, parse_webhook_url
from chalicelib.ports import WebhookResponse

CONNECT_SECONDS = 3.0
TOTAL_SECONDS = 10.0
ADDRESSES_TRIED = 3
MAX_RESPONSE_BYTES = 65_536  # of a response that are read; they are not kept
USER_AGENT = "Headrace/0.1 (+webhooks)"

Resolve = Callable[[str, int], Sequence[str]]
Connect = Callable[[str, int, float], socket.socket]


def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a name, in the system's order."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in found))


def connect(address: str, port: int, timeout: float) -> socket.socket:
    return socket.create_connection((address, port), timeout)


class GuardedHttpClient:
    """Posts to public addresses.

    Args:
        allowed: networks that may be reached besides public ones, also without TLS.
        trust: replaces the system's certificates.
        seconds: limit of one request, from the connection to the response.
        resolve, connect: replaced in tests.
    """

    def __init__(
        self,
        allowed: Sequence[Network] = (),
        *,
        resolve: Resolve = resolve,
        connect: Connect = connect,
        trust: ssl.SSLContext | None = None,
        seconds: float = TOTAL_SECONDS,
    ) -> None:
        self._allowed = allowed
        self._resolve = resolve
        self._connect = connect
        self._trust = trust
        self._seconds = seconds
        self._lock = threading.Lock()

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> WebhookResponse:
        try:
            endpoint = parse_webhook_url(url, self._allowed)
        except ValueError as exc:
            raise DeliveryError(f"the address {exc}", final=True) from exc
        addresses = self._resolve_allowed(endpoint)
        sock = self._wrap_tls(endpoint, self._connect_any(endpoint, addresses))
        with _with_deadline(sock, self._seconds) as late:
            try:
                return self._exchange(endpoint, sock, body, headers, late)
            except (OSError, http.client.HTTPException, ValueError) as exc:
                raise DeliveryError(_describe_error(exc, late=late.is_set())) from exc

    def _wrap_tls(self, endpoint: WebhookUrl, sock: socket.socket) -> socket.socket:
        """Wrap the socket. The handshake is made later, under the watchdog."""
        if endpoint.scheme == "http":
            return sock
        try:
            return self._context().wrap_socket(sock, server_hostname=endpoint.host, do_handshake_on_connect=False)
        except (OSError, ValueError) as exc:
            sock.close()
            raise DeliveryError(_describe_error(exc, late=False)) from exc

    def _context(self) -> ssl.SSLContext:
        """Return the TLS context.

        It is made at the first use: reading certificates takes about 20 ms.
        """
        with self._lock:
            if self._trust is None:
                self._trust = ssl.create_default_context()
            return self._trust

    def _resolve_allowed(self, endpoint: WebhookUrl) -> list[str]:
        """Return the addresses of the endpoint.

        Raises:
            DeliveryError: one of them is not allowed, or there is none. An address that is itself
                in the URL stays what it is (`final`); a name may resolve to others a moment later
                (`forbidden`).
        """
        found = self._resolve_host(endpoint)
        parsed = [parse_ip(address) for address in found]
        if not all(address is not None and self._is_allowed(address, endpoint) for address in parsed):
            is_literal = parse_ip(endpoint.host) is not None
            raise DeliveryError("the host is not at a public address", final=is_literal, forbidden=not is_literal)
        return found[:ADDRESSES_TRIED]

    def _resolve_host(self, endpoint: WebhookUrl) -> list[str]:
        if parse_ip(endpoint.host) is not None:
            return [endpoint.host]
        try:
            found = list(self._resolve(endpoint.host, endpoint.port))
        except (OSError, UnicodeError) as exc:
            raise DeliveryError("the name of the host could not be resolved") from exc
        if not found:
            raise DeliveryError("the name of the host could not be resolved")
        return found

    def _is_allowed(self, address: Address, endpoint: WebhookUrl) -> bool:
        if endpoint.scheme == "http":
            return is_within(address, self._allowed)
        return is_allowed(address, self._allowed)

    def _connect_any(self, endpoint: WebhookUrl, addresses: Sequence[str]) -> socket.socket:
        for address in addresses:
            with suppress(OSError):
                return self._connect(address, endpoint.port, CONNECT_SECONDS)
        raise DeliveryError("no connection could be made")

    def _exchange(
        self, endpoint: WebhookUrl, sock: socket.socket, body: bytes, headers: Mapping[str, str], late: threading.Event
    ) -> WebhookResponse:
        sock.settimeout(self._seconds)
        if isinstance(sock, ssl.SSLSocket):
            sock.do_handshake()
        connection = http.client.HTTPConnection(endpoint.host, endpoint.port)
        connection.sock = sock
        connection.putrequest("POST", endpoint.target, skip_host=True, skip_accept_encoding=True)
        sent = {"Host": endpoint.authority, "User-Agent": USER_AGENT, "Content-Length": str(len(body)), "Connection": "close", **headers}
        for name, value in sent.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        with connection.getresponse() as response:
            if late.is_set():  # http.client accepts headers that were cut short
                raise TimeoutError
            with suppress(OSError, http.client.HTTPException):  # the status is known; the rest is read so that the receiver sees no reset
                response.read(MAX_RESPONSE_BYTES)
        return WebhookResponse(response.status, _retry_after(response.getheader("Retry-After")))


@contextmanager
def _with_deadline(sock: socket.socket, seconds: float) -> Iterator[threading.Event]:
    """Shut the socket down after `seconds`, whatever it is doing, and set the event.

    Close the socket at the end.
    """
    late = threading.Event()

    def shut() -> None:
        late.set()
        with suppress(OSError):
            socket.socket.shutdown(sock, socket.SHUT_RDWR)  # also of TLS: a blocked read sees the end of the stream

    watchdog = threading.Timer(seconds, shut)
    watchdog.daemon = True
    watchdog.start()
    try:
        yield late
    finally:
        watchdog.cancel()
        sock.close()


def _describe_error(exc: Exception, *, late: bool) -> str:
    """Return a message of our own for an error: the receiver's text could contain anything."""
    if late or isinstance(exc, TimeoutError):
        return "there was no answer in time"
    if isinstance(exc, ssl.SSLCertVerificationError):
        return "the certificate of the host is not valid for it"
    if isinstance(exc, ssl.SSLError):
        return "no TLS connection could be made"
    if isinstance(exc, http.client.HTTPException):
        return "the answer was not HTTP, or was cut short"
    return "the connection was lost"


def _retry_after(value: str | None) -> float | None:
    """Return the seconds of a Retry-After header, from a number or a date."""
    if value is None:
        return None
    if value.strip().isascii() and value.strip().isdigit():
        return float(value.strip()[:9])
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
