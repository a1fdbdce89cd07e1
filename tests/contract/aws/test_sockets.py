"""The sockets, on the in-memory twin and against a local server in place of API Gateway (moto never responds 410)."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

import pytest
from botocore.exceptions import ClientError

from chalicelib.adapters.aws import client as aws
from chalicelib.adapters.aws.websocket_api import ApiGatewaySockets
from chalicelib.adapters.memory.streaming import MemorySockets
from chalicelib.domain.errors import ConnectionBusy, ConnectionGone, ConnectionRefused
from chalicelib.ports import Sockets

FRAME = b'{"event": "token", "text": "\xc3\xa4"}'
CODES = {410: "GoneException", 429: "LimitExceededException", 403: "ForbiddenException", 413: "PayloadTooLargeException"}


class Gateway:
    """API Gateway's management API. `status` is what it responds, 0 for no response."""

    def __init__(self) -> None:
        self.status = 200
        self.pause = 0.0
        self.requests: list[tuple[str, str, bytes]] = []
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                gateway.requests.append((self.command, self.path, body))
                time.sleep(gateway.pause)
                if not gateway.status:
                    self.close_connection = True
                    return
                self.send_response(gateway.status)
                self.send_header("x-amzn-ErrorType", CODES.get(gateway.status, ""))
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            do_GET = do_POST = do_DELETE = answer  # noqa: N815 - http.server calls these names

            def log_message(self, *_: Any) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}/_aws/execute-api/abc/dev"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Side(Protocol):
    """Sockets and the side that receives what they post."""

    sockets: Sockets
    endpoint: str

    def posted(self) -> list[Any]: ...

    def refuse(self, gone: bool) -> None: ...


class InMemory:
    endpoint = "https://abc.execute-api.eu-central-1.amazonaws.com/dev"

    def __init__(self) -> None:
        self.sockets = MemorySockets()

    def posted(self) -> list[Any]:
        return self.sockets.events("c=1")

    def refuse(self, gone: bool) -> None:
        if gone:
            self.sockets.gone.add("c=1")
        else:
            self.sockets.busy["c=1"] = 1


class OnGateway:
    def __init__(self, gateway: Gateway) -> None:
        self.gateway, self.endpoint = gateway, gateway.endpoint
        self.sockets = ApiGatewaySockets()

    def posted(self) -> list[Any]:
        return [json.loads(body) for verb, path, body in self.gateway.requests if verb == "POST" and path.endswith("/c%3D1")]

    def refuse(self, gone: bool) -> None:
        self.gateway.status = 410 if gone else 429


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    for name, value in {"AWS_DEFAULT_REGION": "eu-central-1", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}.items():
        monkeypatch.setenv(name, value)
    aws.reset_clients()
    gateway = Gateway()
    yield gateway
    aws.client("apigatewaymanagementapi", endpoint_url=gateway.endpoint, attempts=1).close()
    aws.reset_clients()
    gateway.stop()


@pytest.fixture(params=["memory", "gateway"])
def side(request: pytest.FixtureRequest) -> Side:
    return InMemory() if request.param == "memory" else OnGateway(request.getfixturevalue("gateway"))


def test_posting_a_frame_to_an_open_connection_succeeds(side: Side) -> None:
    side.sockets.post(side.endpoint, "c=1", FRAME)

    assert side.posted() == [{"event": "token", "text": "\u00e4"}]


def test_posting_to_a_gone_connection_raises_connection_gone(side: Side) -> None:
    side.refuse(gone=True)

    for _ in range(2):
        with pytest.raises(ConnectionGone):
            side.sockets.post(side.endpoint, "c=1", FRAME)


def test_posting_to_a_busy_connection_raises_connection_busy(side: Side) -> None:
    side.refuse(gone=False)

    with pytest.raises(ConnectionBusy):
        side.sockets.post(side.endpoint, "c=1", FRAME)


