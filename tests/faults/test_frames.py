"""Frames that are lost, late, doubled or overtaken on their way: the watcher ends with exactly the result."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from tests.faults.client import Client
from tests.faults.cloud import Cloud
from tests.faults.report import problems_of, report
from tests.faults.scenarios import SCENARIOS

WATCHED = ("plain", "failing_first", "retried", "dead_worker")
FATES: dict[str, Callable[[Cloud, Client, dict[str, Any]], None]] = {
    "lost": lambda _cloud, _client, _frame: None,
    "overtaken": lambda cloud, client, frame: cloud.deliver_frame(client, frame, after=0.7),
    "late": lambda cloud, client, frame: cloud.deliver_frame(client, frame, after=45.0),
    "doubled": lambda cloud, client, frame: (cloud.deliver_frame(client, frame), cloud.deliver_frame(client, frame, after=5.0))[0],
}
Fate = Callable[[Cloud, Client, dict[str, Any]], None]


def _told(name: str, fate_of: Callable[[int], Fate | None]) -> tuple[Cloud, list[str], int]:
    """A run in which frame number n has the fate `fate_of(n)`; and how many frames there were."""
    cloud, frames = Cloud(), 0

    def carry(client: Client, frame: dict[str, Any]) -> None:
        nonlocal frames
        frames += 1
        fate = fate_of(frames)
        if fate is None:
            cloud.deliver_frame(client, frame)
        else:
            fate(cloud, client, frame)

    cloud.carry = carry
    return cloud, problems_of(cloud, SCENARIOS[name]), frames


@pytest.mark.parametrize("fate", FATES)
@pytest.mark.parametrize("name", WATCHED)
def test_subscriber_holds_the_result_after_a_fault_at_each_frame(name: str, fate: str) -> None:
    """One frame at a time is lost, late, doubled or overtaken."""
    frames = _told(name, lambda _: None)[2]
    assert frames >= 5

    for number in range(1, frames + 1):
        cloud, problems, _ = _told(name, lambda n, number=number: FATES[fate] if n == number else None)
        assert not problems, report(name, f"frame {number} is {fate}", cloud, problems)


@pytest.mark.parametrize("draw", range(40))
@pytest.mark.parametrize("name", WATCHED)
def test_subscriber_holds_the_result_after_many_random_frame_faults(name: str, draw: int) -> None:
    """A quarter of all frames are lost, late, doubled or overtaken."""
    random = Random(f"{name}/{draw}")
    cloud, problems, _ = _told(name, lambda _: random.choice(list(FATES.values())) if random.random() < 0.25 else None)
    assert not problems, report(name, f"draw {draw}", cloud, problems)


@pytest.mark.parametrize("name", WATCHED)
def test_subscriber_recovers_after_two_minutes_without_frames(name: str) -> None:
    """Silence makes the client subscribe again from its position."""
    cloud = Cloud()
    cloud.carry = lambda client, frame: None if cloud.world.loop.moment < 120 else cloud.deliver_frame(client, frame)

    problems = problems_of(cloud, SCENARIOS[name])

    assert not problems, report(name, "nothing arrives for two minutes", cloud, problems)
    assert cloud.world.loop.moment > 120
