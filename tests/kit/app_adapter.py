"""Serve `requests` by `app.py` in this process, with what API Gateway makes of a request."""

from __future__ import annotations

import io
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import requests
from requests.adapters import BaseAdapter, HTTPAdapter
from urllib3 import HTTPResponse

from tests.kit.http import CONTEXT, Api

BASE_URL = "http://api.test"
# Where no route matches, API Gateway answers itself.
NOT_FOUND = '{"success":false,"error":{"code":"not_found","message":"There is no such route.","request_id":"-","details":[]}}'


class AppAdapter(BaseAdapter):
    """A transport of `requests.Session` for `BASE_URL`."""

    def __init__(self, api: Api) -> None:
        super().__init__()
        self.api = api

    def send(self, request: requests.PreparedRequest, *_args: Any, **_kwargs: Any) -> requests.Response:
        """Answer a request."""
        parts = urlsplit(str(request.url))
        matched = self.api.find_route(parts.path)
        if matched is None:
            return _response(request, 404, {"Content-Type": "application/json"}, NOT_FOUND)
        resource, values = matched
        headers = {name.lower(): _text(value) for name, value in request.headers.items()}
        query: dict[str, list[str]] = {}
        for name, value in parse_qsl(parts.query, keep_blank_values=True, errors="replace"):
            query.setdefault(name, []).append(value)
        event = {
            "requestContext": {
                "resourcePath": resource,
                "httpMethod": request.method,
                "path": f"/api{parts.path}",
                "requestId": "request-1",
            },
            "headers": headers,
            "multiValueQueryStringParameters": query or None,
            "pathParameters": {name: unquote(value) for name, value in values.items()} or None,
            "stageVariables": None,
            "body": _body(request.body),
            "isBase64Encoded": False,
        }
        answer = self.api.app(event, CONTEXT)
        received = {**answer["headers"], **{name: values[0] for name, values in answer.get("multiValueHeaders", {}).items()}}
        return _response(request, answer["statusCode"], received, answer["body"])

    def close(self) -> None:
        """Nothing is open."""


def session(api: Api) -> requests.Session:
    """A session whose requests to `BASE_URL` are served by `api`."""
    made = requests.Session()
    made.trust_env = False
    made.mount(BASE_URL, AppAdapter(api))
    return made


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value.encode("utf-8", "replace").decode()


def _body(body: Any) -> str | None:
    """The body as text, as API Gateway passes it: what is not UTF-8 becomes U+FFFD."""
    if body is None:
        return None
    return body.decode("utf-8", "replace") if isinstance(body, bytes) else str(body)


def _response(request: requests.PreparedRequest, status: int, headers: dict[str, str], text: str) -> requests.Response:
    raw = HTTPResponse(body=io.BytesIO(text.encode()), headers=headers, status=status, preload_content=False)
    return HTTPAdapter().build_response(request, raw)
