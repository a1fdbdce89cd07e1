"""The versions of secrets, on the twin and on moto."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chalicelib.adapters.aws.names import tenant_secret_name
from chalicelib.adapters.stores import DynamoStores
from tests.kit.aws_calls import counted_calls


@pytest.mark.parametrize("tenant", ["acme", "zweigstelle münchen", "日" * 128, "\ud800"])
def test_version_of_a_secret_is_the_one_stored_last(stores: Any, tenant: str) -> None:
    name = tenant_secret_name("dev", tenant, "webhooks")
    assert stores.secret_versions.get(name) is None

    for version in ("one", "two"):
        stores.secret_versions.put(name, version)
        assert stores.secret_versions.get(name) == stores.secret_versions.get(name, consistent=True) == version
    assert stores.secret_versions.get(tenant_secret_name("dev", tenant, "addresses")) is None


def test_version_is_read_eventually_consistently_unless_asked_otherwise(dynamo_stores: DynamoStores) -> None:
    """So the check before each use costs half a unit."""
    with counted_calls("dynamodb", "GetItem") as calls:
        dynamo_stores.secret_versions.get("name")
        dynamo_stores.secret_versions.get("name", consistent=True)

    assert [json.loads(call["body"])["ConsistentRead"] for call in calls] == [False, True]
