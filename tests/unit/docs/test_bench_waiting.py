"""The simulation of what waits for a rate limit."""

from __future__ import annotations

from unittest import mock

import pytest

from bench.waiting import world as simulated
from bench.waiting.cases import ROWS, Row, case, run
from bench.waiting.engine import Engine
from bench.waiting.provider import Provider
from bench.waiting.world import Tenant
from chalicelib.domain.limits.sliding_window import Limits

SHORT = {"requests": 120, "seconds": 200.0, "tenants": (Tenant(name="busy", jobs=500), Tenant(name="stranger", every=10.0))}


def test_a_short_load_keeps_the_limit_and_uses_it() -> None:
    outcome = run(Row(case=case("120 RPM", **SHORT)))

    assert outcome.missed == []
    assert outcome.used > 90


def test_a_run_is_the_same_each_time() -> None:
    row = Row(case=case("120 RPM", **SHORT))

    assert run(row) == run(row)


def test_a_scheduler_that_ignores_the_limit_is_noticed() -> None:
    """The counts are those of the provider, not those of the window."""
    with mock.patch.object(simulated, "effective", return_value=Limits(requests=240)):
        outcome = run(Row(case=case("120 RPM", **SHORT)))

    assert outcome.missed == ["over"]
    assert outcome.over > 50


def test_a_scheduler_that_stops_is_noticed() -> None:
    outcome = run(Row(case=case("120 RPM", **SHORT, deaths=tuple(range(91, 200, 5)))))

    assert "used" in outcome.missed


@pytest.mark.parametrize(("at", "most"), [([0.0, 59.9, 60.0, 119.0], 3), ([0.0, 60.0, 120.0], 1), ([], 0)])
def test_the_most_of_a_sliding_minute_is_counted(at: list[float], most: int) -> None:
    provider = Provider(100, 1_000, arrivals=[(one, 7) for one in at])

    assert provider.most_in_a_minute(0.0, 200.0) == (most, 7 * most)


def test_the_bucket_of_the_provider_refuses_what_it_does_not_hold() -> None:
    provider = Provider(60, None, enforces=True, tells="message")

    assert [provider.ask(0.0, 0) is None for _ in range(61)] == [True] * 60 + [False]
    assert provider.ask(1.0, 0) is None
    assert provider.refused == 1


def test_events_come_in_the_order_of_their_times() -> None:
    engine, seen = Engine("x"), list[float]()
    for seconds in (3.0, 1.0, 2.0, 9.0):
        engine.after(seconds, lambda: seen.append(engine.now))
    engine.run(5.0)

    assert seen == [1.0, 2.0, 3.0]


def test_every_case_has_a_name_of_its_own() -> None:
    """The name is the seed, and the key of the finding."""
    assert len({row.case.name for row in ROWS}) == len(ROWS)
