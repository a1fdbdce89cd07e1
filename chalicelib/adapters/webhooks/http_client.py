"""HTTP to addresses that others gave us, without becoming their way into our network.

A name is resolved once, every address that it has must be public, and the connection goes to exactly the address that was checked: a name
that changes its mind in between ("rebinding") cannot win. TLS is verified against the name all the same. Redirects are answers, not ways;
no proxy of the environment is asked. The time for all of it is bounded by a watchdog: a socket's own timeout begins anew with each byte.

On the standard library: the clients that are there connect by themselves, to whatever a second resolution says.
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
MAX_RESPONSE_BYTES = 65_536  # bytes of an answer that are taken off the wire; nothing of them is kept
USER_AGENT = "Headrace/0.1 (+webhooks)"

Resolve = Callable[[str, int], Sequence[str]]
Connect = Callable[[str, int, float], socket.socket]


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a name, in the system's order."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(place[4][0]) for place in found))


def connect(address: str, port: int, timeout: float) -> socket.socket:
    return socket.create_connection((address, port), timeout)


class GuardedHttpClient:
    """`allowed`: networks that may be reached besides public ones, and without TLS. `trust` replaces the system's certificates."""

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
        addresses = self._checked(endpoint)
        sock = self._secured(endpoint, self._connected(endpoint, addresses))
        with _with_deadline(sock, self._seconds) as late:
            try:
                return self._exchange(endpoint, sock, body, headers, late)
            except (OSError, http.client.HTTPException, ValueError) as exc:
                raise DeliveryError(_describe_error(exc, late=late.is_set())) from exc

    def _secured(self, endpoint: WebhookUrl, sock: socket.socket) -> socket.socket:
        """The handshake comes later, when the watchdog is there."""
        if endpoint.scheme == "http":
            return sock
        try:
            return self._context().wrap_socket(sock, server_hostname=endpoint.host, do_handshake_on_connect=False)
        except (OSError, ValueError) as exc:
            sock.close()
            raise DeliveryError(_describe_error(exc, late=False)) from exc

    def _context(self) -> ssl.SSLContext:
        """Made at the first use: the system's certificates take some 20 ms to read."""
        with self._lock:
            if self._trust is None:
                self._trust = ssl.create_default_context()
            return self._trust

    def _checked(self, endpoint: WebhookUrl) -> list[str]:
        """The addresses that may be connected to: none, if one of them may not be."""
        found = self._addresses(endpoint)
        parsed = [parse_ip(address) for address in found]
        if not all(address is not None and self._may_reach(address, endpoint) for address in parsed):
            raise DeliveryError("the host is not at a public address", final=True)
        return found[:ADDRESSES_TRIED]

    def _addresses(self, endpoint: WebhookUrl) -> list[str]:
        if parse_ip(endpoint.host) is not None:
            return [endpoint.host]
        try:
            found = list(self._resolve(endpoint.host, endpoint.port))
        except (OSError, UnicodeError) as exc:
            raise DeliveryError("the name of the host could not be resolved") from exc
        if not found:
            raise DeliveryError("the name of the host could not be resolved")
        return found

    def _may_reach(self, address: Address, endpoint: WebhookUrl) -> bool:
        if endpoint.scheme == "http":
            return is_within(address, self._allowed)
        return is_allowed(address, self._allowed)

    def _connected(self, endpoint: WebhookUrl, addresses: Sequence[str]) -> socket.socket:
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
            if late.is_set():  # headers that were cut short are headers to the library
                raise TimeoutError
            with suppress(OSError, http.client.HTTPException):  # the status is known; what follows is read out of politeness
                response.read(MAX_RESPONSE_BYTES)
        return WebhookResponse(response.status, _retry_after(response.getheader("Retry-After")))


@contextmanager
def _with_deadline(sock: socket.socket, seconds: float) -> Iterator[threading.Event]:
    """Shut the socket when its time is over, whatever it is doing; the event says so. It is closed in any case."""
    late = threading.Event()

    def shut() -> None:
        late.set()
        with suppress(OSError):
            socket.socket.shutdown(sock, socket.SHUT_RDWR)  # of TLS, too: whoever reads it sees its end

    watchdog = threading.Timer(seconds, shut)
    watchdog.daemon = True
    watchdog.start()
    try:
        yield late
    finally:
        watchdog.cancel()
        sock.close()


def _describe_error(exc: Exception, *, late: bool) -> str:
    """What went wrong, in words of ours: a receiver's own could hold anything."""
    if late or isinstance(exc, TimeoutError):
        return "there was no answer in time"
    if isinstance(exc, ssl.SSLCertVerificationError):
        return "the certificate of the host is not valid for it"
    if isinstance(exc, ssl.SSLError):
        return "no TLS connection could be made"
    if isinstance(exc, http.client.HTTPException):
        return "the answer was not HTTP, or was cut short"
    return "the connection was lost"


def _retry_after(said: str | None) -> float | None:
    """Seconds, from a number or a date."""
    if said is None:
        return None
    if said.strip().isascii() and said.strip().isdigit():
        return float(said.strip()[:9])
    try:
        return max(0.0, (parsedate_to_datetime(said) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
