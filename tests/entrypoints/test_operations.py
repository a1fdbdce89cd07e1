"""Circuits and the health of the system, as people and programs see them through the API."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest

from chalicelib.domain.errors import Throttled
from chalicelib.domain.failures import ProviderQuotaExhausted
from chalicelib.domain.jobs.job import Status, Usage
from chalicelib.domain.limits.circuit_breaker import CircuitBreaker, record_failure
from chalicelib.domain.queues.lanes import STREAM
from chalicelib.ports import Lease, ResponseEnded
from tests.kit.http import Api, unreachable
from tests.kit.provider import Script
from tests.kit.work import work

MODEL = "gpt-4o-mini"
SHAPE = {
    "model",
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


def trip(api: Api, model: str = MODEL, code: str = "provider_quota_exhausted") -> CircuitBreaker:
    now = api.twins.clock.now()
    circuit = record_failure(CircuitBreaker(model=model), code, now, "mark", now)
    api.twins.circuit_breakers.replace(CircuitBreaker(model=model), circuit)
    return circuit


def health(api: Api) -> Any:
    reply = api.call("GET", "/health/system", token="viewer")
    assert reply.status == 200
    return reply.json


def test_circuits_are_listed_for_everybody(api: Api) -> None:
    """Nothing is there while nothing has failed; times and reasons where something has."""
    assert api.call("GET", "/circuits", token="viewer").json["data"] == []
    trip(api, "z")
    trip(api, "a", "stream_cut")

    listed = api.call("GET", "/circuits", token="viewer").json

    assert [(one["model"], one["state"], one["reason"], one["failures"]) for one in listed["data"]] == [
        ("a", "closed", "stream_cut", 1),
        ("z", "open", "provider_quota_exhausted", 1),
    ]
    assert listed["next_cursor"] is None
    assert set(listed["data"][0]) == SHAPE
    assert listed["data"][1]["until"] == "2025-11-22T08:27:10.000Z"
    assert (listed["data"][1]["forced"], listed["data"][1]["trips"]) == (False, 1)


@pytest.mark.parametrize("name", [MODEL, "ft:gpt-4o-mini-2024-07-18:acme::9x", "models/a.b", "o1 preview", "\u00e4"])
def test_a_circuit_is_kept_open_and_closed_by_hand(api: Api, name: str) -> None:
    """Whatever the model is called; who did it is told to administrators."""
    path = f"/circuits/{quote(name, safe='')}"

    opened = api.call("POST", f"{path}/open", {"reason": "moving to another account"}, "admin")
    seen = api.call("GET", "/circuits", token="viewer").json["data"]
    closed = api.call("POST", f"{path}/close", {}, "admin")

    assert opened.status == 200
    shown = opened.json
    assert (shown["model"], shown["state"], shown["forced"], shown["forced_by"]) == (name, "open", True, "root")
    assert (shown["reason"], shown["until"]) == ("moving to another account", None)
    assert [(one["model"], one["forced"], one["forced_by"]) for one in seen] == [(name, True, None)]
    assert (closed.json["state"], closed.json["forced"], closed.json["reason"]) == ("closed", False, None)


def test_asking_twice_is_asking_once(api: Api) -> None:
    path = f"/circuits/{MODEL}"
    first = api.call("POST", f"{path}/open", {"reason": "a"}, "admin").json
    api.twins.clock.advance(5)

    assert api.call("POST", f"{path}/open", {"reason": "a"}, "admin").json == first
    assert api.call("POST", f"{path}/open", None, "admin").json == first
    assert api.call("POST", f"{path}/open", {"reason": "b"}, "admin").json["reason"] == "b"
    assert api.call("POST", "/circuits/never-heard-of/close", {}, "admin").json["state"] == "closed"
    assert [one["model"] for one in api.call("GET", "/circuits").json["data"]] == [MODEL]


def test_jobs_of_a_model_wait_while_it_is_kept_open(api: Api) -> None:
    """They say why, start at once when a person retries them, and run once it is closed."""
    api.call("POST", f"/circuits/{MODEL}/open", {}, "admin")
    job_id = api.submit()
    work(api)
    held = api.call("GET", f"/jobs/{job_id}").json
    assert (held["status"], held["reason"], held["attempt"]) == ("held", "circuit_open", 0)
    assert held["next_attempt_at"] is not None
    assert [row["job_id"] for row in api.call("GET", "/jobs?status=held").json["data"]] == [job_id]

    api.call("POST", f"/circuits/{MODEL}/close", {}, "admin")
    api.twins.clock.advance(3)
    assert api.call("POST", f"/jobs/{job_id}/retry", {}).json["status"] == "queued"
    work(api)

    assert api.head(job_id).status is Status.COMPLETED


@pytest.mark.parametrize("what", ["open", "close"])
@pytest.mark.parametrize(("token", "status"), [("operator", 403), ("user", 403), ("viewer", 403), (None, 401), ("admin", 200)])
def test_only_administrators_force_circuits(api: Api, what: str, token: str | None, status: int) -> None:
    assert api.call("POST", f"/circuits/{MODEL}/{what}", {}, token).status == status


@pytest.mark.parametrize("name", ["x" * 129, "%20x", "a%00b", "a%0Ab", "%20"])
def test_what_is_no_name_of_a_model_is_refused(api: Api, name: str) -> None:
    reply = api.call("POST", f"/circuits/{name}/open", {}, "admin")

    assert (reply.status, reply.json["error"]["details"][0]["path"]) == (400, "model")
    assert api.call("GET", "/circuits").json["data"] == []


@pytest.mark.parametrize("body", [{"reason": 3}, {"reason": ""}, {"reason": "x" * 201}, {"until": "2026-11-22T09:30:00Z"}])
def test_what_is_not_understood_is_refused(api: Api, body: dict[str, Any]) -> None:
    assert api.call("POST", f"/circuits/{MODEL}/open", body, "admin").status == 400
    assert api.call("POST", f"/circuits/{MODEL}/open", raw="[", token="admin").status == 400


@pytest.mark.parametrize(("method", "path"), [("POST", "/circuits"), ("GET", f"/circuits/{MODEL}/open"), ("POST", "/health/system")])
def test_other_methods_are_refused(api: Api, method: str, path: str) -> None:
    assert api.call(method, path, {} if method == "POST" else None, "admin").status == 405


def test_a_system_that_is_well(api: Api) -> None:
    """Every part is there, nothing is wrong, nothing is recommended."""
    seen = health(api)

    assert seen["status"] == "healthy"
    assert set(seen["parts"]) == {"openai", "queues", "workers", "change_stream"}
    assert {part["status"] for part in seen["parts"].values()} == {"healthy"}
    assert (seen["issues"], seen["recommendations"]) == ([], [])
    assert seen["parts"]["queues"]["urgent"] == {"waiting": 0, "dead_letters": 0}
    assert seen["parts"]["workers"]["active"] == 0


def test_an_open_circuit_is_seen(api: Api) -> None:
    """With what helps against its reason."""
    trip(api)
    trip(api, "b", "stream_cut")

    seen = health(api)

    assert (seen["status"], seen["parts"]["openai"]["status"]) == ("degraded", "degraded")
    assert seen["parts"]["openai"]["circuits"] == {MODEL: "open", "b": "closed"}
    assert MODEL in seen["issues"][0]
    assert "provider_quota_exhausted" in seen["issues"][0]
    assert "credit" in seen["recommendations"][0]


def test_one_that_is_kept_open_tells_how_to_close_it(api: Api) -> None:
    api.call("POST", f"/circuits/{MODEL}/open", {}, "admin")

    assert health(api)["recommendations"] == [f"An operator opened it. `headrace circuits close {MODEL}` lets its jobs run again."]


def test_dead_letters_and_crowds_are_seen(api: Api) -> None:
    api.twins.queues.send_to_dead_letter("low", "x", "no wake-up")
    api.twins.queues.send_to_dead_letter(STREAM, "job_1", "not announced")
    for number in range(101):
        api.twins.queues.put_raw("high", str(number))

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


def test_workers_that_nobody_buries_are_the_worst(api: Api) -> None:
    """The sweep does not run: that is for people to bring right, and stands first."""
    trip(api)
    now = api.twins.clock.now()
    lease = Lease(id="a", lane="normal", started_at=now, expires_at=now + 25_000, jobs=("job_1", "job_2"))
    api.twins.leases.open(lease)
    api.twins.leases.open(replace(lease, id="b", expires_at=now - 120_001, jobs=("job_3",)))

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
def test_a_part_that_does_not_answer_is_a_finding(api: Api, error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are told all the same, and nothing of what went wrong inside shows."""

    def breaks() -> list[CircuitBreaker]:
        raise error("secret detail")

    monkeypatch.setattr(api.twins.circuit_breakers, "all", breaks)

    seen = health(api)

    assert (seen["status"], seen["parts"]["openai"]["status"], seen["parts"]["queues"]["status"]) == ("unhealthy", "unhealthy", "healthy")
    assert "secret" not in str(seen)


