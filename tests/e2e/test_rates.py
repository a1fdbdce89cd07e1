"""Rate limits of real minutes, as a stand-in for OpenAI counts them: never above, and used while work waits.

All cases run at the same time, each with a model of its own, because each takes some minutes.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.e2e.stack import Api, Model, Stack
from tests.e2e.test_batches import Batches
from tests.kit.quirky_openai import QuirkyOpenAI
from tests.kit.rate_meter import RateMeter, busiest_minute
from tests.summary import SUMMARY

SECONDS = 420.0  # that a case may take at most
EXCESS = 1.05
# The scheduler uses more than nine tenths of a limit (`python -m bench waiting`). Here all functions are
# processes on two processors that run other tests as well, and late grants are given back.
USED = 0.75


@dataclass
class Case:
    """A batch against a meter, with what happened."""

    meter: RateMeter
    rows: int
    config: dict[str, Any]
    warm_up: bool = True  # one job first, whose answer tells the limits
    began: float = 0.0
    changed_at: float = 0.0  # when the limit was halved
    batch: dict[str, Any] = field(default_factory=dict)

    def run(self, api: Api) -> Case:
        if self.warm_up:
            api.wait_for_end(api.submit(prompt="hi", config=self.config))
            time.sleep(3)  # every worker reads the limits again
        self.began = time.monotonic()
        items = [{"prompt": f"row {number}"} for number in range(self.rows)]
        body = {"items": items, "config": {**self.config, "max_attempts": 1}}
        batches = Batches(api)
        created = batches.submit(json.dumps(body).encode(), "application/json")["batch_id"]
        deadline = time.monotonic() + SECONDS
        while not (seen := batches.get(created))["finished_at"] and time.monotonic() < deadline:
            time.sleep(1)
        self.batch = seen
        return self

    @property
    def seconds(self) -> float:
        """From the first row's request to the last one's."""
        return self.meter.accepted[-1][0] - self.began

    def used(self, limit: float, *, tokens: bool = False) -> float:
        """Which part of the limit was used from the first to the last row."""
        times = [(at, cost if tokens else 1) for at, cost in self.meter.accepted if at >= self.began]
        span = (times[-1][0] - times[0][0]) / 60
        return sum(cost for _, cost in times) / (limit * span)


@pytest.fixture(scope="module")
def cases(stack: Stack, api: Api, quirky_openai: QuirkyOpenAI) -> Iterator[dict[str, Future[Case]]]:
    def case(meter: RateMeter, rows: int, **more: Any) -> Case:
        model = Model(stack.http, stack.openai_url)
        quirky_openai.meters[model.name] = meter
        warm_up = more.pop("warm_up", True)
        return Case(meter, rows, {**model.config, **more}, warm_up=warm_up)

    made = {
        "requests": case(RateMeter(requests=120), 300),
        "tokens": case(RateMeter(requests=10_000, tokens=60_000), 240, max_tokens=400),
        "halved": case(RateMeter(requests=120), 180),
        "few": case(RateMeter(requests=20), 60, warm_up=False),
    }

    def halve() -> None:
        one = made["halved"]
        one.changed_at = time.monotonic()
        one.meter.set_requests(60)

    timer = threading.Timer(45.0, halve)
    with ThreadPoolExecutor(len(made)) as threads:
        running = {name: threads.submit(one.run, api) for name, one in made.items()}
        timer.start()
        yield running
        timer.cancel()


def _completed(case: Case) -> None:
    assert case.batch["status"] == "completed", case.batch
    assert case.batch["counts"]["completed"] == case.rows


def test_requests_stay_within_the_limit_and_use_it(cases: dict[str, Future[Case]]) -> None:
    """Three hundred jobs against 120 requests a minute, over all workers of the stack."""
    case = cases["requests"].result()

    _completed(case)
    assert busiest_minute(case.meter.asked, since=case.began) <= 120 * EXCESS
    SUMMARY["rate limits"] = lambda: [
        f"{case.used(120):.0%} of 120 requests a minute used, {case.meter.refused} of {len(case.meter.asked)} refused"
    ]
    assert case.used(120) >= USED
    assert case.meter.refused <= 3


def test_tokens_stay_within_the_limit_and_use_it(cases: dict[str, Future[Case]]) -> None:
    case = cases["tokens"].result()

    _completed(case)
    assert busiest_minute(case.meter.asked, tokens=True, since=case.began) <= 60_000 * EXCESS
    assert case.meter.refused <= 3


def test_a_limit_that_is_halved_holds_after_it_was_told(cases: dict[str, Future[Case]]) -> None:
    case = cases["halved"].result()

    _completed(case)
    assert busiest_minute(case.meter.asked, since=case.changed_at + 60) <= 60 * EXCESS
    assert case.meter.refused <= case.rows * 0.1


def test_batch_above_a_limit_that_nobody_knows_takes_little_more_than_the_least_time(cases: dict[str, Future[Case]]) -> None:
    """Sixty rows, of which the account takes twenty a minute: the least possible time is two minutes.

    Each row has one attempt only, so none is used up by a refusal.
    """
    case = cases["few"].result()

    _completed(case)
    assert case.seconds <= 1.3 * 60 * (case.rows / 20 - 1)
