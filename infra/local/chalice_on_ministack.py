"""`chalice` for the emulator: the command of every stage with five of its AWS calls replaced.

Three concern the REST API: ministack cannot import one (see `rest_api.py`) and rejects
`UpdateRestApi` operations without a value. Two wait for a function and would poll only every five
seconds, nine times per deployment.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from chalice.awsclient import TypedAWSClient
from chalice.cli import main

from infra.cloud import Cloud
from infra.deployment import chalice_command
from infra.local.rest_api import put_rest_api

_original_update = TypedAWSClient.update_rest_api


def import_rest_api(client: TypedAWSClient, swagger_document: dict[str, Any], endpoint_type: str) -> str:
    return put_rest_api(_cloud(), swagger_document)


def update_api_from_swagger(client: TypedAWSClient, rest_api_id: str, swagger_document: dict[str, Any]) -> None:
    put_rest_api(_cloud(), swagger_document)


def update_rest_api(client: TypedAWSClient, rest_api_id: str, patch_operations: list[dict[str, Any]]) -> None:
    operations = [operation for operation in patch_operations if operation.get("value")]
    if operations:
        _original_update(client, rest_api_id, operations)


def wait_for(waiter: str) -> Callable[[TypedAWSClient, str], None]:
    def wait(client: TypedAWSClient, function_name: str) -> None:
        client._client("lambda").get_waiter(waiter).wait(FunctionName=function_name, WaiterConfig={"Delay": 0.03, "MaxAttempts": 1000})

    return wait


def _cloud() -> Cloud:
    return Cloud("local", os.environ["AWS_ENDPOINT_URL"])


REPLACEMENTS = {
    "import_rest_api": import_rest_api,
    "update_api_from_swagger": update_api_from_swagger,
    "update_rest_api": update_rest_api,
    "_wait_for_active": wait_for("function_active"),
    "_wait_for_function_update": wait_for("function_updated"),
}

if __name__ == "__main__":
    chalice_command.install()
    for method, replacement in REPLACEMENTS.items():
        setattr(TypedAWSClient, method, replacement)
    sys.exit(main())