def test_closing_a_gone_connection_is_no_error(side: Side) -> None:
    side.refuse(gone=True)

    side.sockets.close(side.endpoint, "c=1")


def test_is_open_is_false_for_a_gone_connection(side: Side) -> None:
    assert side.sockets.is_open(side.endpoint, "c=1")

    side.refuse(gone=True)

    assert not side.sockets.is_open(side.endpoint, "c=1")


def test_is_open_raises_connection_busy_when_throttled(side: Side) -> None:
    """A busy API Gateway must not make a connection look closed."""
    side.refuse(gone=False)

    with pytest.raises(ConnectionBusy):
        side.sockets.is_open(side.endpoint, "c=1")


# ---- on API Gateway


def test_requests_go_to_the_recorded_endpoint(gateway: Gateway) -> None:
    sockets = ApiGatewaySockets()

    sockets.post(gateway.endpoint, "c=1", FRAME)
    sockets.close(gateway.endpoint, "c=1")

    path = "/_aws/execute-api/abc/dev/@connections/c%3D1"
    assert [(verb, where.replace("%40", "@"), body) for verb, where, body in gateway.requests] == [
        ("POST", path, FRAME),
        ("DELETE", path, b""),
    ]


@pytest.mark.parametrize("status", [429, 500, 503, 0])
def test_transient_post_errors_are_busy_and_not_retried(gateway: Gateway, status: int) -> None:
    """The socket writer repeats the post itself, from the acknowledged offset."""
    gateway.status = status

    with pytest.raises(ConnectionBusy):
        ApiGatewaySockets().post(gateway.endpoint, "c=1", FRAME)
    assert len(gateway.requests) == 1


@pytest.mark.parametrize("status", [400, 403, 404])
def test_permanent_errors_raise_connection_refused(gateway: Gateway, status: int) -> None:
    gateway.status = status

    with pytest.raises(ConnectionRefused, match=str(status)):
        ApiGatewaySockets().post(gateway.endpoint, "c=1", FRAME)
    with pytest.raises(ConnectionRefused, match=str(status)):
        ApiGatewaySockets().is_open(gateway.endpoint, "c=1")


def test_410_raises_connection_gone_not_connection_refused(gateway: Gateway) -> None:
    """A connection that is refused for another reason may still be open."""
    gateway.status = 410

    with pytest.raises(ConnectionGone) as gone:
        ApiGatewaySockets().post(gateway.endpoint, "c=1", FRAME)
    assert not isinstance(gone.value, ConnectionRefused)


@pytest.mark.parametrize("status", [429, 500, 0])
def test_is_open_is_not_retried(gateway: Gateway, status: int) -> None:
    gateway.status = status

    with pytest.raises(ConnectionBusy):
        ApiGatewaySockets().is_open(gateway.endpoint, "c=1")
    assert [verb for verb, _, _ in gateway.requests] == ["GET"]


def test_slow_post_is_connection_busy(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """The timeout is a few seconds, not botocore's minute."""
    monkeypatch.setattr(gateway, "pause", 0.6)
    monkeypatch.setattr(aws, "client", partial(aws.client, read_timeout=0.2))

    with pytest.raises(ConnectionBusy):
        ApiGatewaySockets().post(gateway.endpoint, "c=1", FRAME)


def test_oversized_frame_raises_an_error(gateway: Gateway) -> None:
    with pytest.raises(ValueError, match="131072"):
        ApiGatewaySockets().post(gateway.endpoint, "c=1", b"x" * 131_073)
    assert gateway.requests == []

    gateway.status = 413
    with pytest.raises(ClientError):
        ApiGatewaySockets().post(gateway.endpoint, "c=1", FRAME)


def test_unreachable_endpoint_is_connection_busy(gateway: Gateway) -> None:
    with pytest.raises(ConnectionBusy):
        ApiGatewaySockets().post("http://127.0.0.1:9/dev", "c=1", FRAME)
