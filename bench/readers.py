"""Compute how many jobs a second the readers of the change stream carry: `python -m bench readers`.

The real consumers and the real adapters process batches of change records against a local server
for AWS. This process's processor time and its requests are counted, by job. From both follows how
long an invocation takes on Lambda, and from that how many jobs a second a shard carries.

Assumptions that are not measured here:

* A new on-demand table has four shards. Each has `FACTOR` invocations at a time.
* Lambda gives a function the share memory / 1,769 MB of a processor that is as fast as this one.
* A request takes `CALL_SECONDS` besides processor time, a transaction of a hundred items
  `TRANSACTION_SECONDS`, and an invocation `INVOKE_SECONDS`. Waiting and computing do not overlap,
  which they do on threads, so the result errs on the low side.
* A job has three records: created, claimed and ended. No two of them come in one invocation.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from bench.findings import Finding, finding, table, verdicts
from bench.rig import CALLER, STAGE, open_cloud
from chalicelib import bootstrap, job_types
from chalicelib.adapters.aws import client as aws
from chalicelib.adapters.runtime.threads import MAX_WORKERS
from chalicelib.consumers.count_jobs import count_job_changes
from chalicelib.consumers.job_changes import process_job_changes
from chalicelib.domain.auth.identity import Key
from chalicelib.domain.ids import batch_id, job_id_of_row
from chalicelib.domain.jobs.job import Job, Status, Usage
from chalicelib.domain.jobs.submission import Submission
from chalicelib.domain.jobs.transitions import AttemptOutcome, claim, finish
from chalicelib.domain.streaming.subscriptions import Subscription
from chalicelib.services.jobs.plan_job import plan_job
from chalicelib.services.jobs.submit_job import new_job
from chalicelib.settings import Settings
from infra.chalice_config import FUNCTIONS
from tests.kit.batch_records import batch
from tests.kit.change_records import change

SHARDS = 4
FACTOR = {"on_job_change": 5, "count_jobs": 2}  # invocations at a time for each shard
BATCH_SIZE = {"on_job_change": 100, "count_jobs": 500}  # records of an invocation; `app.py`
CALL_SECONDS, TRANSACTION_SECONDS, INVOKE_SECONDS = 0.005, 0.025, 0.010
MEMORIES = (256, 512, 1024, 1769)
VCPU_MB = 1769
JOBS = {"on_job_change": 200, "count_jobs": 500}
ROUNDS = 3
BATCH = batch_id("0" * 26)
AIM = {
    "jobs/s, on_job_change, a webhook a job": 1_000.0,
    "jobs/s, count_jobs": 1_000.0,
    "jobs/s, count_jobs, rows of a batch": 1_000.0,
}

Records = list[dict[str, Any]]


@dataclass(frozen=True)
class Scenario:
    """What the jobs have that costs their readers something."""

    function: str
    webhook: bool = False
    watcher: bool = False
    row: bool = False


SCENARIOS = {
    "on_job_change": Scenario("on_job_change"),
    "on_job_change, a webhook a job": Scenario("on_job_change", webhook=True),
    "on_job_change, a webhook and a watcher": Scenario("on_job_change", webhook=True, watcher=True),
    "count_jobs": Scenario("count_jobs"),
    "count_jobs, rows of a batch": Scenario("count_jobs", row=True),
}


@dataclass(frozen=True)
class Usages:
    """What a job costs its reader."""

    cpu_ms: float
    requests: dict[str, float]  # by operation

    @property
    def transactions(self) -> float:
        return self.requests.get("TransactWriteItems", 0.0)

    @property
    def calls(self) -> float:
        return sum(self.requests.values())


def measure() -> Finding:
    """Measure every scenario, and compute the jobs a second at the deployed memory and at others."""
    with open_cloud() as port:
        container = bootstrap.Container(Settings(stage=STAGE, log_level="ERROR"))
        bootstrap.override(container)
        key = Key(id=CALLER.key_id, hash=CALLER.key_hash, tenant=CALLER.tenant, user=CALLER.user, role=CALLER.role, created_at=0)
        container.api_keys.put_key(key)
        usages = {name: measure_scenario(container, scenario, f"http://127.0.0.1:{port}") for name, scenario in SCENARIOS.items()}
    deployed = {function.name: function.memory for function in FUNCTIONS}
    rates = {
        name: {memory: SHARDS * jobs_per_second(SCENARIOS[name], usages[name], memory) for memory in (*MEMORIES, deployed[one.function])}
        for name, one in SCENARIOS.items()
    }
    return finding(
        "readers",
        f"jobs a second that the readers of {SHARDS} shards carry, medians of {ROUNDS}",
        AIM,
        {f"jobs/s, {name}": of[deployed[SCENARIOS[name].function]] for name, of in rates.items()},
        at_least=True,
        costs={name: {"cpu_ms": round(one.cpu_ms, 3), "calls": round(one.calls, 2), **one.requests} for name, one in usages.items()},
        rates={name: {str(memory): round(rate) for memory, rate in of.items()} for name, of in rates.items()},
        deployed={name: deployed[name] for name in FACTOR},
    )


def show(found: Finding) -> str:
    """Format the finding as a table."""
    rows: list[tuple[str, ...]] = [
        (name, f"{cost['calls']:.2f}", f"{cost['cpu_ms']:.2f}", *(f"{found['rates'][name][str(memory)]:,}" for memory in MEMORIES))
        for name, cost in found["costs"].items()
    ]
    header = ("a job", "requests", "CPU ms", *(f"{memory} MB" for memory in MEMORIES))
    return "\n".join([table(rows, header), verdicts(found)])


def jobs_per_second(scenario: Scenario, usage: Usages, memory: int) -> float:
    """Return how many jobs a second one shard's invocations carry."""
    jobs = BATCH_SIZE[scenario.function] / 3
    share = min(1.0, memory / VCPU_MB)
    waiting = (usage.calls - usage.transactions) * CALL_SECONDS + usage.transactions * TRANSACTION_SECONDS
    threads = MAX_WORKERS if scenario.function == "on_job_change" else 1
    seconds = INVOKE_SECONDS + jobs * (usage.cpu_ms / 1000 / share + waiting / threads)
    return FACTOR[scenario.function] * jobs / seconds


