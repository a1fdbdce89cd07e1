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


def preflight(app: Any, origin: str) -> tuple[int, dict[str, str]]:
    """Send a preflight request, and return the status and the headers of the response."""
    headers = {"origin": origin, "access-control-request-method": "DELETE"}
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
