"""Frames that are lost, late, doubled or overtaken: the subscriber ends with exactly the result."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from tests.faults.client import Client
from tests.faults.report import failure_report, problems_of
from tests.faults.scenarios import SCENARIOS
from tests.faults.simulation import Simulation

SUBSCRIBED = ("plain", "failing_first", "retried", "dead_worker")
FRAME_FAULTS: dict[str, Callable[[Simulation, Client, dict[str, Any]], None]] = {
    "lost": lambda _sim, _client, _frame: None,
    "overtaken": lambda sim, client, frame: sim.deliver_frame(client, frame, after=0.7),
    "late": lambda sim, client, frame: sim.deliver_frame(client, frame, after=45.0),
    "doubled": lambda sim, client, frame: (sim.deliver_frame(client, frame), sim.deliver_frame(client, frame, after=5.0))[0],
}
FrameFault = Callable[[Simulation, Client, dict[str, Any]], None]


def _run(name: str, fault_of: Callable[[int], FrameFault | None]) -> tuple[Simulation, list[str], int]:
    """Run a scenario with the fault `fault_of(n)` at frame number n.

    Also return the number of frames.
    """
    sim, frames = Simulation(), 0

    def transmit(client: Client, frame: dict[str, Any]) -> None:
        nonlocal frames
        frames += 1
        fault = fault_of(frames)
        if fault is None:
            sim.deliver_frame(client, frame)
        else:
            fault(sim, client, frame)

    sim.transmit = transmit
    return sim, problems_of(sim, SCENARIOS[name]), frames


@pytest.mark.parametrize("fault", FRAME_FAULTS)
@pytest.mark.parametrize("name", SUBSCRIBED)
def test_subscriber_holds_the_result_after_a_fault_at_each_frame(name: str, fault: str) -> None:
    """One frame at a time is lost, late, doubled or overtaken."""
    frames = _run(name, lambda _: None)[2]
    assert frames >= 5

    for number in range(1, frames + 1):
        sim, problems, _ = _run(name, lambda n, number=number: FRAME_FAULTS[fault] if n == number else None)
        assert not problems, failure_report(name, f"frame {number} is {fault}", sim, problems)


@pytest.mark.parametrize("draw", range(40))
@pytest.mark.parametrize("name", SUBSCRIBED)
def test_subscriber_holds_the_result_after_many_random_frame_faults(name: str, draw: int) -> None:
    """A quarter of all frames are lost, late, doubled or overtaken."""
    random = Random(f"{name}/{draw}")
    sim, problems, _ = _run(name, lambda _: random.choice(list(FRAME_FAULTS.values())) if random.random() < 0.25 else None)
    assert not problems, failure_report(name, f"draw {draw}", sim, problems)


@pytest.mark.parametrize("name", SUBSCRIBED)
def test_subscriber_recovers_after_two_minutes_without_frames(name: str) -> None:
    """Silence makes the client subscribe again from its position."""
    sim = Simulation()
    sim.transmit = lambda client, frame: None if sim.world.loop.moment < 120 else sim.deliver_frame(client, frame)

    problems = problems_of(sim, SCENARIOS[name])

    assert not problems, failure_report(name, "nothing arrives for two minutes", sim, problems)
    assert sim.world.loop.moment > 120
