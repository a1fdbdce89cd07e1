"""The guarded HTTP client against servers on this machine: no private address is reached, and every request is bounded in time."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from chalicelib.adapters.webhooks.http_client import GuardedHttpClient, connect
from chalicelib.domain.errors import DeliveryError
from chalicelib.domain.notifications.network_policy import networks
from tests.kit.receiver import Receiver, answer, certificate_for, drip, receiver

LOOPBACK = networks(["127.0.0.0/8"])
PUBLIC = "93.184.215.14"
NAME = "hooks.example.com"


@pytest.fixture
def server() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


class Network:
    """A network in which public addresses lead to this machine. `connected` are the addresses of the connections."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers, self.lookups, self.connected = list(answers), 0, list[str]()

    def resolve(self, _host: str, _port: int) -> list[str]:
        self.lookups += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def connect(self, address: str, port: int, timeout: float) -> socket.socket:
        self.connected.append(address)
        return connect("127.0.0.1", port, timeout)


def error_of(client: GuardedHttpClient, url: str) -> DeliveryError:
    with pytest.raises(DeliveryError) as caught:
        client.post(url, b"{}", {})
    return caught.value


def test_post_sends_path_query_body_headers_and_host(server: Receiver) -> None:
    """The status and `Retry-After` of the response are returned."""
    server.respond = lambda handler: answer(handler, 202, b"thanks", Retry_After="7")

    posted = GuardedHttpClient(LOOPBACK).post(server.url(path="/hook?a=b"), b'{"x":1}', {"Content-Type": "application/json"})

    (got,) = server.received
    assert (posted.status, posted.retry_after) == (202, 7.0)
    assert (got.path, got.body, got.headers["content-type"]) == ("/hook?a=b", b'{"x":1}', "application/json")
    assert got.headers["host"] == f"127.0.0.1:{server.port}"


def test_retry_after_may_be_a_date(server: Receiver) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    server.respond = lambda handler: answer(handler, 503, Retry_After=later)

    posted = GuardedHttpClient(LOOPBACK).post(server.url(), b"", {})

    assert posted.retry_after is not None
    assert 60 < posted.retry_after <= 90


@pytest.mark.parametrize("header", ["soon", "-5", "", "9" * 400])
def test_invalid_retry_after_is_no_error(server: Receiver, header: str) -> None:
    server.respond = lambda handler: answer(handler, 503, Retry_After=header)

    assert GuardedHttpClient(LOOPBACK).post(server.url(), b"", {}).status == 503


@pytest.mark.parametrize("private", ["127.0.0.1", "10.0.0.5", "169.254.169.254", "::1", "::ffff:127.0.0.1", "fd00:ec2::254", "100.64.1.1"])
def test_name_with_a_private_address_is_refused_for_now(private: str) -> None:
    """One private address among several is enough. The name may resolve to others later."""
    for found in ([private], [PUBLIC, private], [private, PUBLIC]):
        network = Network(found)

        problem = error_of(GuardedHttpClient(resolve=network.resolve, connect=network.connect), f"https://{NAME}/")

        assert (problem.final, problem.forbidden) == (False, True)
        assert "public" in problem.message
        assert network.connected == []


@pytest.mark.parametrize("url", ["https://10.0.0.5/", "https://[::1]/", "https://0.0.0.0/", "https://169.254.169.254/latest"])
def test_private_address_in_the_url_is_refused_for_good(url: str) -> None:
    network = Network([PUBLIC])

    problem = error_of(GuardedHttpClient(resolve=network.resolve, connect=network.connect), url)

    assert (problem.final, problem.forbidden) == (True, False)
    assert (network.lookups, network.connected) == (0, [])


def test_dns_rebinding_cannot_reach_a_private_address(tmp_path: Path) -> None:
    """The name is resolved once, and the connection goes to the address that was checked."""
    server_tls, client_tls = certificate_for(NAME, tmp_path)
    with receiver(server_tls) as server:
        network = Network([PUBLIC], ["127.0.0.1"])

        posted = GuardedHttpClient(resolve=network.resolve, connect=network.connect, trust=client_tls).post(
            f"https://{NAME}:{server.port}/hook", b"{}", {}
        )

        assert posted.status == 204
        assert (network.lookups, network.connected) == (1, [PUBLIC])
        assert server.received[0].headers["host"] == f"{NAME}:{server.port}"


def test_certificate_must_be_trusted_and_match_the_host(tmp_path: Path) -> None:
    """No request is sent; the error is retryable, because the certificate may be replaced."""
    server_tls, client_tls = certificate_for("other.example.com", tmp_path)
    with receiver(server_tls) as server:
        for trust in (client_tls, ssl.create_default_context()):
            network = Network([PUBLIC])

            problem = error_of(
                GuardedHttpClient(resolve=network.resolve, connect=network.connect, trust=trust), f"https://{NAME}:{server.port}/hook"
            )

            assert problem.message == "the certificate of the host is not valid for it"
            assert not problem.final
        assert server.received == []


