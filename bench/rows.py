"""What a row of a batch costs on AWS, from the batch's POST to its last count: `python -m bench rows`.

The real use cases on the real adapters, moto in place of AWS; each request is counted on the wire, and priced in units by DynamoDB's
documented rules. What a worker does with a job is the same as for any other, and measured by `cost`; here a job only ends. Once more with
ten times as many jobs stored beforehand: nothing may cost more for it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from bench import units
from bench.findings import Finding, finding, table, verdicts
from bench.units import Raw
from chalicelib import bootstrap
from chalicelib.adapters.aws import client as aws
from chalicelib.adapters.runtime.threads import serial_map
from chalicelib.consumers.count_jobs import count_job_changes
from chalicelib.domain.auth.identity import Caller, Role
from chalicelib.domain.batches.options import BatchOptions
from chalicelib.domain.batches.row import Row
from chalicelib.domain.ids import job_id_of_row
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.jobs.submission import Submission
from chalicelib.domain.jobs.transitions import AttemptOutcome, claim, finish
from chalicelib.domain.queues.lanes import TASKS, dead_letter_queue_name, queue_name
from chalicelib.services.batches import manage_batch
from chalicelib.services.batches.advance_batch import advance_batch
from chalicelib.services.batches.read_rows import iter_pages, read_rows, results_of
from chalicelib.services.batches.submit_batch import prepare_batch, submit_batch
from chalicelib.services.jobs.list_jobs import Filters, list_jobs
from chalicelib.settings import Settings
from infra.naming import bucket_name
from infra.tables import TABLES, create_table_arguments

STAGE, ACCOUNT = "bench", "123456789012"  # moto's account
CALLER = Caller(tenant="acme", user="alice", role=Role.USER, key_id="key_1", key_hash="hash")
ROWS = 250
PROMPT = "Tell me in two sentences about water wheels, as number {} of many."
AIM = 2.2  # requests a row, until all are released
COUNTED_TOGETHER = 50  # records of an invocation of `count`, at a pace of twenty-five rows a second


@dataclass
class Tally:
    """What was asked of AWS in each step: requests by name, and units."""

    step: str = ""
    requests: dict[str, Counter[str]] = field(default_factory=dict)
    write_units: Counter[str] = field(default_factory=Counter)
    read_units: Counter[str] = field(default_factory=Counter)
    looking: bool = False

    def attach(self) -> None:
        for service in ("dynamodb", "sqs", "s3"):
            events = aws.client(service).meta.events
            events.register(f"before-parameter-build.{service}", self._asked)
            events.register(f"after-call.{service}", self._answered)
        aws.client("s3", read_timeout=10.0, signature="s3v4").meta.events.register("after-call.s3", self._answered)

    @contextmanager
    def during(self, step: str) -> Iterator[None]:
        before, self.step = self.step, step
        self.requests.setdefault(step, Counter())
        try:
            yield
        finally:
            self.step = before

    def _asked(self, params: Any, model: Any, context: dict[str, Any], **_: Any) -> None:
        if self.step and not self.looking:
            context["before"] = [(name, key, self._look(name, key)) for name, key in _written(model.name, params)]
            context["asked"] = params

    def _answered(self, parsed: Any, model: Any, context: dict[str, Any], **_: Any) -> None:
        if not self.step or self.looking:
            return
        self.requests[self.step][model.name] += 1
        for name, key, old in context.get("before", []):
            units_ = units.write_units(_TABLES[name], old, self._look(name, key), together=model.name == "TransactWriteItems")
            self.write_units[self.step] += units_
        asked = context.get("asked", {})
        self.read_units[self.step] += _read_units(model.name, asked, parsed)  # type: ignore[assignment]

    def _look(self, name: str, key: Raw) -> Raw | None:
        before, self.looking = self.looking, True
        try:
            found: Raw | None = aws.client("dynamodb").get_item(TableName=name, Key=key, ConsistentRead=True).get("Item")
        finally:
            self.looking = before
        return found


_TABLES = {f"headrace-{STAGE}-{one.name}": one for one in TABLES}


def _written(operation: str, params: Any) -> Iterator[tuple[str, Raw]]:
    """The items that a request writes, by table and key."""
    if operation in ("PutItem", "UpdateItem", "DeleteItem"):
        yield _target(params)
    for one in params.get("TransactItems", []) if operation == "TransactWriteItems" else []:
        (inner,) = one.values()
        yield _target(inner)


def _target(params: Any) -> tuple[str, Raw]:
    name = params["TableName"]
    item = params.get("Key") or params["Item"]
    return name, {part: item[part] for part in (_TABLES[name].hash_key, _TABLES[name].range_key) if part}


def _read_units(operation: str, asked: Any, parsed: Any) -> float:
    if operation == "GetItem":
        return units.read_units(units.item_bytes(parsed.get("Item", {})), consistent=asked.get("ConsistentRead", False))
    if operation == "Query":
        return units.read_units(sum(map(units.item_bytes, parsed["Items"])), consistent=asked.get("ConsistentRead", False))
    if operation != "BatchGetItem":
        return 0.0
    total = 0.0
    for name, wanted in asked["RequestItems"].items():
        found, consistent = parsed["Responses"].get(name, []), wanted.get("ConsistentRead", False)
        total += sum(units.read_units(units.item_bytes(item), consistent=consistent) for item in found)
        total += (len(wanted["Keys"]) - len(found)) * (1.0 if consistent else 0.5)
    return total


def measure() -> Finding:
    """One batch, twice: with nothing else stored, and with ten times as many jobs."""
    alone, among = _lived(0), _lived(10 * ROWS)
    released = {name: _sum(found, "accepted", "released") / ROWS for name, found in (("alone", alone), ("among others", among))}
    dearer = sum(_of_tables(alone, step) != _of_tables(among, step) or not _close(alone, among, step) for step in alone.requests)
    return finding(
        "rows",
        "what a row of a batch asks of AWS",
        {"requests a row until all are released": AIM, "steps that cost more among ten times as many jobs": 0},
        {"requests a row until all are released": released["alone"], "steps that cost more among ten times as many jobs": dearer},
        rows=ROWS,
        steps={step: _line(alone, step) for step in alone.requests},
        released=released,
    )


def _lived(others: int) -> Tally:
    from moto import mock_aws

    os.environ.update(AWS_ACCESS_KEY_ID="bench", AWS_SECRET_ACCESS_KEY="bench", AWS_DEFAULT_REGION="us-east-1")
    os.environ["HEADRACE_LOG_LEVEL"] = "ERROR"  # standard output carries the finding
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        os.environ.pop(name, None)
    with mock_aws():
        aws.reset_clients()
        _make_stage()
        bootstrap.override(_Container(Settings(stage=STAGE)))
        tally = Tally()
        tally.attach()
        _store(others)
        _live(tally)
    bootstrap.override(None)
    aws.reset_clients()
    return tally


class _Container(bootstrap.Container):
    """The real ones, one call after the other: moto's stores are no faster for threads."""

    @property
    def parallel_map(self) -> Any:
        return serial_map