def measure_scenario(container: bootstrap.Container, scenario: Scenario, endpoint: str, rounds: int = ROUNDS) -> Usages:
    """Process the records of fresh jobs `rounds` times, after a first time that does not count."""
    jobs = JOBS[scenario.function]
    processor: list[float] = []
    requests: dict[str, float] = {}
    for number in range(rounds + 1):
        records = make_records(container, scenario, endpoint, number * jobs, jobs)
        with counted(endpoint) as made:
            started_at = time.process_time()
            _process(container, scenario, records)
            spent = time.process_time() - started_at
        if number:  # the first round imports, connects and starts the threads
            processor.append(1000 * spent / jobs)
            requests = {name: round(made.count(name) / jobs, 3) for name in sorted(set(made))}
    return Usages(median(processor), requests)


def make_records(container: bootstrap.Container, scenario: Scenario, endpoint: str, first: int, count: int) -> Records:
    """Store jobs with what the scenario needs, and return their change records in the stream's order."""
    if scenario.row and not first:
        container.batches.create(batch(id=BATCH, tenant=CALLER.tenant, total=count * (ROUNDS + 1), released=0))
    jobs = [_states(container, scenario, first + number) for number in range(count)]
    for created, _, ended in jobs:
        if scenario.function == "on_job_change":
            container.jobs.create(ended)
        if scenario.watcher:
            container.subscriptions.add(_subscription(container, created.id, endpoint))
    images = [*((None, created) for created, _, _ in jobs), *(states[:2] for states in jobs), *(states[1:] for states in jobs)]
    return [change(before, after) for before, after in images]


def _process(container: bootstrap.Container, scenario: Scenario, records: Records) -> None:
    """Invoke the function for each batch of records."""
    consume: Callable[[Any], None] = {
        "on_job_change": lambda changes: process_job_changes(container, changes),
        "count_jobs": lambda changes: count_job_changes(container, changes),
    }[scenario.function]
    size = BATCH_SIZE[scenario.function]
    for start in range(0, len(records), size):
        consume(list(container.changes(records[start : start + size])))


@contextmanager
def counted(endpoint: str) -> Iterator[list[str]]:
    """List the operations of all requests to AWS while the block runs, also those of other threads."""
    made: list[str] = []

    def note(model: Any, **_: Any) -> None:
        made.append(model.name)

    services = [aws.client("dynamodb"), aws.client("sqs"), aws.client("apigatewaymanagementapi", endpoint_url=endpoint, attempts=1)]
    for each in services:
        each.meta.events.register("before-call", note)
    try:
        yield made
    finally:
        for each in services:
            each.meta.events.unregister("before-call", note)


def _states(container: bootstrap.Container, scenario: Scenario, number: int) -> tuple[Job, Job, Job]:
    """Return a job as it was created, claimed and completed."""
    now = container.clock.now()
    webhook = "https://example.com/hooks/headrace" if scenario.webhook else None
    submission = Submission(prompt="Tell me about water wheels.", job_type="general", priority="normal", webhook_url=webhook)
    plan = plan_job(job_types.get, container.prices, CALLER, submission, 0)
    job_id = job_id_of_row(BATCH, number) if scenario.row else f"job_{container.new_id()}"
    created = new_job(job_id, CALLER, submission, plan, now)
    if scenario.row:
        created = replace(created, batch_id=BATCH)
    if scenario.webhook:
        container.job_specs.put(created.id, created.tenant, plan.spec, now // 1000 + 86_400)
    claimed = claim(created, 1, "lease#1", now)
    assert claimed is not None
    outcome = AttemptOutcome(status=Status.COMPLETED, length=4_000, usage=Usage(input=20, output=1_000), cost=90_000)
    ended = finish(claimed, 1, "lease#1", outcome, now + 20_000)
    assert ended is not None
    assert created.notifies == scenario.webhook, "the reader would skip the webhook"
    return created, claimed, ended


def _subscription(container: bootstrap.Container, job_id: str, endpoint: str) -> Subscription:
    return Subscription(
        job_id=job_id,
        connection_id=f"c-{job_id}",
        endpoint=endpoint,
        key_hash=CALLER.key_hash,
        attempt=0,
        offset=0,
        subscription_id=container.new_id(),
        expires_at=container.clock.now() + 7_200_000,
    )