def test_a_store_that_does_not_answer_is_503(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.twins.circuit_breakers, "get", unreachable(api.twins.circuit_breakers.get))

    assert api.call("POST", f"/circuits/{MODEL}/open", {}, "admin").status == 503


def test_two_people_at_once(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes second decides on what the first has left."""
    stale = api.twins.circuit_breakers.get(MODEL)
    trip(api)
    monkeypatch.setattr(api.twins.circuit_breakers, "get", lambda _model: stale)

    assert api.call("POST", f"/circuits/{MODEL}/open", {}, "admin").json["forced"] is True


# ---- models that stand in


def test_fallback_models_are_part_of_the_job(api: Api) -> None:
    """In order, each once, without its own; the most that it may cost is by the dearest."""
    plain = api.call("POST", "/jobs", {"prompt": "x"}).json
    api.twins.prices.prices["big"] = replace(api.twins.prices.prices[MODEL], output=6_000)

    reply = api.call("POST", "/jobs", {"prompt": "x", "config": {"fallback_models": ["big", MODEL, "big"]}}).json

    assert reply["config"]["fallback_models"] == ["big"]
    assert float(reply["max_cost"]) > 5 * float(plain["max_cost"])
    assert reply["estimated_cost"] == plain["estimated_cost"]
    assert api.head(reply["job_id"]).fallback_models == ("big",)
    assert api.call("GET", f"/jobs/{reply['job_id']}").json["config"]["fallback_models"] == ["big"]


def test_an_unknown_price_leaves_the_most_unknown(api: Api) -> None:
    reply = api.call("POST", "/jobs/estimate", {"prompt": "x", "config": {"fallback_models": ["nobody-knows"]}}).json

    assert (reply["max_cost"], reply["estimated_cost"] is not None) == (None, True)


@pytest.mark.parametrize("value", ["big", ["a", "b", "c", "d", "e", "f"], [""], [3], ["x" * 129]])
def test_fallback_models_that_cannot_be(api: Api, value: Any) -> None:
    reply = api.call("POST", "/jobs", {"prompt": "x", "config": {"fallback_models": value}})

    assert reply.status == 400
    assert reply.json["error"]["details"][0]["path"].startswith("config.fallback_models")


@pytest.mark.parametrize("value", [None, []])
def test_none_is_none(api: Api, value: Any) -> None:
    assert api.call("POST", "/jobs", {"prompt": "x", "config": {"fallback_models": value}}).json["config"]["fallback_models"] == []


def test_the_ledger_and_the_result_say_which_model_it_was(api: Api) -> None:
    """The first job meets the empty account, the second one's other model stands in."""
    answer = ResponseEnded(Usage(input=10, output=3), "big-2026")
    api.twins.provider.scripts = [Script(error=ProviderQuotaExhausted(), refuses=True), Script(end=answer)]
    api.submit()
    work(api)
    job_id = api.submit(config={"fallback_models": ["big"]})

    work(api)

    assert [request.model for request in api.twins.provider.requests] == [MODEL, "big"]
    [row] = api.call("GET", f"/jobs/{job_id}/attempts").json["data"]
    assert row["model"] == "big-2026"
    assert api.call("GET", f"/jobs/{job_id}/result").json["model"] == "big-2026"
