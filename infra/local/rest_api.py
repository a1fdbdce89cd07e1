"""Create a REST API on the emulator from an OpenAPI document, with single calls.

ministack accepts `ImportRestApi` and `PutRestApi` but ignores the document, and its CloudFormation
omits the preflight responses and the binary types. The id is fixed, so that addresses survive a
restart.
"""

from __future__ import annotations

from typing import Any

from infra.cloud import Cloud

API_ID = "headrace"

Document = dict[str, Any]


def put_rest_api(cloud: Cloud, document: Document) -> str:
    """Delete and recreate the API under its fixed id.

    This removes its stage and gateway responses; the rest of the deployment sets them again.
    """
    client = cloud.client("apigateway")
    if any(api["id"] == API_ID for api in client.get_rest_apis(limit=500)["items"]):
        client.delete_rest_api(restApiId=API_ID)
    client.create_rest_api(
        name=document["info"]["title"],
        endpointConfiguration={"types": ["REGIONAL"]},
        binaryMediaTypes=document.get("x-amazon-apigateway-binary-media-types", []),
        tags={"ms-custom-id": API_ID},
    )
    resources = {"": client.get_resources(restApiId=API_ID)["items"][0]["id"]}
    for path, methods in document["paths"].items():
        resource = _resource(client, resources, path.rstrip("/"))
        for method, operation in methods.items():
            _put_method(client, resource, method.upper(), operation)
    return API_ID


def _resource(client: Any, resources: dict[str, str], path: str) -> str:
    """The id of the resource of a path, created with its parents if it is missing."""
    if path not in resources:
        parent_path, _, part = path.rpartition("/")
        parent = _resource(client, resources, parent_path)
        resources[path] = client.create_resource(restApiId=API_ID, parentId=parent, pathPart=part)["id"]
    return resources[path]


def _put_method(client: Any, resource: str, method: str, operation: dict[str, Any]) -> None:
    method_key = {"restApiId": API_ID, "resourceId": resource, "httpMethod": method}
    integration = operation["x-amazon-apigateway-integration"]
    client.put_method(**method_key, authorizationType="NONE")
    client.put_integration(
        **method_key,
        type=integration["type"].upper(),
        integrationHttpMethod=integration.get("httpMethod", "POST"),
        uri=integration.get("uri", ""),
        requestTemplates=integration.get("requestTemplates", {}),
    )
    if integration["type"] == "mock":
        for response in integration["responses"].values():
            _put_mock_response(client, method_key, response)


def _put_mock_response(client: Any, method_key: dict[str, str], response: dict[str, Any]) -> None:
    headers = response.get("responseParameters", {})
    client.put_method_response(**method_key, statusCode=response["statusCode"], responseParameters=dict.fromkeys(headers, False))
    client.put_integration_response(**method_key, statusCode=response["statusCode"], responseParameters=headers)
