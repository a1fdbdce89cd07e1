"""The access log: one line per request, without secrets."""

from __future__ import annotations

from typing import Any

import pytest

from chalicelib.entrypoints.http import access_log
from tests.kit.http import Api

Lines = list[dict[str, Any]]


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Lines:
    """The log lines that are written, as dicts."""
    written: Lines = []
    monkeypatch.setattr(access_log, "record", lambda event, **fields: written.append({"event": event, **fields}))
    return written


def test_a_request_writes_one_log_line(api: Api, lines: Lines) -> None:
    """The line has the route pattern, not the path with its ids."""
    job_id = api.submit()
    lines.clear()

    api.call("GET", f"/jobs/{job_id}/stream?offset=7", token="user", last_event_id="0:5")

    assert lines == [
        {
            "event": "request",
            "method": "GET",
            "route": "/jobs/{job_id}/stream",
            "status": 200,
            "ms": 20_000,
            "tenant": "acme",
            "key_id": "key_user",
            "request_id": "request-1",
        }
    ]


def test_refused_requests_are_logged(api: Api, lines: Lines) -> None:
    """The tenant is logged where known; refusals by the framework are logged too."""
    api.call("GET", "/me", token=None)
    api.call("POST", "/jobs", {"prompt": "x"}, "viewer")
    api.call("POST", "/jobs", raw="x", content_type="text/plain")
    api.call("DELETE", "/me")
    api.call("GET", "/health", token=None)

    assert [(line["status"], line["tenant"]) for line in lines] == [(401, None), (403, "acme"), (415, "acme"), (405, None), (200, None)]


def test_no_query_and_no_secret_is_logged(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    """Tickets are in the query, keys and idempotency keys in headers."""
    job_id = api.submit()
    ticket = api.call("POST", "/stream-tickets", {}).json["ticket"]
    caplog.clear()

    with caplog.at_level("DEBUG"):
        api.call("GET", f"/jobs/{job_id}/stream?ticket={ticket}", token=None)
        api.call("POST", "/jobs", {"prompt": "private"}, idempotency_key="secret-key")

    logged = " ".join(str(vars(line)) for line in caplog.records)
    assert [vars(line)["route"] for line in caplog.records] == ["/jobs/{job_id}/stream", "/jobs"]
    for secret in (ticket, "ticket=", "hr_user", "secret-key", "private"):
        assert secret not in logged
