"""`/limits`: what a tenant sees of its limits, and who may set them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest

from chalicelib.domain.auth.identity import Key, Role
from chalicelib.domain.jobs import transitions
from chalicelib.domain.jobs.job import Status
from chalicelib.domain.limits.rate_limit import ACCOUNT, LimitSource, RateLimit
from chalicelib.domain.queues.causes import bucket_of, shard_of
from chalicelib.domain.queues.lanes import SCHEDULE
from chalicelib.services.auth.authenticate import secret_hash
from chalicelib.services.limits import stage_limits
from chalicelib.services.scheduling.visits import ShardMessage
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
    answer = put(api, {"weight": 2.5, "concurrency": 40, "user_concurrency": 3, "queued": {"low": 500, "total": 900}})
    assert answer.status == 200
    waiting = job(tenant="acme", user="carol")
    api.container.jobs.create(waiting)
    running = transitions.claim(waiting, 1, "lease#x", 5, slots=("t:acme#1", "u:acme#carol#0"))
    assert running is not None
    api.container.jobs.replace(waiting, running)

    shown = api.call("GET", "/limits", token="viewer").json["limits"]

    assert (shown["weight"], shown["concurrency"], shown["running"], shown["user_concurrency"], shown["user_running"]) == (2.5, 40, 1, 3, 0)
    assert shown["queued"] == NO_QUEUED | {"low": 500, "total": 900}
    assert (shown["updated_at"], shown["updated_by"]) == (answer.json["updated_at"], None)  # an operator's name is not for tenants


def test_what_a_request_does_not_name_stays_and_null_unsets(api: Api) -> None:
    put(api, {"concurrency": 40, "queued": {"low": 500, "total": 900}})
    changed = put(api, {"queued": {"low": None}, "weight": 3}).json
    unset = put(api, {"concurrency": None, "queued": None, "weight": None}).json

    assert (changed["concurrency"], changed["queued"], changed["weight"]) == (40, NO_QUEUED | {"total": 900}, 3.0)
    assert (unset["concurrency"], unset["queued"], unset["weight"]) == (None, NO_QUEUED, 1.0)


def test_a_tenant_is_shared_by_its_users_until_that_is_unset(api: Api) -> None:
    shared = put(api, {"fair_by": "user"})
    kept = put(api, {"weight": 2})
    unset = put(api, {"fair_by": None})

    assert [(one.status, one.json["fair_by"]) for one in (shared, kept, unset)] == [(200, "user"), (200, "user"), (200, "tenant")]
    assert api.call("GET", "/limits", token="viewer").json["limits"]["fair_by"] == "tenant"


@pytest.mark.parametrize("value", ["users", "", 1, True, ["user"]])
def test_sharing_by_anything_else_is_refused(api: Api, value: Any) -> None:
    refused = put(api, {"fair_by": value})

    assert (refused.status, refused.json["error"]["code"]) == (400, "invalid_request")
    assert [detail["path"] for detail in refused.json["error"]["details"]] == ["fair_by"]
    assert api.container.tenant_limits.all() == []


def test_jobs_in_both_lines_of_a_tenant_are_counted_by_lane(api: Api) -> None:
    """A tenant may have jobs in both lines of a cause."""
    store = api.container.jobs
    held: dict[str, Any] = {"tenant": "acme", "status": Status.HELD, "reason": "rate_limited", "cause": "rate:gpt-4o-mini"}
    for number, (user, lane, by_user) in enumerate(
        [("ann", "normal", True), ("ann", "normal", True), ("bob", "low", True), ("ann", "urgent", False)]
    ):
        store.create(job(id=f"job_{number:026d}", user=user, lane=lane, line_by_user=by_user, **held))
    for by_user in (True, False):
        api.container.lines.touch("rate:gpt-4o-mini", "acme", api.container.clock.now(), by_user=by_user)
    limit = RateLimit(model="gpt-4o-mini", account=ACCOUNT, configured_requests=60, version=1)
    api.container.rates.save_limit(RateLimit(model="gpt-4o-mini", account=ACCOUNT), limit)

    own = api.call("GET", "/limits", token="viewer").json["models"][0]["waiting"]
    all_tenants = api.call("GET", "/limits", token="stage_admin").json["models"][0]["waiting"]

    assert own == {"urgent": 1, "high": 0, "normal": 2, "low": 1, "others": 0, "by_tenant": None, "more": False}
    assert (all_tenants["others"], all_tenants["by_tenant"]) == (4, {"acme": 4})


def test_stage_settings_hold_where_a_tenant_has_no_limit_of_its_own(api: Api) -> None:
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


def test_submission_above_the_queued_jobs_limit_is_refused_with_its_numbers(api: Api) -> None:
    put(api, {"queued": {"low": 1}})
    assert api.call("POST", "/jobs", {"prompt": "x", "priority": "low"}).status == 202

    full = api.call("POST", "/jobs", {"prompt": "x", "priority": "low"})

    assert (full.status, full.headers["retry-after"]) == (429, "30")
    error = full.json["error"]
    assert (error["code"], error["lane"], error["limit"], error["open"]) == ("queue_full", "low", 1, 1)
    assert api.call("POST", "/jobs", {"prompt": "x"}).status == 202


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
        ({"slots": 2}, ""),
        ({"version": 3}, ""),
    ],
)
def test_invalid_limits_are_refused(api: Api, body: dict[str, Any], path: str) -> None:
    answer = put(api, body)

    assert answer.status == 400
    assert answer.json["error"]["details"][0]["path"].startswith(path)
    assert api.container.tenant_limits.all() == []


@pytest.mark.parametrize("name", ["x" * 129, "%20x", "a%0Ab"])
def test_invalid_tenant_name_is_refused(api: Api, name: str) -> None:
    answer = put(api, {"weight": 2}, tenant=name)

    assert (answer.status, answer.json["error"]["details"][0]["path"]) == (400, "tenant")


MODEL = "gpt-4o-mini"


def put_model(api: Api, body: dict[str, Any], model: str = MODEL, token: str | None = "stage_admin") -> Any:
    return api.call("PUT", f"/limits/models/{model}", body, token)


def hold_in_line(api: Api, cause: str, tenant: str, lane: str = "normal") -> None:
    now = api.container.clock.now()
    api.container.lines.touch(cause, tenant, now)
    api.container.lines_cache.put(bucket_of(cause), (0, []))  # as after some seconds
    api.container.jobs.create(job(tenant=tenant, lane=lane, status=Status.HELD, reason="rate_limited", cause=cause))


def test_limits_of_a_model_that_are_set_are_shown_with_use_and_who_waits(api: Api) -> None:
    answer = put_model(api, {"requests": 500, "tokens": 200_000})
    assert (answer.status, answer.json["configured"]) == (200, {"requests": 500, "tokens": 200_000})
    api.container.rates.take(ACCOUNT, MODEL, 700, 2, api.container.clock.now())
    for tenant, lane in (("acme", "urgent"), ("acme", "low"), ("acme", "low"), ("other", "normal"), ("third", "high")):
        hold_in_line(api, f"rate:{MODEL}", tenant, lane)

    (mine,) = api.call("GET", "/limits", token="viewer").json["models"]
    (all_of_them,) = api.call("GET", "/limits", token="stage_admin").json["models"]

    assert (mine["model"], mine["requests"], mine["tokens"], mine["source"]) == (MODEL, 500, 200_000, "setting")
    assert mine["used"] == {"requests": 2, "tokens": 700}
    assert mine["waiting"] == {"urgent": 1, "high": 0, "normal": 0, "low": 2, "others": 2, "by_tenant": None, "more": False}
    assert (all_of_them["waiting"]["by_tenant"], all_of_them["waiting"]["others"]) == ({"acme": 3, "other": 1, "third": 1}, 5)


def test_a_lower_configured_limit_wins_and_null_clears_it(api: Api) -> None:
    learnt = RateLimit(model=MODEL, account=ACCOUNT, requests=500, source=LimitSource.HEADER, version=1)
    api.container.rates.save_limit(RateLimit(model=MODEL, account=ACCOUNT), learnt)

    lowered = put_model(api, {"requests": 60}).json
    kept = put_model(api, {"tokens": 9_000}).json
    cleared = put_model(api, {"requests": None, "tokens": None}).json

    assert (lowered["requests"], lowered["source"], kept["requests"], kept["tokens"]) == (60, "header", 60, 9_000)
    assert (cleared["requests"], cleared["tokens"], cleared["configured"]) == (500, None, {"requests": None, "tokens": None})


def test_the_scheduler_looks_at_the_line_of_a_model_whose_limits_are_set(api: Api) -> None:
    put_model(api, {"requests": 500})

    assert visits(api) == [shard_of(f"rate:{MODEL}", api.container.scheduler_shards)]


def test_the_scheduler_looks_at_the_lines_of_a_model_whose_circuit_is_closed_by_hand(api: Api) -> None:
    """It may start requests again, whether it waited for the circuit or for the rate limit."""
    assert api.call("POST", f"/circuits/{MODEL}/close", {}, "stage_admin").status == 200

    assert visits(api) == [shard_of(f"{kind}:{MODEL}", api.container.scheduler_shards) for kind in ("circuit", "rate")]


def visits(api: Api) -> list[int]:
    messages = [ShardMessage.from_json(message.body) for message in api.container.queues.receive(SCHEDULE, 100)]
    return [message.shard for message in messages if message is not None]


def test_a_key_of_one_tenant_sees_only_models_that_everybody_can_buy_or_that_its_jobs_wait_for(api: Api) -> None:
    """The name of a fine-tuned model can tell about its owner."""
    for model in (MODEL, "ft:gpt-4o:rival:secret", "ft:gpt-4o:acme:own"):
        put_model(api, {"requests": 5}, quote(model, safe=""))
    hold_in_line(api, "rate:ft:gpt-4o:acme:own", "acme")

    def models(token: str) -> list[str]:
        return [one["model"] for one in api.call("GET", "/limits", token=token).json["models"]]

    assert models("viewer") == ["ft:gpt-4o:acme:own", MODEL]
    assert models("stage_admin") == ["ft:gpt-4o:acme:own", "ft:gpt-4o:rival:secret", MODEL]


def test_counts_of_waiting_jobs_are_bounded(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    put_model(api, {"requests": 500})
    for tenant in ("a", "b", "c"):
        hold_in_line(api, f"rate:{MODEL}", tenant)
        hold_in_line(api, f"rate:{MODEL}", tenant)
    monkeypatch.setattr(stage_limits, "MAX_COUNTED", 1)

    waiting = api.call("GET", "/limits").json["models"][0]["waiting"]
    assert (waiting["others"], waiting["more"]) == (3, True)

    monkeypatch.setattr(stage_limits, "MAX_COUNTED", 500)
    monkeypatch.setattr(stage_limits, "MAX_COUNTS", 1)
    waiting = api.call("GET", "/limits").json["models"][0]["waiting"]
    assert (waiting["others"], waiting["more"]) == (2, True)


def test_types_with_limits_are_shown_with_what_runs_starts_and_waits(api: Api) -> None:
    from dataclasses import replace

    api.container.settings = replace(api.container.settings, type_limits=("general=3/6",))
    api.container.rates.take("type", "general", 0, 2, api.container.clock.now())
    hold_in_line(api, "type:general", "acme")
    waiting = job(tenant="acme", user="carol")
    api.container.jobs.create(waiting)
    running = transitions.claim(waiting, 1, "lease#x", 5, slots=("y:general#0",))
    assert running is not None
    api.container.jobs.replace(waiting, running)

    types = {one["job_type"]: one for one in api.call("GET", "/limits").json["types"]}

    shown = types["general"]
    assert (shown["concurrency"], shown["running"], shown["per_minute"], shown["starts"], shown["waiting"]["normal"]) == (3, 1, 6, 2, 1)


@pytest.mark.parametrize(("token", "status"), [(None, 401), ("viewer", 403), ("user", 403), ("operator", 403), ("admin", 403)])
def test_only_admins_of_all_tenants_set_limits_of_models(api: Api, token: str | None, status: int) -> None:
    assert put_model(api, {"requests": 1}, token=token).status == status
    assert api.container.rates.limits() == []


@pytest.mark.parametrize("body", [{}, {"requests": 0}, {"requests": "5"}, {"tokens": 1.5}, {"tokens": 10**13}, {"weight": 1}])
def test_invalid_limits_of_a_model_are_refused(api: Api, body: dict[str, Any]) -> None:
    assert put_model(api, body).status == 400
    assert api.container.rates.limits() == []
