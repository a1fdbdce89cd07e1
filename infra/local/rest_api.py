"""A REST API on the emulator, made of an OpenAPI document by single calls.

ministack accepts `ImportRestApi` and `PutRestApi` but ignores the document, and its CloudFormation leaves out the preflight answers and
the binary types. The id is fixed, so an address survives a restart.
"""

from __future__ import annotations

from typing import Any

from infra.cloud import Cloud

API_ID = "headrace"

Document = dict[str, Any]


def put_rest_api(cloud: Cloud, document: Document) -> str:
    """Make the API anew under its id. Its stage and gateway responses go; the deployment that follows sets them again."""
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
    """The id of a path's resource, made with those above it when it is missing."""
    if path not in resources:
        above, _, part = path.rpartition("/")
        parent = _resource(client, resources, above)
        resources[path] = client.create_resource(restApiId=API_ID, parentId=parent, pathPart=part)["id"]
    return resources[path]


def _put_method(client: Any, resource: str, method: str, operation: dict[str, Any]) -> None:
    place = {"restApiId": API_ID, "resourceId": resource, "httpMethod": method}
    integration = operation["x-amazon-apigateway-integration"]
    client.put_method(**place, authorizationType="NONE")
    client.put_integration(
        **place,
        type=integration["type"].upper(),
        integrationHttpMethod=integration.get("httpMethod", "POST"),
        uri=integration.get("uri", ""),
        requestTemplates=integration.get("requestTemplates", {}),
    )
    if integration["type"] == "mock":
        for answer in integration["responses"].values():
            _put_mock_answer(client, place, answer)


def _put_mock_answer(client: Any, place: dict[str, str], answer: dict[str, Any]) -> None:
    headers = answer.get("responseParameters", {})
    client.put_method_response(**place, statusCode=answer["statusCode"], responseParameters=dict.fromkeys(headers, False))
    client.put_integration_response(**place, statusCode=answer["statusCode"], responseParameters=headers)
