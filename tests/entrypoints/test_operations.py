"""Circuits, the health of the system and fallback models, through `app.py`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest

from chalicelib.domain.errors import Throttled
from chalicelib.domain.failures import ProviderQuotaExhausted
from chalicelib.domain.jobs.job import Status, Usage
from chalicelib.domain.limits.circuit_breaker import FAILURE_THRESHOLD, CircuitBreaker, force_open, origin_of, record_failure
from chalicelib.domain.limits.rate_limit import ACCOUNT, RateLimit
from chalicelib.domain.queues.lanes import STREAM
from chalicelib.ports import Lease, ResponseEnded
from tests.kit.http import Api, unreachable
from tests.kit.provider import Script
from tests.kit.work import work

MODEL = "gpt-4o-mini"
FIELDS = {
    "model",
    "scope",
    "tenants",
    "state",
    "reason",
    "forced",
    "forced_by",
    "failures",
    "trips",
    "last_failure_at",
    "opened_at",
    "closed_at",
    "until",
}


def trip(api: Api, model: str = MODEL, code: str = "provider_quota_exhausted", tenant: str = "acme") -> CircuitBreaker:
    """Record a failure of a model by a job of a tenant; by default one that opens its circuit."""
    now = api.container.clock.now()
    circuit = record_failure(CircuitBreaker(model=model), code, now, origin_of("mark", tenant, "job"), now)
    api.container.circuit_breakers.replace(CircuitBreaker(model=model), circuit)
    return circuit


def health(api: Api, token: str = "stage_admin") -> Any:
    reply = api.call("GET", "/health/system", token=token)
    assert reply.status == 200
    return reply.json


def test_a_viewer_can_list_circuits(api: Api) -> None:
    """A circuit is listed once a call of its model has failed."""
    assert api.call("GET", "/circuits", token="viewer").json["data"] == []
    trip(api, "z")
    trip(api, "a", "stream_cut")

    listed = api.call("GET", "/circuits", token="viewer").json

    assert [(one["model"], one["state"], one["reason"], one["failures"]) for one in listed["data"]] == [  # of its own tenant
        ("a", "closed", "stream_cut", 1),
        ("z", "open", "provider_quota_exhausted", 1),
    ]
    assert listed["next_cursor"] is None
    assert set(listed["data"][0]) == FIELDS
    assert listed["data"][1]["until"] == "2025-11-22T08:27:10.000Z"
    assert (listed["data"][1]["forced"], listed["data"][1]["trips"]) == (False, 1)


@pytest.mark.parametrize("name", [MODEL, "ft:gpt-4o-mini-2024-07-18:acme::9x", "models/a.b", "o1 preview", "\u00e4"])
def test_a_circuit_can_be_forced_open_and_closed_by_an_admin_of_all_tenants(api: Api, name: str) -> None:
    """Any model name works."""
    path = f"/circuits/{quote(name, safe='')}"

    opened = api.call("POST", f"{path}/open", {"reason": "moving to another account"}, "stage_admin")
    seen = api.call("GET", "/circuits", token="stage_admin").json["data"]
    closed = api.call("POST", f"{path}/close", {}, "stage_admin")

    assert opened.status == 200
    shown = opened.json
    assert (shown["model"], shown["state"], shown["forced"], shown["forced_by"]) == (name, "open", True, "hal")
    assert (shown["reason"], shown["until"]) == ("moving to another account", None)
    assert [(one["model"], one["forced"], one["forced_by"]) for one in seen] == [(name, True, "hal")]
    assert (closed.json["state"], closed.json["forced"], closed.json["reason"]) == ("closed", False, None)


def test_opening_and_closing_a_circuit_is_idempotent(api: Api) -> None:
    path = f"/circuits/{MODEL}"
    first = api.call("POST", f"{path}/open", {"reason": "a"}, "stage_admin").json
    api.container.clock.advance(5)

    assert api.call("POST", f"{path}/open", {"reason": "a"}, "stage_admin").json == first
    assert api.call("POST", f"{path}/open", None, "stage_admin").json == first
    assert api.call("POST", f"{path}/open", {"reason": "b"}, "stage_admin").json["reason"] == "b"
    assert api.call("POST", "/circuits/unknown-model/close", {}, "stage_admin").json["state"] == "closed"
    assert [one["model"] for one in api.call("GET", "/circuits").json["data"]] == [MODEL]


def test_jobs_of_a_model_are_held_while_its_circuit_is_forced_open(api: Api) -> None:
    """A retry queues a held job at once after the circuit is closed."""
    api.call("POST", f"/circuits/{MODEL}/open", {}, "stage_admin")
    job_id = api.submit()
    work(api)
    held = api.call("GET", f"/jobs/{job_id}").json
    assert (held["status"], held["reason"], held["attempt"]) == ("held", "circuit_open", 0)
    assert held["next_attempt_at"] is not None
    assert [row["job_id"] for row in api.call("GET", "/jobs?status=held").json["data"]] == [job_id]

    api.call("POST", f"/circuits/{MODEL}/close", {}, "stage_admin")
    api.container.clock.advance(3)
    assert api.call("POST", f"/jobs/{job_id}/retry", {}).json["status"] == "queued"
    work(api)

    assert api.job(job_id).status is Status.COMPLETED


@pytest.mark.parametrize("action", ["open", "close"])
@pytest.mark.parametrize(
    ("token", "status"), [("operator", 403), ("user", 403), ("viewer", 403), (None, 401), ("admin", 403), ("stage_admin", 200)]
)
def test_only_admins_of_all_tenants_may_force_circuits(api: Api, action: str, token: str | None, status: int) -> None:
    assert api.call("POST", f"/circuits/{MODEL}/{action}", {}, token).status == status


@pytest.mark.parametrize("name", ["x" * 129, "%20x", "a%00b", "a%0Ab", "%20"])
def test_an_invalid_model_name_is_refused(api: Api, name: str) -> None:
    reply = api.call("POST", f"/circuits/{name}/open", {}, "stage_admin")

    assert (reply.status, reply.json["error"]["details"][0]["path"]) == (400, "model")
    assert api.call("GET", "/circuits").json["data"] == []


@pytest.mark.parametrize("body", [{"reason": 3}, {"reason": ""}, {"reason": "x" * 201}, {"until": "2026-11-22T09:30:00Z"}])
def test_an_invalid_circuit_request_is_refused(api: Api, body: dict[str, Any]) -> None:
    assert api.call("POST", f"/circuits/{MODEL}/open", body, "stage_admin").status == 400
    assert api.call("POST", f"/circuits/{MODEL}/open", raw="[", token="stage_admin").status == 400


@pytest.mark.parametrize(("method", "path"), [("POST", "/circuits"), ("GET", f"/circuits/{MODEL}/open"), ("POST", "/health/system")])
def test_unsupported_methods_return_405(api: Api, method: str, path: str) -> None:
    assert api.call(method, path, {} if method == "POST" else None, "stage_admin").status == 405


def test_a_healthy_system_reports_every_part_without_issues(api: Api) -> None:
    seen = health(api)

    assert seen["status"] == "healthy"
    assert set(seen["parts"]) == {"openai", "queues", "workers", "change_stream"}
    assert {part["status"] for part in seen["parts"].values()} == {"healthy"}
    assert (seen["issues"], seen["recommendations"]) == ([], [])
    assert seen["parts"]["queues"]["urgent"] == {"waiting": 0, "dead_letters": 0}
    assert seen["parts"]["workers"]["active"] == 0


def test_health_shows_an_open_circuit(api: Api) -> None:
    """The recommendation depends on the error for which the circuit opened."""
    trip(api)
    trip(api, "b", "stream_cut")

    seen = health(api)

    assert (seen["status"], seen["parts"]["openai"]["status"]) == ("degraded", "degraded")
    assert seen["parts"]["openai"]["circuits"] == {MODEL: "open", "b": "closed"}
    assert MODEL in seen["issues"][0]
    assert "provider_quota_exhausted" in seen["issues"][0]
    assert "credit" in seen["recommendations"][0]


def test_health_recommends_how_to_close_a_forced_circuit(api: Api) -> None:
    api.call("POST", f"/circuits/{MODEL}/open", {}, "stage_admin")

    assert health(api)["recommendations"] == [f"An operator opened it. `headrace circuits close {MODEL}` lets its jobs run again."]


def test_health_shows_dead_letters_and_long_queues(api: Api) -> None:
    api.container.queues.send_to_dead_letter("low", "x", "no wake-up")
    api.container.queues.send_to_dead_letter(STREAM, "job_1", "not announced")
    for number in range(101):
        api.container.queues.put_raw("high", str(number))

    seen = health(api)

    assert seen["parts"]["queues"]["low"]["dead_letters"] == 1
    assert seen["parts"]["queues"]["high"]["waiting"] == 101
    assert seen["parts"]["change_stream"] == {
        "status": "degraded",
        "dead_letters": 1,
        "issues": ["1 message in the dead-letter queue of the change stream."],
        "recommendations": ["Read the messages; docs/operations.md explains them. No job fails because of a dead letter."],
    }
    assert len(seen["issues"]) == 3
    assert len(seen["recommendations"]) == 2


def test_health_shows_the_queue_of_tasks(api: Api) -> None:
    """The recommendation names its worker function, not another lane."""
    for number in range(101):
        api.container.queues.put_raw("work", str(number))

    seen = health(api)

    assert seen["parts"]["queues"]["work"] == {"waiting": 101, "dead_letters": 0}
    assert seen["issues"] == ["101 jobs waiting in the queue `work`."]
    assert "worker_work" in seen["recommendations"][0]
    assert "another lane" not in seen["recommendations"][0]


def test_stale_worker_leases_make_the_system_unhealthy(api: Api) -> None:
    """Stale leases mean a sweeper outage; this recommendation stands first."""
    trip(api)
    now = api.container.clock.now()
    lease = Lease(id="a", lane="normal", started_at=now, expires_at=now + 25_000, jobs=("job_1", "job_2"))
    api.container.leases.open(lease)
    api.container.leases.open(replace(lease, id="b", expires_at=now - 120_001, jobs=("job_3",)))

    seen = health(api)

    assert seen["status"] == "unhealthy"
    assert seen["parts"]["workers"] | {"issues": [], "recommendations": []} == {
        "status": "unhealthy",
        "active": 1,
        "stale": 1,
        "jobs": 2,
        "issues": [],
        "recommendations": [],
    }
    assert "sweep" in seen["recommendations"][0]


@pytest.mark.parametrize("error", [Throttled, RuntimeError])
def test_an_unavailable_part_is_reported_as_unhealthy(api: Api, error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    """The other parts are still reported, and no internal error text is shown."""

    def fail() -> list[CircuitBreaker]:
        raise error("secret detail")

    monkeypatch.setattr(api.container.circuit_breakers, "all", fail)

    seen = health(api)

    assert (seen["status"], seen["parts"]["openai"]["status"], seen["parts"]["queues"]["status"]) == ("unhealthy", "unhealthy", "healthy")
    assert "secret" not in str(seen)


def test_an_unavailable_circuit_store_returns_503(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.container.circuit_breakers, "get", unreachable(api.container.circuit_breakers.get))

    assert api.call("POST", f"/circuits/{MODEL}/open", {}, "stage_admin").status == 503


def test_a_circuit_is_forced_open_after_a_concurrent_change(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The write on the stale version fails and is repeated on the stored circuit."""
    stale = api.container.circuit_breakers.get(MODEL)
    trip(api)
    monkeypatch.setattr(api.container.circuit_breakers, "get", lambda _model: stale)

    assert api.call("POST", f"/circuits/{MODEL}/open", {}, "stage_admin").json["forced"] is True