def _make_stage() -> None:
    for one in TABLES:
        aws.client("dynamodb").create_table(**create_table_arguments(one, STAGE))
    aws.client("s3").create_bucket(Bucket=bucket_name(STAGE, ACCOUNT))
    for queue in ("low", TASKS):
        aws.client("sqs").create_queue(QueueName=queue_name(STAGE, queue))
        aws.client("sqs").create_queue(QueueName=dead_letter_queue_name(STAGE, queue))


def _store(others: int) -> None:
    """Jobs of the same tenant that have nothing to do with the batch."""
    jobs, now = bootstrap.container().jobs, bootstrap.container().clock.now()
    for _ in range(others):
        jobs.create(_job(f"job_{bootstrap.container().new_id()}", now))


def _job(job_id: str, now: int) -> Job:
    return Job(
        id=job_id,
        tenant="acme",
        user="alice",
        key_id="key_1",
        type="general",
        lane="low",
        model="gpt-4o-mini",
        status=Status.COMPLETED,
        created_at=now,
        queued_at=now,
        expires_at=now + 1,
        due_at=None,
        finished_at=now,
    )


def _live(tally: Tally) -> None:
    """Accept, release, run, count, end; then look at it in every way there is."""
    ctx, now = bootstrap.container(), bootstrap.container().clock.now
    rows = [Row(number=number, prompt=PROMPT.format(number)) for number in range(ROWS)]
    with tally.during("accepted"):
        batch = submit_batch(ctx, CALLER, prepare_batch(ctx, CALLER, BatchOptions(), Submission(priority="low"), rows), None).batch
    with tally.during("released"):
        advance_batch(ctx, batch.tenant, batch.id, now() + 600_000)
    ids = [job_id_of_row(batch.id, number) for number in range(ROWS)]
    queued = ctx.jobs.get_many(ids)
    running = [_moved(ctx.jobs.replace, job, claim(job, 1, "lease#1", now())) for job in queued]
    outcome = AttemptOutcome(status=Status.COMPLETED, length=400, cost=90_000)
    ended = [_moved(ctx.jobs.replace, job, finish(job, 1, "lease#1", outcome, now())) for job in running]
    for step, images in (("counted as queued", queued), ("counted as processing", running), ("counted as ended", ended)):
        with tally.during(step):
            for start in range(0, ROWS, COUNTED_TOGETHER):
                count_job_changes(ctx, [(job.id, None, job) for job in images[start : start + COUNTED_TOGETHER]])
    with tally.during("ended"):
        advance_batch(ctx, batch.tenant, batch.id, now() + 600_000)
    found = manage_batch.get_batch(ctx.batches, CALLER, batch.id)
    assert found.finished_at is not None, found
    assert found.status == "completed", found
    _look(tally, ctx, batch.id)


