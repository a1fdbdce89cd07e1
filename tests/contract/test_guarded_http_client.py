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
def there() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


class Network:
    """A network in which public addresses lead to this machine. `connected` are the addresses of the connections."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers, self.asked, self.connected = list(answers), 0, list[str]()

    def resolve(self, _host: str, _port: int) -> list[str]:
        self.asked += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def connect(self, address: str, port: int, timeout: float) -> socket.socket:
        self.connected.append(address)
        return connect("127.0.0.1", port, timeout)


def refused(post: GuardedHttpClient, url: str) -> DeliveryError:
    with pytest.raises(DeliveryError) as caught:
        post.post(url, b"{}", {})
    return caught.value


def test_what_is_posted_arrives(there: Receiver) -> None:
    """With path, query, headers and the host as the address names it."""
    there.respond = lambda handler: answer(handler, 202, b"thanks", Retry_After="7")

    posted = GuardedHttpClient(LOOPBACK).post(there.url(path="/hook?a=b"), b'{"x":1}', {"Content-Type": "application/json"})

    (got,) = there.received
    assert (posted.status, posted.retry_after) == (202, 7.0)
    assert (got.path, got.body, got.headers["content-type"]) == ("/hook?a=b", b'{"x":1}', "application/json")
    assert got.headers["host"] == f"127.0.0.1:{there.port}"


def test_retry_after_may_be_a_date(there: Receiver) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    there.respond = lambda handler: answer(handler, 503, Retry_After=later)

    posted = GuardedHttpClient(LOOPBACK).post(there.url(), b"", {})

    assert posted.retry_after is not None
    assert 60 < posted.retry_after <= 90


@pytest.mark.parametrize("said", ["soon", "-5", "", "9" * 400])
def test_a_retry_after_that_says_nothing_is_no_error(there: Receiver, said: str) -> None:
    there.respond = lambda handler: answer(handler, 503, Retry_After=said)

    assert GuardedHttpClient(LOOPBACK).post(there.url(), b"", {}).status == 503


@pytest.mark.parametrize("private", ["127.0.0.1", "10.0.0.5", "169.254.169.254", "::1", "::ffff:127.0.0.1", "fd00:ec2::254", "100.64.1.1"])
def test_a_name_at_a_private_address_is_not_connected_to(private: str) -> None:
    """Not even where it is one of several."""
    for found in ([private], [PUBLIC, private], [private, PUBLIC]):
        network = Network(found)

        problem = refused(GuardedHttpClient(resolve=network.resolve, connect=network.connect), f"https://{NAME}/")

        assert problem.final
        assert "public" in problem.message
        assert network.connected == []


def test_a_name_that_changes_its_mind_cannot_win(tmp_path: Path) -> None:
    """It is resolved once, and what was checked is what is connected to: the second, private answer is never asked for."""
    shown, trusted = certificate_for(NAME, tmp_path)
    with receiver(shown) as there:
        network = Network([PUBLIC], ["127.0.0.1"])

        posted = GuardedHttpClient(resolve=network.resolve, connect=network.connect, trust=trusted).post(
            f"https://{NAME}:{there.port}/hook", b"{}", {}
        )

        assert posted.status == 204
        assert (network.asked, network.connected) == (1, [PUBLIC])
        assert there.received[0].headers["host"] == f"{NAME}:{there.port}"


def test_a_certificate_must_be_for_the_name(tmp_path: Path) -> None:
    """That of another name, or of nobody's making, gets no request; another try may meet a better one."""
    shown, trusted = certificate_for("other.example.com", tmp_path)
    with receiver(shown) as there:
        for trust in (trusted, ssl.create_default_context()):
            network = Network([PUBLIC])

            problem = refused(
                GuardedHttpClient(resolve=network.resolve, connect=network.connect, trust=trust), f"https://{NAME}:{there.port}/hook"
            )

            assert problem.message == "the certificate of the host is not valid for it"
            assert not problem.final
        assert there.received == []


