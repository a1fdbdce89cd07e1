"""Simulate several writers of the same counters: `python -m bench contention`.

Each shard of the change stream has some writers. All of them add to the counter of a batch, or to
that of a type and model, and DynamoDB cancels a transaction that meets another one on an item. No
emulator does that. Here the real service and the real adapter count on a simulated DynamoDB, in
virtual time and in the same order in every run.

Assumptions: a transaction locks its items for `LOCK_SECONDS`, and one that meets a lock is
cancelled at once. Reads take `READ_SECONDS`. Processor time is taken as none, which makes writers
meet more often.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest import mock

from bench.findings import Finding, finding, table, verdicts
from bench.readers import FACTOR, SHARDS
from chalicelib.adapters.aws import client as aws
from chalicelib.adapters.dynamodb.counters import DynamoCounters
from chalicelib.consumers.count_jobs import PAGE_SIZE
from chalicelib.domain.ids import batch_id, job_id_of_row
from chalicelib.domain.jobs.job import Job, Status, Usage
from chalicelib.services.metrics.count_jobs import count_jobs
from tests.faults.bridge import run_in_greenlet, wait
from tests.kit.time import JumpingLoop, LoopClock

CONCURRENT = SHARDS * FACTOR["count_jobs"]  # writers
JOBS_PER_SECOND = 1_000
SECONDS = 20
BATCH_SIZE, WINDOW_SECONDS = 500, 2.0  # of the event source mapping
LOCK_SECONDS, READ_SECONDS = 0.025, 0.005
BATCH = batch_id("0" * 26)
NOW = 1_760_000_000_000
AIM = {"jobs that lost every try": 0.0, "seconds behind, at most": 4.0, "requests a transaction": 3.0}


@dataclass
class Load:
    """What the writers are given: rows are counted at each change, other jobs only at their end."""

    rows: bool
    lock_seconds: float = LOCK_SECONDS

    @property
    def changes_per_second(self) -> int:
        return JOBS_PER_SECOND * (3 if self.rows else 1)


LOADS = {
    "ends of one type and model": Load(rows=False),
    "rows of one batch": Load(rows=True),
    "rows of one batch, locks twice as long": Load(rows=True, lock_seconds=2 * LOCK_SECONDS),
}


@dataclass
class Outcome:
    """What happened under a load."""

    counted: int = 0
    lost: int = 0  # changes whose every try was lost; the stream would deliver them again
    requests: int = 0
    conflicts: int = 0
    behind: float = 0.0  # seconds between a change and its count, at most
    expected: int = 0

    @property
    def transactions(self) -> int:
        return self.requests - self.conflicts


def measure() -> Finding:
    """Run every load; the worst of them must meet the aims."""
    outcomes = {name: simulate(load) for name, load in LOADS.items()}
    value = {
        "jobs that lost every try": max(one.lost for one in outcomes.values()),
        "seconds behind, at most": max(one.behind for one in outcomes.values()),
        "requests a transaction": max(one.requests / one.transactions for one in outcomes.values()),
    }
    return finding(
        "contention",
        f"{CONCURRENT} writers of the same counters at {JOBS_PER_SECOND:,} jobs a second, {SECONDS} s, simulated",
        AIM,
        value,
        loads={name: vars(one) for name, one in outcomes.items()},
    )


def show(found: Finding) -> str:
    """Format the finding as a table."""
    rows: list[tuple[str, ...]] = [
        (name, f"{one['counted']:,}", f"{one['requests']:,}", f"{one['conflicts']:,}", f"{one['behind']:.2f}", f"{one['lost']}")
        for name, one in found["loads"].items()
    ]
    return "\n".join([table(rows, ("", "counted", "requests", "conflicts", "s behind", "lost")), verdicts(found)])


def simulate(load: Load, seconds: float = SECONDS, seed: str = "contention") -> Outcome:
    """Let the writers count `seconds` of a load, and check that the counters are exact."""
    loop, outcome = JumpingLoop(), Outcome()
    store = _SimulatedDynamo(load.lock_seconds, outcome)
    random = Random(seed)
    with mock.patch.object(aws, "client", return_value=store):
        loop.run_until_complete(_run(load, seconds, loop, outcome, random))
    loop.close()
    JumpingLoop.made.remove(loop)
    outcome.expected = round(load.changes_per_second * seconds)
    assert outcome.counted + outcome.lost == outcome.expected, outcome
    assert store.sums["known" if load.rows else "n"] == outcome.counted, (store.sums, outcome)
    return outcome


async def _run(load: Load, seconds: float, loop: JumpingLoop, outcome: Outcome, random: Random) -> None:
    clock = _GreenletClock(loop)
    counters = DynamoCounters("bench", clock.sleep)
    ctx = SimpleNamespace(counters=counters, clock=clock, random=random.random, log=lambda *_, **__: None)
    await asyncio.gather(*(_write(ctx, load, writer, seconds, loop, outcome) for writer in range(CONCURRENT)))


async def _write(ctx: Any, load: Load, writer: int, seconds: float, loop: JumpingLoop, outcome: Outcome) -> None:
    """Be one invocation after the other: each counts what has come since, up to a batch."""
    rate = load.changes_per_second / CONCURRENT
    done, total = 0, round(rate * seconds)
    await asyncio.sleep(writer * 0.1)
    while done < total:
        oldest = done / rate
        await asyncio.sleep(max(0.0, min(oldest + WINDOW_SECONDS, (done + BATCH_SIZE) / rate) - loop.time()))
        size = min(BATCH_SIZE, total - done, max(1, int(loop.time() * rate) - done))
        for start in range(done, done + size, PAGE_SIZE):
            page = range(start, min(done + size, start + PAGE_SIZE))
            jobs = [_job(load, writer + CONCURRENT * number) for number in page]
            lost = await run_in_greenlet(lambda page: count_jobs(ctx, page), jobs)
            outcome.lost += len(lost)
            outcome.counted += len(jobs) - len(lost)
        outcome.behind = max(outcome.behind, loop.time() - oldest)
        done += size


def _job(load: Load, number: int) -> Job:
    """Return a job that has ended. Each change is that of a job of its own, so it has a mark of its own."""
    return Job(
        id=job_id_of_row(BATCH, number),
        tenant="acme",
        user="alice",
        key_id="key_1",
        type="general",
        lane="normal",
        model="gpt-4o-mini",
        status=Status.COMPLETED,
        created_at=NOW,
        queued_at=NOW,
        started_at=NOW,
        first_token_at=NOW + 500,
        finished_at=NOW + 20_000,
        updated_at=NOW,
        expires_at=NOW,
        due_at=None,
        version=3,
        usage=Usage(input=100, output=1_000),
        batch_id=BATCH if load.rows else None,
    )


class _GreenletClock(LoopClock):
    """The clock of a writer: its pauses let the other writers go on."""

    def sleep(self, seconds: float) -> None:
        wait(asyncio.sleep(seconds))


@dataclass
class _SimulatedDynamo:
    """A client of DynamoDB with transactions that lock their items. Marks are always absent."""

    lock_seconds: float
    outcome: Outcome
    locked: set[tuple[str, str]] = field(default_factory=set)
    sums: Counter[str] = field(default_factory=Counter)  # of all counters, by name of the number

    def batch_get_item(self, **_: Any) -> dict[str, Any]:
        wait(asyncio.sleep(READ_SECONDS))
        return {"Responses": {}}

    def transact_write_items(self, TransactItems: list[dict[str, Any]]) -> None:  # noqa: N803 - botocore's name
        self.outcome.requests += 1
        wait(asyncio.sleep(READ_SECONDS))
        writes = [write for entry in TransactItems for write in entry.values()]
        keys = [_key(write.get("Key") or write["Item"]) for write in writes]
        if self.locked.intersection(keys):
            self.outcome.conflicts += 1
            self._cancel(keys)
        with self._lock(keys):
            wait(asyncio.sleep(self.lock_seconds))
        for write in writes:
            self._add(write)

    def _cancel(self, keys: list[tuple[str, str]]) -> None:
        from botocore.exceptions import ClientError

        codes = ["TransactionConflict" if key in self.locked else "None" for key in keys]
        response: Any = {"Error": {"Code": aws.CANCELLED}, "CancellationReasons": [{"Code": code} for code in codes]}
        raise ClientError(response, "TransactWriteItems")

    @contextmanager
    def _lock(self, keys: list[tuple[str, str]]) -> Iterator[None]:
        self.locked.update(keys)
        try:
            yield
        finally:
            self.locked.difference_update(keys)

    def _add(self, write: dict[str, Any]) -> None:
        if "UpdateExpression" not in write:
            return
        values = write["ExpressionAttributeValues"]
        for placeholder, name in write["ExpressionAttributeNames"].items():
            amount = values.get(placeholder.replace("#", ":"))
            if amount is not None and placeholder[1:].isdigit():
                self.sums[name] += int(amount["N"])


def _key(item: dict[str, Any]) -> tuple[str, str]:
    return item["pk"]["S"], item["sk"]["S"]