def _look(tally: Tally, ctx: Any, batch_id: str) -> None:
    with tally.during("one look at it"):
        manage_batch.view_batch(ctx, manage_batch.get_batch(ctx.batches, CALLER, batch_id))
    with tally.during("a page of its rows"):
        read_rows(ctx, manage_batch.get_batch(ctx.batches, CALLER, batch_id), 0, 100)
    with tally.during("an export"):
        for seats in iter_pages(ctx, manage_batch.get_batch(ctx.batches, CALLER, batch_id)):
            results_of(bootstrap.container().results, seats)
    with tally.during("a page of its jobs"):
        list_jobs(ctx.jobs, CALLER, Filters(batch=batch_id), 100, None, bootstrap.container().row_count)
    with tally.during("a list of batches"):
        manage_batch.list_batches(ctx, CALLER, None, None, 20)


def _moved(swap: Callable[[Job, Job], None], seen: Job, new: Job | None) -> Job:
    assert new is not None
    swap(seen, new)
    return new


def _sum(tally: Tally, *steps: str) -> int:
    return sum(tally.requests[step].total() for step in steps)


def _of_tables(tally: Tally, step: str) -> Counter[str]:
    """Without the depth of the lane, which is looked at every three seconds, however long those are."""
    asked = tally.requests[step]
    return Counter({name: n for name, n in asked.items() if not name.startswith("GetQueue")})


def _close(one: Tally, other: Tally, step: str) -> bool:
    """The same units, give or take what ids and times of other lengths come to."""
    pairs = ((one.read_units[step], other.read_units[step]), (one.write_units[step], other.write_units[step]))
    return all(abs(a - b) <= 0.02 * max(a, b) + 0.5 for a, b in pairs)


def _line(tally: Tally, step: str) -> dict[str, Any]:
    return {
        "requests": tally.requests[step].total(),
        "by name": dict(tally.requests[step]),
        "write_units": tally.write_units[step],
        "read_units": tally.read_units[step],
    }


LOOKS = ("one look at it", "a page of its rows", "an export", "a page of its jobs", "a list of batches")


def show(found: Finding) -> str:
    """The table of a finding: for each row while it is made, for each look where it is read."""
    lines: list[tuple[str, ...]] = []
    sums = [0.0, 0.0, 0.0]
    for step, line in found["steps"].items():
        by = 1 if step in LOOKS else found["rows"]
        figures = [line["requests"] / by, line["write_units"] / by, line["read_units"] / by]
        sums = sums if step in LOOKS else [a + b for a, b in zip(sums, figures, strict=True)]
        lines.append((step, *(f"{figure:.2f}" for figure in figures), ", ".join(f"{n} {name}" for name, n in line["by name"].items())))
    lines.insert(len(lines) - len(LOOKS), ("a row, all in all", *(f"{figure:.2f}" for figure in sums), ""))
    return (
        table(lines, (f"a batch of {found['rows']} rows", "requests", "write units", "read units", "requests in all"))
        + "\n"
        + verdicts(found)
    )
