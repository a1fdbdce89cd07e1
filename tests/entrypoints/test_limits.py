"""`/limits`: what a tenant sees of its limits, and who may set them."""

from __future__ import annotations

from typing import Any

import pytest

from chalicelib.domain.auth.identity import Key, Role
from chalicelib.domain.jobs import transitions
from chalicelib.services.auth.authenticate import secret_hash
from tests.entrypoints.conftest import Api
from tests.kit.records import job

NO_QUEUED = dict.fromkeys(["total", "urgent", "high", "normal", "low"])
UNLIMITED = {
    "tenant": "acme",
    "weight": 1.0,
    "fair_by": "tenant",
    "concurrency": None,
    "running": None,
    "user_concurrency": None,
    "user_running": None,
    "queued": NO_QUEUED,
    "shards": 1,
    "updated_at": None,
    "updated_by": None,
}


def put(api: Api, body: dict[str, Any], tenant: str = "acme", token: str | None = "stage_admin") -> Any:
    return api.call("PUT", f"/limits/tenants/{tenant}", body, token)


def test_tenant_without_limits_sees_that_it_has_none(api: Api) -> None:
    answer = api.call("GET", "/limits", token="viewer")

    assert (answer.status, answer.json["limits"], answer.json["tenants"]) == (200, UNLIMITED, None)


def test_limits_that_are_set_are_shown_with_their_use(api: Api) -> None:
    answer = put(api, {"weight": 2.5, "concurrency": 40, "user_concurrency": 3, "queued": {"low": 500, "total": 900}, "fair_by": "user"})
    assert answer.status == 200
    waiting = job(tenant="acme", user="carol")
    api.container.jobs.create(waiting)
    running = transitions.claim(waiting, 1, "lease#x", 5, slots=("t:acme#1", "u:acme#carol#0"))
    assert running is not None
    api.container.jobs.replace(waiting, running)

    shown = api.call("GET", "/limits", token="viewer").json["limits"]

    assert (shown["weight"], shown["concurrency"], shown["running"], shown["user_concurrency"], shown["user_running"]) == (2.5, 40, 1, 3, 0)
    assert (shown["queued"], shown["fair_by"]) == (NO_QUEUED | {"low": 500, "total": 900}, "user")
    assert (shown["updated_at"], shown["updated_by"]) == (answer.json["updated_at"], None)  # an operator's name is not for tenants


def test_what_a_request_does_not_name_stays_and_null_unsets(api: Api) -> None:
    put(api, {"concurrency": 40, "queued": {"low": 500, "total": 900}})
    changed = put(api, {"queued": {"low": None}, "weight": 3}).json
    unset = put(api, {"concurrency": None, "queued": None, "weight": None}).json

    assert (changed["concurrency"], changed["queued"], changed["weight"]) == (40, NO_QUEUED | {"total": 900}, 3.0)
    assert (unset["concurrency"], unset["queued"], unset["weight"]) == (None, NO_QUEUED, 1.0)


def test_stage_settings_hold_where_a_tenant_has_no_limit_of_its_own(api: Api) -> None:
    from dataclasses import replace

    api.container.settings = replace(api.container.settings, tenant_concurrency=7, user_concurrency=2, tenant_queued=99)
    put(api, {"concurrency": 4})

    shown = api.call("GET", "/limits").json["limits"]

    assert (shown["concurrency"], shown["user_concurrency"], shown["queued"]["total"]) == (4, 2, 99)


def test_key_of_all_tenants_sees_every_tenant_with_limits_and_who_set_them(api: Api) -> None:
    put(api, {"concurrency": 4})
    put(api, {"weight": 2}, tenant="b%C3%A4r%2F1")

    tenants = api.call("GET", "/limits", token="stage_admin").json["tenants"]

    assert [(one["tenant"], one["weight"], one["concurrency"], one["updated_by"]) for one in tenants] == [
        ("acme", 1.0, 4, "hal"),
        ("bär/1", 2.0, None, "hal"),
    ]


def test_limits_that_are_set_hold_for_the_jobs_of_the_tenant(api: Api) -> None:
    """A limit that is accepted is enforced."""
    put(api, {"concurrency": 1})

    limits = api.container.limits_of("acme")

    assert [(limit.scope, limit.limit) for limit in limits.slots_of("ann")] == [("t:acme", 1)]


@pytest.mark.parametrize(("token", "status"), [(None, 401), ("viewer", 403), ("user", 403), ("operator", 403), ("admin", 403)])
def test_only_admins_of_all_tenants_set_limits(api: Api, token: str | None, status: int) -> None:
    """Not even those of its own tenant: a tenant may not raise its own share."""
    assert put(api, {"weight": 9}, token=token).status == status
    assert api.container.tenant_limits.all() == []


def test_operator_of_all_tenants_may_not_set_limits(api: Api) -> None:
    key = Key(id="key_all", hash=secret_hash("hr_all"), tenant="house", user="o", role=Role.OPERATOR, created_at=1, all_tenants=True)
    api.container.api_keys.put_key(key)

    assert put(api, {"weight": 9}, token="all").status == 403


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, ""),
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": "4"}, "concurrency"),
        ({"user_concurrency": 1.5}, "user_concurrency"),
        ({"weight": 0}, "weight"),
        ({"weight": 1_000}, "weight"),
        ({"queued": {"slow": 4}}, "queued"),
        ({"queued": {"low": -1}}, "queued.low"),
        ({"fair_by": "chance"}, "fair_by"),
        ({"shards": 17}, "shards"),
        ({"version": 3}, ""),
    ],
)
def test_invalid_limits_are_refused(api: Api, body: dict[str, Any], path: str) -> None:
    answer = put(api, body)

    assert answer.status == 400
    assert answer.json["error"]["details"][0]["path"].startswith(path)
    assert api.container.tenant_limits.all() == []


def test_shards_may_only_grow(api: Api) -> None:
    put(api, {"shards": 4})

    answer = put(api, {"shards": 2})

    assert (answer.status, answer.json["error"]["details"][0]["path"]) == (400, "shards")


@pytest.mark.parametrize("name", ["x" * 129, "%20x", "a%0Ab"])
def test_invalid_tenant_name_is_refused(api: Api, name: str) -> None:
    answer = put(api, {"weight": 2}, tenant=name)

    assert (answer.status, answer.json["error"]["details"][0]["path"]) == (400, "tenant")