# ---- what a key of one tenant sees


def circuits(api: Api, token: str) -> dict[str, Any]:
    return {one["model"]: one for one in api.call("GET", "/circuits", token=token).json["data"]}


def test_a_tenant_never_sees_models_that_only_others_have_used(api: Api) -> None:
    """Names of fine-tuned and private models tell about their owners; common names do not."""
    private, nobody = "ft:gpt-4o-mini:acme-corp:merger-2027:9x", "acme-secret-model"
    trip(api, private)
    trip(api, nobody)
    trip(api, MODEL)

    assert set(circuits(api, "viewer")) == {private, nobody, MODEL}
    assert set(circuits(api, "stage_admin")) == {private, nobody, MODEL}
    assert set(circuits(api, "stranger")) == {MODEL}
    for path in ("/circuits", "/health/system"):
        assert "acme" not in api.call("GET", path, token="stranger").text


def test_a_tenant_sees_a_circuit_without_what_others_did(api: Api) -> None:
    """Neither how often and when they failed, nor an operator's words and name."""
    trip(api, MODEL, "stream_cut", tenant="acme")
    [own, other] = [circuits(api, token)[MODEL] for token in ("viewer", "stranger")]
    assert (own["failures"], own["last_failure_at"] is not None, own["reason"], own["tenants"]) == (1, True, "stream_cut", None)
    assert (other["failures"], other["last_failure_at"], other["reason"]) == (0, None, None)

    api.call("POST", f"/circuits/{MODEL}/open", {"reason": "acme owes us money"}, "stage_admin")

    seen = circuits(api, "stranger")[MODEL]
    assert (seen["state"], seen["forced"], seen["reason"], seen["forced_by"]) == ("open", True, "forced", None)
    assert "money" not in api.call("GET", "/health/system", token="viewer").text
    assert circuits(api, "stage_admin")[MODEL]["reason"] == "acme owes us money"


