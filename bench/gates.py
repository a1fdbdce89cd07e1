"""Measure what each gate costs a job, and what it costs to wait: `python -m bench gates`.

Each gate is measured with a limit that has room, and with one for which the job has to wait. The
real services run on the real adapters with moto in place of AWS, in virtual time. The environment
of the worker is warm: it has just run another job, so what it keeps for some seconds (circuits,
pauses, limits) is not read again. What the scheduler does for a whole line or shard is counted
apart from what it does for the job.

`BEFORE` is what the same job cost in the last version without these gates. In an hour of waiting
the lines are swept, and the scheduler serves them, each minute. It is measured with one job and with
many: what the others add is what a waiting job costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from bench.findings import Finding, finding, table, verdicts
from bench.journey import STAGE, mocked_aws
from bench.metering import Meter
from bench.units import Raw
from chalicelib import job_types
from chalicelib.adapters.aws import client as aws
from chalicelib.adapters.stores import DynamoStores
from chalicelib.domain.auth.identity import Role
from chalicelib.domain.errors import QueueFull
from chalicelib.domain.jobs import transitions
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.jobs.job_type import Limits
from chalicelib.domain.jobs.transitions import AttemptOutcome
from chalicelib.domain.limits import type_rate
from chalicelib.domain.limits.pauses import PauseScope
from chalicelib.domain.limits.rate_limit import ACCOUNT, RateLimit
from chalicelib.domain.limits.tenant_limits import LimitsChange
from chalicelib.domain.queues.causes import CauseKind, cause_of
from chalicelib.domain.queues.lanes import READY, SCHEDULE
from chalicelib.services.limits.manage_limits import set_limits
from chalicelib.services.maintenance.sweep_lines import sweep_lines
from chalicelib.services.operations.force_circuit import close_circuit, open_circuit
from chalicelib.services.operations.pauses import PauseRequest, end_pauses, set_pause
from chalicelib.services.scheduling.slot_lines import release_after
from chalicelib.services.scheduling.visits import ask_for_visit
from infra.tables import TABLES, create_table_arguments
from tests.kit.world import ALICE, World

MODEL, TYPE, LANE, PER_MINUTE = "gpt-4o-mini", "general", "normal", 60
OPERATOR = replace(ALICE, user="olga", role=Role.OPERATOR)
MINUTES, MANY = 60, 21  # of waiting; jobs that wait
BEFORE = {"requests": 12, "write units": 14.0, "read units": 3.5, "messages": 1}
UNSET = "{} more than before, nothing set"
WAIT, HOUR = (
    "write units of a wait, beyond the gate's own, at most",
    f"requests, write units and messages an hour of {MANY - 1} jobs that wait",
)
AIM = {**{UNSET.format(name): 0.0 for name in BEFORE}, WAIT: 13.0, HOUR: 0.0}

Cost = dict[str, float]  # by the names of `BEFORE`


def measure() -> Finding:
    """Measure a job with nothing set, and each gate in each state."""
    unset = cost_of_start(nothing)
    starts = {name: cost_of_start(gate.allow, gate.limits) for name, gate in GATES.items()}
    starts["queued-jobs limit"] = cost_of_start(_set_limits(LimitsChange(queued={"total": 100})))
    waits = {name: cost_of_wait(gate) for name, gate in GATES.items()}
    hours = {name: (cost_of_hour(gate, 1), cost_of_hour(gate, MANY)) for name, gate in GATES.items()}
    added = {name: _less(many, one) for name, (one, many) in hours.items()}
    value = {
        **{UNSET.format(name): unset[name] - BEFORE[name] for name in BEFORE},
        WAIT: max(waits[name]["write units"] - starts[name]["write units"] for name in waits),
        HOUR: sum(cost["requests"] + cost["write units"] + cost["messages"] for cost in added.values()),
    }
    return finding(
        "gates",
        "what each gate costs a job of three tokens, beyond what it costs with nothing set",
        AIM,
        value,
        unset=unset,
        starts={name: _less(cost, unset) for name, cost in starts.items()},
        waits={name: _less(cost, unset) for name, cost in waits.items()},
        refusal=cost_of_refusal(),
        hours={name: one for name, (one, _) in hours.items()},
        hours_added=added,
    )


def show(found: Finding) -> str:
    """Format the finding as a table: requests, write units, read units and messages."""
    header = ("", "set, runs at once", "set, has to wait", f"an hour, {MANY - 1} more", "an hour, line and sweep")
    rows: list[tuple[str, ...]] = [("nothing set", _text(found["unset"]), "-", "-", "-")]
    kinds = ("starts", "waits", "hours_added", "hours")
    rows += [(name, *(_text(found[kind].get(name)) for kind in kinds)) for name in found["starts"]]
    rows.append(("  refused with 429", _text(found["refusal"]), "-", "-", "-"))
    return "\n".join(["  requests / write units / read units / messages", table(rows, header), verdicts(found)])


def _less(cost: Cost, other: Cost) -> Cost:
    return {name: cost[name] - other[name] for name in cost}


def _text(cost: Cost | None) -> str:
    return " / ".join(f"{number:g}" for number in cost.values()) if cost else "-"


class Stage:
    """A world whose records are in DynamoDB's tables on moto, and a meter."""

    def __init__(self, limits: Limits | None) -> None:
        for schema in TABLES:
            aws.client("dynamodb").create_table(**create_table_arguments(schema, STAGE))
        stores = DynamoStores(STAGE)
        names = [name for name, member in vars(DynamoStores).items() if isinstance(member, cached_property)]
        kind = replace(job_types.get(TYPE), limits=limits)
        self.world = World(job_type=lambda _: kind, **{name: getattr(stores, name) for name in names})
        self.ctx: Any = self.world.container
        self.meter = Meter(_row_name)
        self.meter.attach(STAGE)

    def run_job(self) -> None:
        """Run a job from its submission to its end, so that the environment is warm."""
        job = self.world.submit()
        self.world.deliver(LANE)
        assert self.status(job) is Status.COMPLETED

    def status(self, job: Job) -> Status:
        with self.meter.paused():
            return self.world.job(job).status

    def hold_jobs(self, count: int) -> list[Job]:
        jobs = [self.world.submit() for _ in range(count)]
        while self.ctx.queues.depth(LANE):
            self.world.deliver(LANE)
        assert {self.status(job) for job in jobs} == {Status.HELD}
        return jobs

    def schedule(self, seconds: float) -> None:
        with self.meter.during("scheduler"):
            self.world.schedule(seconds)

    def occupy(self, scope: str) -> None:
        """Let another job run in a slot; `vacate` ends it. Nobody counts either of them."""
        with self.meter.paused():
            job = self.world.submit()
            (message,) = self.ctx.queues.receive(LANE)
            self.ctx.queues.acknowledge(LANE, [message.receipt])
            key = f"{scope}#0"
            claimed = transitions.claim(job, 1, "other", self.ctx.clock.now(), model=MODEL, slots=(key,))
            assert claimed is not None
            self.ctx.jobs.replace(job, claimed, {key: 1})
        self.running = claimed

    def vacate(self) -> None:
        with self.meter.paused():
            outcome = AttemptOutcome(status=Status.COMPLETED, length=1)
            ended = transitions.finish(self.running, 1, "other", outcome, self.ctx.clock.now())
            assert ended is not None
            self.ctx.jobs.replace(self.running, ended)
        release_after(self.ctx, None, self.running, ended)

    def cost(self, job: Job | None) -> Cost:
        """Return what was counted so far, without what is shared."""
        rows = [row for name, row in self.meter.rows.items() if name not in (SHARED, FRAMES)]
        counted = self.meter.rows[FRAMES].write_units  # a unit each
        sent = [wake_up for _, wake_up in self.ctx.queues.sent if job is not None and wake_up.job_id == job.id]
        return {
            "requests": sum(row.requests for row in rows) + counted,
            "write units": sum(row.write_units for row in rows) + counted,
            "read units": sum(row.read_units for row in rows),
            "messages": len(sent),
        }


