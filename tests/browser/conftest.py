"""A real browser, and a page from another origin than the API."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.e2e.stack import ROOT, Api, Model, Stack, running_stack

CHROMIUM = "/usr/bin/chromium"
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
]
PAGE = b"<!doctype html><meta charset=utf-8><link rel=icon href=data:,><title>Another origin</title>"


class AnotherOrigin(SimpleHTTPRequestHandler):
    """Serves an empty page at `/`, and the JavaScript client beside it."""

    def do_GET(self) -> None:
        if self.path != "/":
            return super().do_GET()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(PAGE)))
        self.end_headers()
        self.wfile.write(PAGE)
        return None

    def log_message(self, *_arguments: Any) -> None:
        """Log nothing."""


AnotherOrigin.extensions_map[".mjs"] = "text/javascript"


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The laptop cloud of this checkout. Its stage allows every origin."""
    yield from running_stack()


@pytest.fixture(scope="session")
def api(stack: Stack) -> Api:
    return stack.api()


@pytest.fixture
def model(stack: Stack) -> Model:
    return stack.model()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, headless.

    It ends with its module, because Playwright keeps an event loop in this thread.
    """
    if not shutil.which(CHROMIUM):
        missing = f"Chromium is not at {CHROMIUM}: `apt-get install chromium`."
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def site() -> Iterator[str]:
    """The URL of the page."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(AnotherOrigin, directory=ROOT / "clients" / "js")) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def page(browser: Browser, site: str) -> Iterator[Page]:
    """The page in a new tab. An uncaught error in it fails the test."""
    opened = browser.new_page()
    problems: list[str] = []
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.goto(site)
    yield opened
    opened.close()
    assert problems == []
