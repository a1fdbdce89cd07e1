"""Many jobs, workers, sweeps, cancels, retries and faults in any order that can be thought of; then peace, and everything is right."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from chalicelib.domain.errors import JobNotRetryable
from chalicelib.domain.failures import ProviderQuotaExhausted, ProviderUnavailable, StreamCut
from chalicelib.services.maintenance.sweeper import sweep
from tests.faults.answers import Says
from tests.faults.cloud import LANE, Cloud
from tests.faults.invariants import broken
from tests.faults.report import remember
from tests.faults.steps import Actor, Kind, end, freeze
from tests.kit.time import SkewedClock

MOST_JOBS = 6
SCRIPTS = {
    "whole": [Says(pieces=3)],
    "slow": [Says(pieces=6, every=3.0)],
    "cut, then whole": [Says(pieces=2, error=StreamCut()), Says(pieces=2)],
    "never answered": [Says(pieces=0, error=ProviderUnavailable())],
    "no quota, then whole": [Says(pieces=1, error=ProviderQuotaExhausted()), Says(pieces=1)],
    "durable": [Says(pieces=4, every=4.0)],
    "durable, soon forgotten": [Says(pieces=3, every=1.0, streams_for=2.0, keeps_for=20.0)],
}


class Engine(RuleBasedStateMachine):
    """Nothing happens by itself here but what is under way: each rule is something that somebody does, or that goes wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.cloud = Cloud()
        self.jobs: list[str] = []
        self.made = 0

    # ---- people

    @precondition(lambda self: len(self.jobs) < MOST_JOBS)
    @rule(script=st.sampled_from(sorted(SCRIPTS)), watched=st.booleans())
    def submit(self, script: str, watched: bool) -> None:
        self.made += 1
        config = {"durable": True} if script.startswith("durable") else {}
        job_id = self._run(self.cloud.submit(f"{script} {self.made}", *SCRIPTS[script], config=config))
        self.jobs.append(job_id)
        if watched:
            self._run(self.cloud.watch(job_id))

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self._start(self.cloud.cancel(data.draw(st.sampled_from(self.jobs))))

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        job_id = data.draw(st.sampled_from(self.jobs))

        async def ask() -> None:
            try:
                await self.cloud.retry(job_id)
            except JobNotRetryable:
                return

        self._start(ask())

    # ---- machines

    @rule(most=st.integers(1, 10))
    def deliver(self, most: int) -> None:
        """A worker is given what waits."""
        messages = self.cloud.real.queues.receive(LANE, most)
        if messages:
            self._start(self.cloud.work(messages))

    @rule(skew=st.sampled_from([0, 0, 0, 600, -600]))
    def sweep(self, skew: int) -> None:
        """By a clock that may be wrong."""
        ctx = self.cloud.world.container.with_changes(clock=SkewedClock(self.cloud.world.clock, skew))
        self._start(self.cloud.act("sweep", sweep, ctx))

    @rule(seconds=st.sampled_from([0.05, 0.3, 1.0, 4.0, 10.0, 31.0, 70.0]))
    def time_passes(self, seconds: float) -> None:
        self._run(asyncio.sleep(seconds))

    @rule(seconds=st.sampled_from([5.0, 40.0, 200.0]))
    def everything_stands_still(self, seconds: float) -> None:
        """The clock jumps: whatever was due in between is late."""
        self.cloud.world.clock.advance(seconds)

    # ---- what goes wrong

    @rule(after=st.integers(1, 25), kind=st.sampled_from(list(Kind)))
    def a_call_goes_wrong(self, after: int, kind: Kind) -> None:
        self.cloud.steps.faults[len(self.cloud.steps.trace) + after] = kind

    @precondition(lambda self: self.cloud.workers)
    @rule(data=st.data(), dies=st.booleans())
    def a_worker_stops(self, data: st.DataObject, dies: bool) -> None:
        worker: Actor = data.draw(st.sampled_from(self.cloud.workers))
        self._run(self._stop(worker, dies))

    @rule(data=st.data(), lost=st.booleans())
    def a_message_is_lost_or_doubled(self, data: st.DataObject, lost: bool) -> None:
        queues = self.cloud.real.queues
        if lost and queues.messages[LANE]:
            queues.messages[LANE].pop(data.draw(st.integers(0, len(queues.messages[LANE]) - 1)))
        elif queues.sent:
            queues.put_raw(LANE, data.draw(st.sampled_from(queues.sent))[1].to_json())

    # ---- what holds

    @invariant()
    def no_rule_was_broken(self) -> None:
        assert not self.cloud.history.problems, self._told(self.cloud.history.problems)

    def teardown(self) -> None:
        """Peace: machines run by themselves, nothing goes wrong any more, and everything comes to rest."""
        cloud = self.cloud
        cloud.steps.faults.clear()

        async def peace() -> None:
            cloud.start()
            await asyncio.sleep(120)  # the requests under way
            await cloud.rest()

        try:
            self._run(peace())
            problems = broken(cloud)
            remember(cloud)
            assert not problems, self._told(problems)
        finally:
            cloud.close()

    async def _stop(self, worker: Actor, dies: bool) -> None:
        if dies:
            end(worker)
        else:
            freeze(worker)

    def _run(self, work: Any) -> Any:
        return self.cloud.world.loop.run_until_complete(work)

    def _start(self, work: Any) -> None:
        async def begin() -> None:
            self.cloud.background(work)

        self._run(begin())

    def _told(self, problems: list[str]) -> str:
        return "\n".join([*problems, self.cloud.steps.printed()])


EXAMPLES = int(os.environ.get("HEADRACE_MACHINE_EXAMPLES", "120"))
Engine.TestCase.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=35,
    deadline=None,
    derandomize="HEADRACE_MACHINE_EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
)
TestEngine = Engine.TestCase
