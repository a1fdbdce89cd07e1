"""Limits of tenants, on the twin and on moto."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chalicelib.adapters.stores import DynamoStores
from chalicelib.domain.errors import StaleVersion
from chalicelib.domain.limits.tenant_limits import TenantLimits
from tests.contract.conftest import LoseResponse
from tests.kit.dynamodb import counted_requests
from tests.kit.records import NOW, new_id


def limits(**changes: Any) -> TenantLimits:
    values: dict[str, Any] = {"tenant": f"tenant {new_id()} ü#1", "version": 1, "updated_at": NOW, "updated_by": "root"}
    return TenantLimits(**(values | changes))


def save(stores: Any, new: TenantLimits) -> TenantLimits:
    stores.tenant_limits.replace(TenantLimits(tenant=new.tenant), new)
    return new


def test_limits_round_trip(stores: Any) -> None:
    given = save(
        stores,
        limits(
            weight=0.5,
            fair_by="user",
            was_by_user=True,
            concurrency=7,
            user_concurrency=1,
            queued={"low": 5, "total": 9},
            highest_concurrency=90,
            highest_user_concurrency=2,
        ),
    )

    assert stores.tenant_limits.get(given.tenant) == given
    assert given in stores.tenant_limits.all()
    assert given.tenant in stores.tenant_limits.tenants()


def test_unknown_tenant_has_none(stores: Any) -> None:
    name = new_id()

    assert stores.tenant_limits.get(name) is None
    assert name not in stores.tenant_limits.tenants()


def test_replace_is_refused_when_the_version_is_stale(stores: Any) -> None:
    """Also for the first limits of a tenant."""
    first = save(stores, limits(concurrency=3))
    second = replace(first, version=2, concurrency=4)
    stores.tenant_limits.replace(first, second)

    for seen in (first, TenantLimits(tenant=first.tenant)):
        with pytest.raises(StaleVersion) as stale:
            stores.tenant_limits.replace(seen, replace(seen, version=seen.version + 1, concurrency=9))
        assert stale.value.current == second


def test_replace_succeeds_when_its_response_is_lost(stores: Any, lose_response: LoseResponse) -> None:
    first = limits(concurrency=3)
    with lose_response("PutItem"):
        save(stores, first)
    second = replace(first, version=2, concurrency=None)
    with lose_response("UpdateItem"):
        stores.tenant_limits.replace(first, second)
    stores.tenant_limits.replace(first, second)

    assert stores.tenant_limits.get(first.tenant) == second


def test_names_of_limited_tenants_are_one_request(dynamo_stores: DynamoStores) -> None:
    for _ in range(30):
        save(dynamo_stores, limits(weight=2.0))

    with counted_requests() as requests:
        assert len(dynamo_stores.tenant_limits.tenants()) >= 30

    assert requests == {"GetItem": 1}