Step = Callable[[Stage], Any]


@dataclass(frozen=True, kw_only=True)
class Gate:
    """How a gate is set so that a job may start, so that it has to wait, and how it opens."""

    allow: Step
    hold: Step
    open: Step
    limits: Limits | None = None  # of the type
    keep: Step = lambda _: None  # done each minute, so that it stays closed


SHARED = "shared"  # the row of what the scheduler does for all jobs of a line or shard
FRAMES = "frames"  # the row of its starts, counted for one job each, and of its reads of the window


def _row_name(phase: str, _: str, item: Raw) -> str:
    if phase != "scheduler":
        return phase
    return FRAMES if str(item.get("pk", {}).get("S", "")).startswith("rate#") else SHARED


def _limit_model(stage: Stage) -> None:
    made = RateLimit(model=MODEL, account=ACCOUNT, requests=PER_MINUTE, seen_at=stage.ctx.clock.now(), version=1)
    stage.ctx.rates.save_limit(replace(made, version=0), made)


def _use_up(account: str, name: str) -> Step:
    def step(stage: Stage) -> None:
        with stage.meter.paused():
            stage.ctx.rates.take(account, name, 0, PER_MINUTE, stage.ctx.clock.now())

    return step


def _set_limits(change: LimitsChange) -> Step:
    return lambda stage: set_limits(stage.ctx, ALICE.tenant, change, "olga")


def _pause(scope: PauseScope) -> Step:
    return lambda stage: set_pause(stage.ctx, OPERATOR, PauseRequest(scope=scope))


def _resume(stage: Stage) -> None:
    with stage.meter.paused():
        end_pauses(stage.ctx, OPERATOR, PauseScope(tenant=ALICE.tenant))