def test_plain_http_is_refused_outside_the_allowed_networks() -> None:
    """Even a public address is refused: for good if it is in the URL, for now if a name resolves to it."""
    network = Network([PUBLIC])
    client = GuardedHttpClient(LOOPBACK, resolve=network.resolve, connect=network.connect)

    named, literal = error_of(client, f"http://{NAME}/"), error_of(client, f"http://{PUBLIC}/")

    assert (named.final, named.forbidden) == (False, True)
    assert (literal.final, literal.forbidden) == (True, False)
    assert network.connected == []


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/", "https://127.0.0.1:8443/", "https://localhost/", "file:///etc/passwd"])
def test_loopback_and_file_urls_are_refused_by_default(url: str) -> None:
    network = Network(["127.0.0.1"])

    assert error_of(GuardedHttpClient(resolve=network.resolve, connect=network.connect), url).final
    assert network.connected == []


def test_redirects_are_not_followed(server: Receiver) -> None:
    server.respond = lambda handler: answer(handler, 307, Location="http://169.254.169.254/latest/meta-data")

    assert GuardedHttpClient(LOOPBACK).post(server.url(), b"", {}).status == 307
    assert len(server.received) == 1


def test_proxy_settings_of_the_environment_are_ignored(server: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    assert GuardedHttpClient(LOOPBACK).post(server.url(), b"", {}).status == 204


def test_silent_receiver_times_out(server: Receiver) -> None:
    server.respond = lambda _handler: time.sleep(3)
    began = time.monotonic()

    problem = error_of(GuardedHttpClient(LOOPBACK, seconds=0.3), server.url())

    assert problem.message == "there was no answer in time"
    assert not problem.final
    assert time.monotonic() - began < 2


def test_dripping_receiver_times_out(server: Receiver) -> None:
    """Each byte restarts the socket's timeout; the watchdog limits the whole request."""
    server.respond = lambda handler: drip(handler, 5)
    began = time.monotonic()

    problem = error_of(GuardedHttpClient(LOOPBACK, seconds=0.3), server.url())

    assert problem.message == "there was no answer in time"
    assert time.monotonic() - began < 2


def test_stalled_tls_handshake_times_out() -> None:
    """The server accepts the connection and never answers the handshake."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        network, began = Network([PUBLIC]), time.monotonic()

        problem = error_of(
            GuardedHttpClient(resolve=network.resolve, connect=network.connect, seconds=0.3), f"https://{NAME}:{silent.getsockname()[1]}/"
        )

    assert problem.message == "there was no answer in time"
    assert time.monotonic() - began < 2


def test_huge_response_body_does_not_fail_the_post(server: Receiver) -> None:
    """Only the status of the response is needed."""
    server.respond = lambda handler: answer(handler, 200, b"x" * 50_000_000)

    assert GuardedHttpClient(LOOPBACK, seconds=5).post(server.url(), b"", {}).status == 200


def test_oversized_response_header_is_an_error(server: Receiver) -> None:
    server.respond = lambda handler: answer(handler, 200, X_Long="x" * 100_000)

    assert "HTTP" in error_of(GuardedHttpClient(LOOPBACK), server.url()).message


@pytest.mark.parametrize("response", [b"", b"hello\r\n\r\n", b"HTTP/9.9 what\r\n\r\n", b"\xff\xfe\r\n"])
def test_non_http_response_is_retryable_and_not_quoted(server: Receiver, response: bytes) -> None:
    server.respond = lambda handler: handler.wfile.write(response) and None

    problem = error_of(GuardedHttpClient(LOOPBACK), server.url())

    assert not problem.final
    assert "hello" not in problem.message


def test_refused_connection_is_a_delivery_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]

    assert error_of(GuardedHttpClient(LOOPBACK), f"http://127.0.0.1:{port}/").message == "no connection could be made"


def test_unresolvable_host_is_retryable() -> None:
    def resolve(_host: str, _port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    assert not error_of(GuardedHttpClient(resolve=resolve), f"https://{NAME}/").final


def test_next_address_is_tried_after_a_refused_connection(tmp_path: Path) -> None:
    server_tls, client_tls = certificate_for(NAME, tmp_path)
    with receiver(server_tls) as server:
        network = Network(["1.1.1.1", PUBLIC])
        tried: list[str] = []

        def connecting(address: str, port: int, timeout: float) -> socket.socket:
            tried.append(address)
            if address == "1.1.1.1":
                raise ConnectionRefusedError
            return network.connect(address, port, timeout)

        client = GuardedHttpClient(resolve=network.resolve, connect=connecting, trust=client_tls)

        assert client.post(f"https://{NAME}:{server.port}/", b"{}", {}).status == 204
        assert tried == ["1.1.1.1", PUBLIC]