def test_a_tenant_sees_its_own_circuit_and_others_do_not(api: Api) -> None:
    now = api.container.clock.now()
    circuit = CircuitBreaker(model=MODEL)
    for number in range(FAILURE_THRESHOLD):
        circuit = record_failure(circuit, "provider_timeout", now, origin_of(f"m{number}", "acme", f"job{number}"), now)
    api.container.circuit_breakers.replace(CircuitBreaker(model=MODEL), circuit)

    own, other, everything = (circuits(api, token)[MODEL] for token in ("viewer", "stranger", "stage_admin"))

    assert (own["state"], own["scope"], own["reason"], own["until"] is not None) == ("open", "tenant", "provider_timeout", True)
    assert (other["state"], other["scope"], other["failures"]) == ("closed", "model", 0)
    assert (everything["state"], everything["scope"], everything["tenants"]) == ("closed", "model", 1)
    assert [health(api, token)["status"] for token in ("viewer", "stranger", "stage_admin")] == ["degraded", "healthy", "healthy"]


def test_a_tenant_sees_the_health_of_each_part_without_figures_of_all_tenants(api: Api) -> None:
    """It is told that a lane is crowded or that workers died, but no numbers, and no dead letters."""
    api.container.queues.send_to_dead_letter("low", "x", "no wake-up")
    api.container.queues.send_to_dead_letter(STREAM, "job_1", "not announced")
    for number in range(101):
        api.container.queues.put_raw("high", str(number))
    now = api.container.clock.now()
    api.container.leases.open(Lease(id="b", lane="low", started_at=now, expires_at=now - 120_001, jobs=("job_3",)))

    for token in ("viewer", "admin"):
        seen = health(api, token)

        assert seen["status"] == "unhealthy"
        assert {name: part["status"] for name, part in seen["parts"].items()} == {
            "openai": "healthy",
            "queues": "degraded",
            "workers": "unhealthy",
            "change_stream": "healthy",
        }
        assert seen["parts"]["queues"]["high"] == {"waiting": None, "dead_letters": None}
        assert {seen["parts"]["workers"][name] for name in ("active", "stale", "jobs")} == {None}
        assert seen["parts"]["change_stream"]["dead_letters"] is None
        assert seen["issues"] == ["Workers died, and the jobs were not recovered.", "Many jobs are waiting in the queue `high`."]


