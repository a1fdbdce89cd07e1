"""What gates cost: nothing where no limit is set, and nothing for an hour of waiting."""

from __future__ import annotations

from unittest import mock

import pytest

from bench import gates
from bench.gates import GATES, Cost


@pytest.fixture(scope="module")
def unset() -> Cost:
    return gates.cost_of_start(gates.nothing)


def test_a_job_without_limits_costs_what_it_cost_before_there_were_gates(unset: Cost) -> None:
    assert unset == gates.BEFORE


@pytest.mark.parametrize("name", ["pauses", "circuit"])
def test_what_is_paused_elsewhere_costs_other_jobs_nothing(unset: Cost, name: str) -> None:
    assert gates.cost_of_start(GATES[name].allow) == unset


@pytest.mark.parametrize("name", GATES)
def test_a_wait_costs_a_message_and_at_most_thirteen_write_units(name: str) -> None:
    gate = GATES[name]
    start, wait = gates.cost_of_start(gate.allow, gate.limits), gates.cost_of_wait(gate)

    assert 0 < wait["write units"] - start["write units"] <= gates.AIM[gates.WAIT]
    assert wait["messages"] - start["messages"] == 1


@pytest.mark.parametrize("name", ["rate of a model", "concurrency of a tenant", "circuit"])
def test_twenty_more_jobs_that_wait_cost_no_request_more(name: str) -> None:
    with mock.patch.object(gates, "MINUTES", 3):
        one, many = gates.cost_of_hour(GATES[name], 1), gates.cost_of_hour(GATES[name], gates.MANY)

    assert many == one


def test_a_refusal_of_the_queued_jobs_limit_writes_nothing() -> None:
    refusal = gates.cost_of_refusal()

    assert refusal["write units"] == refusal["messages"] == 0
