"""The responses that API Gateway sends without calling a function, in the error shape of the API.

Its defaults answer an unknown route with 403, may repeat the token of the caller in the message,
and have no CORS headers, so that a browser cannot even read the status.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from infra.cloud import Cloud
from infra.naming import API_STAGE


@dataclass(frozen=True)
class GatewayResponse:
    """One gateway response. `message` must not quote the request."""

    code: str
    message: str
    status: int | None = None  # None keeps the default of API Gateway
    retry_after: int | None = None


_UNAUTHENTICATED = GatewayResponse("unauthenticated", "Send a valid key as `Authorization: Bearer hr_...`.", 401)
_FORBIDDEN = GatewayResponse("forbidden", "This key may not do that.", 403)
_THROTTLED = GatewayResponse("rate_limited", "Too many requests; try again shortly.", 429, retry_after=1)
_INVALID = GatewayResponse("invalid_request", "The request is not valid.", 400)
_UNAVAILABLE = GatewayResponse("unavailable", "No answer in time; try again.", 503, retry_after=1)
_INTERNAL = GatewayResponse("internal_error", "Something went wrong here; try again, and report the request id if it persists.", 500)

GATEWAY_RESPONSES: dict[str, GatewayResponse] = {
    "DEFAULT_4XX": GatewayResponse("invalid_request", "The request was refused."),
    "DEFAULT_5XX": GatewayResponse("internal_error", _INTERNAL.message),
    "MISSING_AUTHENTICATION_TOKEN": GatewayResponse("not_found", "There is no such route; docs/api.md lists them.", 404),
    "RESOURCE_NOT_FOUND": GatewayResponse("not_found", "There is no such route; docs/api.md lists them.", 404),
    "UNAUTHORIZED": _UNAUTHENTICATED,
    "INVALID_SIGNATURE": _UNAUTHENTICATED,
    "EXPIRED_TOKEN": _UNAUTHENTICATED,
    "INVALID_API_KEY": _UNAUTHENTICATED,
    "ACCESS_DENIED": _FORBIDDEN,
    "WAF_FILTERED": _FORBIDDEN,
    "BAD_REQUEST_BODY": _INVALID,
    "BAD_REQUEST_PARAMETERS": _INVALID,
    "UNSUPPORTED_MEDIA_TYPE": GatewayResponse("unsupported_media_type", "Send `Content-Type: application/json`.", 415),
    "REQUEST_TOO_LARGE": GatewayResponse("too_large", "A request may have 4 MB.", 413),
    "THROTTLED": _THROTTLED,
    "QUOTA_EXCEEDED": _THROTTLED,
    "INTEGRATION_FAILURE": _UNAVAILABLE,
    "INTEGRATION_TIMEOUT": _UNAVAILABLE,
    "API_CONFIGURATION_ERROR": _INTERNAL,
    "AUTHORIZER_CONFIGURATION_ERROR": _INTERNAL,
    "AUTHORIZER_FAILURE": _INTERNAL,
}


def set_gateway_responses(cloud: Cloud, rest_api_id: str, allowed_origins: str) -> None:
    """Set all gateway responses and redeploy the API, because a deployment holds a copy of them."""
    client = cloud.client("apigateway")
    for response_type, answer in GATEWAY_RESPONSES.items():
        arguments = {"statusCode": str(answer.status)} if answer.status else {}
        client.put_gateway_response(
            restApiId=rest_api_id,
            responseType=response_type,
            responseParameters=_headers(answer, allowed_origins),
            responseTemplates={"application/json": _body(answer)},
            **arguments,
        )
    client.create_deployment(restApiId=rest_api_id, stageName=API_STAGE, description="gateway responses")


def _headers(answer: GatewayResponse, allowed_origins: str) -> dict[str, str]:
    headers = {
        "Headrace-Version": "'1'",
        "Cache-Control": "'no-store'",
        "X-Request-Id": "context.requestId",
        "Access-Control-Expose-Headers": "'X-Request-Id,Headrace-Version,Retry-After'",
    }
    origin = _origin(allowed_origins)
    if origin:
        headers["Access-Control-Allow-Origin"] = origin
    if answer.retry_after:
        headers["Retry-After"] = f"'{answer.retry_after}'"
    return {f"gatewayresponse.header.{name}": value for name, value in headers.items()}


def _origin(allowed_origins: str) -> str | None:
    """The allowed origin as a constant: the only one, or `*` if there are several.

    A gateway response cannot pick an origin per request. `*` is safe: these responses hold no data
    and the API takes no cookies.
    """
    origins = [origin.strip() for origin in allowed_origins.split(",") if origin.strip()]
    if not origins:
        return None
    return f"'{origins[0]}'" if len(origins) == 1 else "'*'"


def _body(answer: GatewayResponse) -> str:
    error = {"code": answer.code, "message": answer.message, "request_id": "$context.requestId", "details": []}
    return json.dumps({"success": False, "error": error})