def _open_circuit(model: str) -> Step:
    return lambda stage: open_circuit(stage.ctx.circuit_breakers, stage.ctx.log, model, "olga", None, "m1", stage.ctx.clock.now())


def _close_circuit(stage: Stage) -> None:
    with stage.meter.paused():
        close_circuit(stage.ctx.circuit_breakers, stage.ctx.log, MODEL, "olga", "m2", stage.ctx.clock.now())
    ask_for_visit(stage.ctx, cause_of(CauseKind.CIRCUIT, MODEL))


def _wait_a_minute(stage: Stage) -> None:
    stage.ctx.clock.advance(61.0)


def _both(*steps: Step) -> Step:
    def step(stage: Stage) -> None:
        for one in steps:
            one(stage)

    return step


def _slots(name: str, scope: str) -> Gate:
    return Gate(
        allow=_set_limits(LimitsChange(values={name: 10})),
        hold=_both(_set_limits(LimitsChange(values={name: 1})), lambda stage: stage.occupy(scope)),
        open=Stage.vacate,
    )


def nothing(_: Stage) -> None:
    """Set nothing."""


GATES: Mapping[str, Gate] = {
    "rate of a model": Gate(
        allow=_limit_model,
        hold=_both(_limit_model, _use_up(ACCOUNT, MODEL)),
        open=_wait_a_minute,
        keep=_use_up(ACCOUNT, MODEL),
    ),
    "starts of a type": Gate(
        limits=Limits(per_minute=PER_MINUTE),
        allow=nothing,
        hold=_use_up(type_rate.ACCOUNT, TYPE),
        open=_wait_a_minute,
        keep=_use_up(type_rate.ACCOUNT, TYPE),
    ),
    "concurrency of a type": Gate(
        limits=Limits(concurrency=1), allow=nothing, hold=lambda stage: stage.occupy(f"y:{TYPE}"), open=Stage.vacate
    ),
    "concurrency of a tenant": _slots("concurrency", f"t:{ALICE.tenant}"),
    "concurrency of a user": _slots("user_concurrency", f"u:{ALICE.tenant}#{ALICE.user}"),
    "pauses": Gate(allow=_pause(PauseScope(tenant=ALICE.tenant, lane="low")), hold=_pause(PauseScope(tenant=ALICE.tenant)), open=_resume),
    "circuit": Gate(allow=_open_circuit("gpt-4o"), hold=_open_circuit(MODEL), open=_close_circuit),
}


@contextmanager
def _stage(limits: Limits | None = None) -> Iterator[Stage]:
    with mocked_aws():
        yield Stage(limits)


def cost_of_start(allow: Step, limits: Limits | None = None) -> Cost:
    """Return what a job costs that runs at once."""
    with _stage(limits) as stage:
        allow(stage)
        stage.run_job()
        stage.meter.rows.clear()
        job = stage.world.submit()
        stage.world.deliver(LANE)
        assert stage.status(job) is Status.COMPLETED
        return stage.cost(job)


def cost_of_wait(gate: Gate) -> Cost:
    """Return what a job costs that waits until its gate opens."""
    with _stage(gate.limits) as stage:
        stage.run_job()
        gate.hold(stage)
        stage.ctx.clock.advance(20.0)  # the environment has noticed
        gate.keep(stage)
        stage.meter.rows.clear()
        (job,) = stage.hold_jobs(1)
        stage.schedule(10.0)  # a loop that can start nothing goes to sleep
        gate.open(stage)
        stage.schedule(1.0)
        stage.world.deliver(READY.name)
        assert stage.status(job) is Status.COMPLETED
        return stage.cost(job)


def cost_of_hour(gate: Gate, count: int) -> Cost:
    """Return everything that happens while jobs wait for an hour."""
    with _stage(gate.limits) as stage:
        gate.hold(stage)
        jobs = stage.hold_jobs(count)
        sent = len(stage.ctx.queues.sent)
        stage.meter.rows.clear()
        for _ in range(MINUTES):
            stage.ctx.clock.advance(60.0)
            gate.keep(stage)
            stage.ctx.queues.messages[SCHEDULE].clear()  # as if each loop had died: the sweep begins another one
            sweep_lines(stage.ctx, stage.ctx.clock.now() + 40_000)
            stage.world.schedule()
        assert {stage.status(job) for job in jobs} == {Status.HELD}
        return {**stage.cost(None), "messages": len(stage.ctx.queues.sent) - sent}


def cost_of_refusal() -> Cost:
    """Return what a submission costs that the queued-jobs limit refuses."""
    with _stage() as stage:
        _set_limits(LimitsChange(queued={"total": 1}))(stage)
        stage.world.submit()
        stage.meter.rows.clear()
        try:
            stage.world.submit()
        except QueueFull:
            return stage.cost(None)
        raise AssertionError("a queued-jobs limit did not refuse a job")
