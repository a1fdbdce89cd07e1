"""CORS: browsers may call the API from pages of allowed origins only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from chalice import Chalice

from chalicelib.entrypoints.http.cors import add_cors_preflight
from chalicelib.settings import settings
from tests.kit.http import CONTEXT

PAGE = "https://page.example"


@pytest.fixture
def origins(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    settings.cache_clear()
    monkeypatch.setenv("HEADRACE_ALLOWED_ORIGINS", f"{PAGE}, https://other.example")
    yield monkeypatch
    settings.cache_clear()


def make_app() -> Any:
    app = Chalice("headrace")
    app.route("/jobs", methods=["GET"])(lambda: None)
    app.route("/jobs/{job_id}", methods=["GET", "DELETE"], name="one")(lambda job_id: {})
    add_cors_preflight(app)
    return app


def preflight(app: Any, origin: str, asked: str = "authorization") -> tuple[int, dict[str, str]]:
    """Send a preflight request, and return the status and the headers of the response."""
    headers = {"origin": origin, "access-control-request-method": "DELETE", "access-control-request-headers": asked}
    path = {"resourcePath": "/jobs/{job_id}", "httpMethod": "OPTIONS", "path": "/api/jobs/job_1", "requestId": "r1"}
    event = {"requestContext": path, "headers": headers, "multiValueQueryStringParameters": None, "pathParameters": {"job_id": "job_1"}}
    answer = app({**event, "stageVariables": None, "body": None, "isBase64Encoded": False}, CONTEXT)
    return answer["statusCode"], answer["headers"]


def test_a_preflight_from_an_allowed_origin_is_accepted(origins: pytest.MonkeyPatch) -> None:
    """The response names only the requesting origin, so several origins can be allowed."""
    status, headers = preflight(make_app(), PAGE)

    assert status == 204
    assert headers["Access-Control-Allow-Origin"] == PAGE
    assert headers["Access-Control-Allow-Methods"] == "GET, DELETE"
    assert "Authorization" in headers["Access-Control-Allow-Headers"]
    assert headers["Vary"] == "Origin"


@pytest.mark.parametrize(
    "header",
    [
        "traceparent",
        "tracestate",
        "baggage",
        "sentry-trace",
        "x-datadog-trace-id",
        "x-request-id",
        "x-amzn-trace-id",
        "b3",
        "newrelic",
        "my-own",
    ],
)
def test_a_preflight_allows_the_headers_that_tracing_adds(origins: pytest.MonkeyPatch, header: str) -> None:
    """A browser does not send a request of which one header is not allowed."""
    _, headers = preflight(make_app(), PAGE, f"authorization,content-type,{header}")

    allowed = [name.lower() for name in headers["Access-Control-Allow-Headers"].split(", ")]
    assert {"authorization", "content-type", "last-event-id", header} <= set(allowed)
    assert len(set(allowed)) == len(allowed)


def test_a_preflight_does_not_repeat_what_is_no_name_of_a_header(origins: pytest.MonkeyPatch) -> None:
    _, headers = preflight(make_app(), PAGE, "x-ok, bad header, ü, a\r\nset-cookie: x, " + "y" * 200)

    assert headers["Access-Control-Allow-Headers"].split(", ")[6:] == ["x-ok"]


def test_a_preflight_allows_a_bounded_number_of_headers(origins: pytest.MonkeyPatch) -> None:
    _, headers = preflight(make_app(), PAGE, ",".join(f"x-{number}" for number in range(5_000)))

    assert len(headers["Access-Control-Allow-Headers"]) < 2_000


def test_a_preflight_from_another_origin_allows_nothing(origins: pytest.MonkeyPatch) -> None:
    """Without these headers the browser does not send the request."""
    status, headers = preflight(make_app(), "https://evil.example")

    assert status == 204
    assert [name for name in headers if name.startswith("Access-Control")] == []


def test_no_options_routes_exist_without_allowed_origins(origins: pytest.MonkeyPatch) -> None:
    """No allowed origins is the default outside the laptop setup."""
    origins.setenv("HEADRACE_ALLOWED_ORIGINS", "")
    settings.cache_clear()

    assert {method for methods in make_app().routes.values() for method in methods} == {"GET", "DELETE"}