def test_a_tenant_is_not_told_how_to_close_a_forced_circuit(api: Api) -> None:
    now = api.container.clock.now()
    api.container.circuit_breakers.replace(CircuitBreaker(model=MODEL), force_open(CircuitBreaker(model=MODEL), "hal", "x", "m", now))

    assert health(api, "admin")["recommendations"] == ["An operator opened it. Its jobs run again when it is closed."]


def test_in_use_of_a_job_type_is_for_keys_of_all_tenants(api: Api) -> None:
    """The limit is shared by all tenants, so the number tells about the others."""
    assert [api.call("GET", "/job-types/export", token=token).json["in_use"] for token in ("admin", "stage_admin")] == [None, 0]


# ---- fallback models


def test_fallback_models_are_stored_with_the_job(api: Api) -> None:
    """Duplicates and the job's own model are dropped; `max_cost` uses the most expensive model."""
    plain = api.call("POST", "/jobs", {"prompt": "x"}).json
    api.container.prices.prices["big"] = replace(api.container.prices.prices[MODEL], output=6_000)

    reply = api.call("POST", "/jobs", {"prompt": "x", "config": {"fallback_models": ["big", MODEL, "big"]}}).json

    assert reply["config"]["fallback_models"] == ["big"]
    assert float(reply["max_cost"]) > 5 * float(plain["max_cost"])
    assert reply["estimated_cost"] == plain["estimated_cost"]
    assert api.job(reply["job_id"]).fallback_models == ("big",)
    assert api.call("GET", f"/jobs/{reply['job_id']}").json["config"]["fallback_models"] == ["big"]


