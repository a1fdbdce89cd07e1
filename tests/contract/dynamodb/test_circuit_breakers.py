"""The store of circuit breakers, on the twin and on moto."""

from __future__ import annotations

from typing import Any

import pytest

from chalicelib.domain.errors import StaleVersion
from chalicelib.domain.limits.circuit_breaker import (
    CircuitBreaker,
    CircuitState,
    TenantCircuit,
    force_open,
    origin_of,
    record_failure,
    start_probe,
)
from tests.contract.conftest import LoseResponse
from tests.kit.records import NOW, new_id


def opened(stores: Any, model: str) -> CircuitBreaker:
    circuit = record_failure(CircuitBreaker(model=model), "provider_quota_exhausted", NOW - 5, origin_of("mark", "acme", "job"), NOW)
    stores.circuit_breakers.replace(CircuitBreaker(model=model), circuit)
    return circuit


@pytest.mark.parametrize("name", ["gpt-4o-mini", "ft:gpt-4o-mini-2024-07-18:acme::9x/y", "o1 (preview) \u00e4#circuit#"])
def test_circuit_breaker_round_trips(stores: Any, name: str) -> None:
    """Any model name works, and an unknown model has no circuit breaker."""
    model = name + new_id()
    assert stores.circuit_breakers.get(model) is None

    circuit = opened(stores, model)

    assert stores.circuit_breakers.get(model) == circuit
    assert [one for one in stores.circuit_breakers.all() if one.model == model] == [circuit]


def test_circuits_of_single_tenants_round_trip(stores: Any) -> None:
    """With the failed jobs, and the tenant that probed last."""
    own = TenantCircuit(tenant="t1", opened_at=NOW, until=NOW + 5, reason="stream_cut", trips=2, probe="p")
    circuit = CircuitBreaker(
        model=new_id(),
        failures=2,
        failed=("t1/j1", "t2/j2"),
        last_failure_at=NOW,
        prober="t2",
        own=(own, TenantCircuit(tenant="t2", opened_at=1, until=2, reason="x")),
        version=1,
    )
    stores.circuit_breakers.replace(CircuitBreaker(model=circuit.model), circuit)

    assert stores.circuit_breakers.get(circuit.model) == circuit


def test_all_returns_every_circuit_breaker(stores: Any) -> None:
    """One that an operator forced open has no end, and is included."""
    forced = force_open(CircuitBreaker(model=new_id()), "ann", "moving", "m", NOW)
    stores.circuit_breakers.replace(CircuitBreaker(model=forced.model), forced)
    other = opened(stores, new_id())

    assert {circuit.model: circuit for circuit in stores.circuit_breakers.all()}.items() >= {
        forced.model: forced,
        other.model: other,
    }.items()


def test_second_probe_of_one_version_is_refused(stores: Any) -> None:
    """Both workers saw the circuit open; the loser is given the stored record."""
    seen = opened(stores, new_id())
    one, two = (start_probe(seen, origin_of(mark, "acme", mark), NOW + 30_000) for mark in ("one", "two"))
    assert one is not None
    assert two is not None
    stores.circuit_breakers.replace(seen, one)

    with pytest.raises(StaleVersion) as refused:
        stores.circuit_breakers.replace(seen, two)

    assert refused.value.current == one
    assert stores.circuit_breakers.get(seen.model).state is CircuitState.HALF_OPEN


def test_first_failure_does_not_overwrite_a_stored_circuit_breaker(stores: Any) -> None:
    model = new_id()
    opened(stores, model)

    with pytest.raises(StaleVersion) as refused:
        stores.circuit_breakers.replace(
            CircuitBreaker(model=model),
            record_failure(CircuitBreaker(model=model), "stream_cut", NOW, origin_of("late", "acme", "job"), NOW),
        )

    assert refused.value.current.mark == "mark"


def test_replace_succeeds_when_its_response_is_lost(stores: Any, lose_response: LoseResponse) -> None:
    seen = opened(stores, new_id())
    probing = start_probe(seen, origin_of("p", "acme", "job"), NOW + 30_000)

    with lose_response("UpdateItem"):
        stores.circuit_breakers.replace(seen, probing)
    stores.circuit_breakers.replace(seen, probing)

    assert stores.circuit_breakers.get(seen.model) == probing


def test_replace_does_not_recreate_an_expired_circuit_breaker(stores: Any) -> None:
    """A worker that still knows the old record has to decide again without one."""
    gone = record_failure(CircuitBreaker(model=new_id(), version=7), "stream_cut", NOW, origin_of("m", "acme", "job"), NOW)

    with pytest.raises(StaleVersion) as refused:
        stores.circuit_breakers.replace(CircuitBreaker(model=gone.model, version=7), gone)

    assert refused.value.current is None