def test_without_tls_nothing_leaves_the_allowed_networks() -> None:
    """Even to a public address: http is for one's own network."""
    network = Network([PUBLIC])

    problem = refused(GuardedHttpClient(LOOPBACK, resolve=network.resolve, connect=network.connect), f"http://{NAME}/")

    assert problem.final
    assert network.connected == []


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/", "https://127.0.0.1:8443/", "https://localhost/", "file:///etc/passwd"])
def test_by_default_this_machine_is_not_reached(url: str) -> None:
    network = Network(["127.0.0.1"])

    assert refused(GuardedHttpClient(resolve=network.resolve, connect=network.connect), url).final
    assert network.connected == []


def test_a_redirect_is_an_answer(there: Receiver) -> None:
    there.respond = lambda handler: answer(handler, 307, Location="http://169.254.169.254/latest/meta-data")

    assert GuardedHttpClient(LOOPBACK).post(there.url(), b"", {}).status == 307
    assert len(there.received) == 1


def test_a_proxy_of_the_environment_is_not_asked(there: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    assert GuardedHttpClient(LOOPBACK).post(there.url(), b"", {}).status == 204


def test_a_receiver_that_says_nothing_is_waited_for_no_longer_than_it_may(there: Receiver) -> None:
    there.respond = lambda _handler: time.sleep(3)
    began = time.monotonic()

    problem = refused(GuardedHttpClient(LOOPBACK, seconds=0.3), there.url())

    assert problem.message == "there was no answer in time"
    assert not problem.final
    assert time.monotonic() - began < 2


def test_a_receiver_that_drips_is_cut_off(there: Receiver) -> None:
    """Each byte begins a socket's timeout anew; the watchdog's time is for all of it."""
    there.respond = lambda handler: drip(handler, 5)
    began = time.monotonic()

    problem = refused(GuardedHttpClient(LOOPBACK, seconds=0.3), there.url())

    assert problem.message == "there was no answer in time"
    assert time.monotonic() - began < 2


def test_a_receiver_that_drips_before_its_certificate_is_cut_off() -> None:
    """A server that accepts and never shakes hands."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        network, began = Network([PUBLIC]), time.monotonic()

        problem = refused(
            GuardedHttpClient(resolve=network.resolve, connect=network.connect, seconds=0.3), f"https://{NAME}:{silent.getsockname()[1]}/"
        )

    assert problem.message == "there was no answer in time"
    assert time.monotonic() - began < 2


def test_of_a_huge_answer_only_a_little_is_read(there: Receiver) -> None:
    """Its status counts; a body without end keeps nobody."""
    there.respond = lambda handler: answer(handler, 200, b"x" * 50_000_000)

    assert GuardedHttpClient(LOOPBACK, seconds=5).post(there.url(), b"", {}).status == 200


def test_headers_without_end_are_no_answer(there: Receiver) -> None:
    there.respond = lambda handler: answer(handler, 200, X_Long="x" * 100_000)

    assert "HTTP" in refused(GuardedHttpClient(LOOPBACK), there.url()).message


@pytest.mark.parametrize("said", [b"", b"hello\r\n\r\n", b"HTTP/9.9 what\r\n\r\n", b"\xff\xfe\r\n"])
def test_what_is_not_http_is_said_to_be_so(there: Receiver, said: bytes) -> None:
    there.respond = lambda handler: handler.wfile.write(said) and None

    problem = refused(GuardedHttpClient(LOOPBACK), there.url())

    assert not problem.final
    assert "hello" not in problem.message


def test_nobody_there_is_no_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]

    assert refused(GuardedHttpClient(LOOPBACK), f"http://127.0.0.1:{port}/").message == "no connection could be made"


def test_a_name_that_is_not_there_may_be_there_later() -> None:
    def resolve(_host: str, _port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    assert not refused(GuardedHttpClient(resolve=resolve), f"https://{NAME}/").final


def test_the_next_address_is_tried_where_one_does_not_take_the_connection(tmp_path: Path) -> None:
    shown, trusted = certificate_for(NAME, tmp_path)
    with receiver(shown) as there:
        network = Network(["1.1.1.1", PUBLIC])
        tried: list[str] = []

        def connecting(address: str, port: int, timeout: float) -> socket.socket:
            tried.append(address)
            if address == "1.1.1.1":
                raise ConnectionRefusedError
            return network.connect(address, port, timeout)

        post = GuardedHttpClient(resolve=network.resolve, connect=connecting, trust=trusted)

        assert post.post(f"https://{NAME}:{there.port}/", b"{}", {}).status == 204
        assert tried == ["1.1.1.1", PUBLIC]