def test_max_cost_is_null_when_a_fallback_model_has_no_price(api: Api) -> None:
    reply = api.call("POST", "/jobs/estimate", {"prompt": "x", "config": {"fallback_models": ["unknown-model"]}}).json

    assert (reply["max_cost"], reply["estimated_cost"] is not None) == (None, True)


@pytest.mark.parametrize("value", ["big", ["a", "b", "c", "d", "e", "f"], [""], [3], ["x" * 129]])
def test_invalid_fallback_models_are_refused(api: Api, value: Any) -> None:
    reply = api.call("POST", "/jobs", {"prompt": "x", "config": {"fallback_models": value}})

    assert reply.status == 400
    assert reply.json["error"]["details"][0]["path"].startswith("config.fallback_models")


@pytest.mark.parametrize("value", [None, []])
def test_empty_fallback_models_are_returned_as_an_empty_list(api: Api, value: Any) -> None:
    assert api.call("POST", "/jobs", {"prompt": "x", "config": {"fallback_models": value}}).json["config"]["fallback_models"] == []


def test_attempts_and_result_name_the_fallback_model_in_use(api: Api) -> None:
    """The first job exhausts the quota, so the second job runs on its fallback model."""
    answer = ResponseEnded(Usage(input=10, output=3), "big-2026")
    api.container.provider.scripts = [Script(error=ProviderQuotaExhausted(), refuses=True), Script(end=answer)]
    api.submit()
    work(api)
    job_id = api.submit(config={"fallback_models": ["big"]})

    work(api)

    assert [request.model for request in api.container.provider.requests] == [MODEL, "big"]
    [row] = api.call("GET", f"/jobs/{job_id}/attempts").json["data"]
    assert row["model"] == "big-2026"
    assert api.call("GET", f"/jobs/{job_id}/result").json["model"] == "big-2026"


def test_closing_a_circuit_ends_the_wait_for_a_rate_limit(api: Api) -> None:
    """An operator need not wait for a wrong `Retry-After` of a proxy."""
    blocked = RateLimit(model=MODEL, account=ACCOUNT, blocked_until=2**45, refusals=3, version=1)
    api.container.rates.save_limit(RateLimit(model=MODEL, account=ACCOUNT), blocked)

    assert api.call("POST", f"/circuits/{MODEL}/close", {}, "stage_admin").status == 200

    limit = api.container.rates.limit(ACCOUNT, MODEL)
    assert limit is not None
    assert (limit.blocked_until, limit.refusals) == (None, 0)
