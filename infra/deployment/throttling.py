"""The throttles of the REST and of the WebSocket stage, which Chalice cannot set.

Without them a flood of requests, even without a key, uses up what the whole account may do.
"""

from __future__ import annotations

from typing import Any

from infra.chalice_config import REST_THROTTLE, WEBSOCKET_THROTTLE, Throttle
from infra.cloud import Cloud
from infra.naming import API_STAGE


def set_throttles(cloud: Cloud, rest_api_id: str, websocket_api_id: str) -> list[str]:
    """Set the throttles that differ. Returns which: `REST`, `WebSocket`."""
    changed = []
    if rest_throttle(cloud, rest_api_id) != (rest := REST_THROTTLE[cloud.stage]):
        limits = {"rateLimit": rest.rate, "burstLimit": rest.burst}
        operations = [{"op": "replace", "path": f"/*/*/throttling/{name}", "value": str(value)} for name, value in limits.items()]
        cloud.client("apigateway").update_stage(restApiId=rest_api_id, stageName=API_STAGE, patchOperations=operations)
        changed.append("REST")
    if websocket_throttle(cloud, websocket_api_id) != (websocket := WEBSOCKET_THROTTLE[cloud.stage]):
        settings = {"ThrottlingRateLimit": float(websocket.rate), "ThrottlingBurstLimit": websocket.burst}
        cloud.client("apigatewayv2").update_stage(ApiId=websocket_api_id, StageName=API_STAGE, DefaultRouteSettings=settings)
        changed.append("WebSocket")
    return changed


def rest_throttle(cloud: Cloud, api_id: str) -> Throttle | None:
    """The throttle of the REST stage; None if it has none of its own."""
    stage = cloud.client("apigateway").get_stage(restApiId=api_id, stageName=API_STAGE)
    settings = stage.get("methodSettings", {}).get("*/*", {})
    return _throttle(settings.get("throttlingRateLimit"), settings.get("throttlingBurstLimit"))


def websocket_throttle(cloud: Cloud, api_id: str) -> Throttle | None:
    """The throttle of the WebSocket stage; None if it has none of its own."""
    settings = cloud.client("apigatewayv2").get_stage(ApiId=api_id, StageName=API_STAGE).get("DefaultRouteSettings", {})
    return _throttle(settings.get("ThrottlingRateLimit"), settings.get("ThrottlingBurstLimit"))


def _throttle(rate: Any, burst: Any) -> Throttle | None:
    return Throttle(int(float(rate)), int(float(burst))) if rate and burst else None
