"""The gateway responses have the error shape of the API."""

from __future__ import annotations

import json
from typing import Any

import pytest

from infra.cloud import Cloud
from infra.gateway_responses import GATEWAY_RESPONSES, set_gateway_responses


class RecordingCloud(Cloud):
    """A cloud whose clients record their calls."""

    def __init__(self) -> None:
        super().__init__("dev")
        object.__setattr__(self, "calls", [])

    calls: list[tuple[str, dict[str, Any]]]

    def client(self, service: str) -> Any:
        calls = self.calls

        class Client:
            def __getattr__(self, name: str) -> Any:
                return lambda **arguments: calls.append((name, arguments))

        return Client()


def responses(origins: str) -> dict[str, dict[str, Any]]:
    cloud = RecordingCloud()
    set_gateway_responses(cloud, "api1", origins)
    return {arguments["responseType"]: arguments for name, arguments in cloud.calls if name == "put_gateway_response"}


@pytest.mark.parametrize("response_type", list(GATEWAY_RESPONSES))
def test_every_gateway_response_has_the_error_shape(response_type: str) -> None:
    body = json.loads(responses("")[response_type]["responseTemplates"]["application/json"])

    assert body["success"] is False
    assert set(body["error"]) == {"code", "message", "request_id", "details"}
    assert body["error"]["request_id"] == "$context.requestId"


def test_gateway_404_does_not_describe_the_request() -> None:
    answer = responses("")["MISSING_AUTHENTICATION_TOKEN"]

    assert answer["statusCode"] == "404"
    assert "$context.error" not in answer["responseTemplates"]["application/json"]


@pytest.mark.parametrize(
    ("origins", "header"),
    [
        ("", None),  # no cross-origin browsers
        ("https://a.example", "'https://a.example'"),
        ("https://a.example, https://b.example", "'*'"),  # a gateway response cannot pick an origin; it holds no data
        ("*", "'*'"),
    ],
)
def test_gateway_errors_allow_the_configured_origins(origins: str, header: str | None) -> None:
    parameters = responses(origins)["THROTTLED"]["responseParameters"]

    assert parameters.get("gatewayresponse.header.Access-Control-Allow-Origin") == header
    assert parameters["gatewayresponse.header.Headrace-Version"] == "'1'"


def test_stage_is_redeployed_after_the_gateway_responses() -> None:
    """A deployment holds a copy of the gateway responses."""
    cloud = RecordingCloud()

    set_gateway_responses(cloud, "api1", "")

    assert cloud.calls[-1][0] == "create_deployment"
    assert cloud.calls[-1][1]["stageName"] == "api"
