"""Serve `app.py` over HTTP in this process, for clients that are programs of their own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import requests

from tests.kit.app_adapter import BASE_URL, session
from tests.kit.http import Api


@contextmanager
def serve(api: Api) -> Iterator[tuple[str, list[requests.Response]]]:
    """Yield the address, and the responses that have been sent."""
    sent: list[requests.Response] = []
    forward = session(api)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = forward.get(BASE_URL + self.path, headers=dict(self.headers.items()))
            sent.append(answer)
            self.send_response(answer.status_code)
            for name in ("Content-Type", "X-Request-Id"):
                if name in answer.headers:
                    self.send_header(name, answer.headers[name])
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, *_args: object) -> None:
            """Print nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", sent
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
