"""Jobs, workers, sweeps, cancels, retries and faults in random orders.

When the faults stop, all jobs end and the invariants hold.
"""

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
from tests.faults.invariants import violations
from tests.faults.provider import ScriptedAnswer
from tests.faults.report import count_run
from tests.faults.simulation import LANE, Simulation
from tests.faults.steps import Actor, Kind, end, freeze
from tests.kit.time import SkewedClock

MAX_JOBS = 6
SCRIPTS = {
    "whole": [ScriptedAnswer(pieces=3)],
    "slow": [ScriptedAnswer(pieces=6, every=3.0)],
    "cut, then whole": [ScriptedAnswer(pieces=2, error=StreamCut()), ScriptedAnswer(pieces=2)],
    "never answered": [ScriptedAnswer(pieces=0, error=ProviderUnavailable())],
    "no quota, then whole": [ScriptedAnswer(pieces=1, error=ProviderQuotaExhausted()), ScriptedAnswer(pieces=1)],
    "durable": [ScriptedAnswer(pieces=4, every=4.0)],
    "durable, soon forgotten": [ScriptedAnswer(pieces=3, every=1.0, streams_for=2.0, keeps_for=20.0)],
}


class Engine(RuleBasedStateMachine):
    """Each rule is a request, a function that AWS starts, or a fault.

    Nothing else starts by itself before the teardown.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sim = Simulation()
        self.jobs: list[str] = []
        self.submitted = 0

    # ---- the API's users

    @precondition(lambda self: len(self.jobs) < MAX_JOBS)
    @rule(script=st.sampled_from(sorted(SCRIPTS)), watched=st.booleans())
    def submit(self, script: str, watched: bool) -> None:
        self.submitted += 1
        config = {"durable": True} if script.startswith("durable") else {}
        job_id = self._run(self.sim.submit(f"{script} {self.submitted}", *SCRIPTS[script], config=config))
        self.jobs.append(job_id)
        if watched:
            self._run(self.sim.watch(job_id))

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self._start(self.sim.cancel(data.draw(st.sampled_from(self.jobs))))

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        job_id = data.draw(st.sampled_from(self.jobs))

        async def retry() -> None:
            try:
                await self.sim.retry(job_id)
            except JobNotRetryable:
                return

        self._start(retry())

    # ---- AWS

    @rule(most=st.integers(1, 10))
    def deliver(self, most: int) -> None:
        """A worker receives visible messages."""
        messages = self.sim.real.queues.receive(LANE, most)
        if messages:
            self._start(self.sim.run_worker(messages))

    @rule(skew=st.sampled_from([0, 0, 0, 600, -600]))
    def sweep(self, skew: int) -> None:
        """The sweeper runs, with a clock that may be wrong."""
        ctx = self.sim.world.container.with_changes(clock=SkewedClock(self.sim.world.clock, skew))
        self._start(self.sim.run_call("sweep", sweep, ctx))

    @rule(seconds=st.sampled_from([0.05, 0.3, 1.0, 4.0, 10.0, 31.0, 70.0]))
    def advance_time(self, seconds: float) -> None:
        self._run(asyncio.sleep(seconds))

    @rule(seconds=st.sampled_from([5.0, 40.0, 200.0]))
    def jump_clock(self, seconds: float) -> None:
        """The clock jumps, so that every timer in between is late."""
        self.sim.world.clock.advance(seconds)

    # ---- faults

    @rule(after=st.integers(1, 25), kind=st.sampled_from(list(Kind)))
    def inject_fault(self, after: int, kind: Kind) -> None:
        self.sim.steps.faults[len(self.sim.steps.trace) + after] = kind

    @precondition(lambda self: self.sim.workers)
    @rule(data=st.data(), dies=st.booleans())
    def stop_worker(self, data: st.DataObject, dies: bool) -> None:
        worker: Actor = data.draw(st.sampled_from(self.sim.workers))
        self._run(self._stop(worker, dies))

    @rule(data=st.data(), lost=st.booleans())
    def lose_or_double_message(self, data: st.DataObject, lost: bool) -> None:
        queues = self.sim.real.queues
        if lost and queues.messages[LANE]:
            queues.messages[LANE].pop(data.draw(st.integers(0, len(queues.messages[LANE]) - 1)))
        elif queues.sent:
            queues.put_raw(LANE, data.draw(st.sampled_from(queues.sent))[1].to_json())

    # ---- invariants

    @invariant()
    def history_has_no_problems(self) -> None:
        assert not self.sim.history.problems, self._failure(self.sim.history.problems)

    def teardown(self) -> None:
        """Stop the faults, start the regular system, and wait until nothing is unfinished."""
        sim = self.sim
        sim.steps.faults.clear()

        async def finish() -> None:
            sim.start()
            await asyncio.sleep(120)  # for the requests that are in progress
            await sim.wait_until_idle()

        try:
            self._run(finish())
            problems = violations(sim)
            count_run(sim)
            assert not problems, self._failure(problems)
        finally:
            sim.close()

    async def _stop(self, worker: Actor, dies: bool) -> None:
        if dies:
            end(worker)
        else:
            freeze(worker)

    def _run(self, work: Any) -> Any:
        return self.sim.world.loop.run_until_complete(work)

    def _start(self, work: Any) -> None:
        async def spawn() -> None:
            self.sim.spawn(work)

        self._run(spawn())

    def _failure(self, problems: list[str]) -> str:
        return "\n".join([*problems, self.sim.steps.formatted()])


EXAMPLES = int(os.environ.get("HEADRACE_MACHINE_EXAMPLES", "120"))
Engine.TestCase.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=35,
    deadline=None,
    derandomize="HEADRACE_MACHINE_EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
)
TestEngine = Engine.TestCase
