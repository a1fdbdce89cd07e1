"""Measure what a batch row costs on AWS: `python -m bench rows`.

The measurement covers everything from the submission of the batch to its last count. The real
services run on the real adapters, with moto in place of AWS. Each request is counted with
botocore's events, and its capacity units are computed by DynamoDB's documented rules. The work of a
worker on a job is measured by `cost`; here jobs are only claimed and finished. Everything is
measured again with ten times as many unrelated jobs stored: no step may cost more then.
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
AIM = 2.2  # requests per row until all rows are released
COUNT_BATCH = 50  # records per invocation of `count_jobs`, at 25 rows a second


@dataclass
class RequestCounts:
    """The requests to AWS and their capacity units, by step."""

    step: str = ""
    requests: dict[str, Counter[str]] = field(default_factory=dict)  # by step, then by operation
    write_units: Counter[str] = field(default_factory=Counter)  # by step
    read_units: Counter[str] = field(default_factory=Counter)  # by step
    paused: bool = False  # while the measurement itself makes requests

    def attach(self) -> None:
        """Register with the clients of DynamoDB, SQS and S3."""
        for service in ("dynamodb", "sqs", "s3"):
            events = aws.client(service).meta.events
            events.register(f"before-parameter-build.{service}", self._before_request)
            events.register(f"after-call.{service}", self._after_response)
        aws.client("s3", read_timeout=10.0, signature="s3v4").meta.events.register("after-call.s3", self._after_response)

    @contextmanager
    def during(self, step: str) -> Iterator[None]:
        """Count requests for this step while the block runs."""
        previous, self.step = self.step, step
        self.requests.setdefault(step, Counter())
        try:
            yield
        finally:
            self.step = previous

    def _before_request(self, params: Any, model: Any, context: dict[str, Any], **_: Any) -> None:
        if self.step and not self.paused:
            context["before"] = [(name, key, self._get(name, key)) for name, key in _written_items(model.name, params)]
            context["request"] = params

    def _after_response(self, parsed: Any, model: Any, context: dict[str, Any], **_: Any) -> None:
        if not self.step or self.paused:
            return
        self.requests[self.step][model.name] += 1
        for name, key, old in context.get("before", []):
            in_transaction = model.name == "TransactWriteItems"
            self.write_units[self.step] += units.write_units(_TABLES[name], old, self._get(name, key), in_transaction=in_transaction)
        self.read_units[self.step] += _read_units(model.name, context.get("request", {}), parsed)  # type: ignore[assignment]

    def _get(self, name: str, key: Raw) -> Raw | None:
        previous, self.paused = self.paused, True
        try:
            found: Raw | None = aws.client("dynamodb").get_item(TableName=name, Key=key, ConsistentRead=True).get("Item")
        finally:
            self.paused = previous
        return found


_TABLES = {f"headrace-{STAGE}-{schema.name}": schema for schema in TABLES}


def _written_items(operation: str, params: Any) -> Iterator[tuple[str, Raw]]:
    """Yield the table name and the key of each item that a request writes."""
    if operation in ("PutItem", "UpdateItem", "DeleteItem"):
        yield _target(params)
    for entry in params.get("TransactItems", []) if operation == "TransactWriteItems" else []:
        (write,) = entry.values()
        yield _target(write)


def _target(params: Any) -> tuple[str, Raw]:
    name = params["TableName"]
    item = params.get("Key") or params["Item"]
    return name, {part: item[part] for part in (_TABLES[name].hash_key, _TABLES[name].range_key) if part}


def _read_units(operation: str, request: Any, parsed: Any) -> float:
    """Return the read units of a request; 0 for writes and for requests to other services."""
    if operation == "GetItem":
        return units.read_units(units.item_bytes(parsed.get("Item", {})), consistent=request.get("ConsistentRead", False))
    if operation == "Query":
        return units.read_units(sum(map(units.item_bytes, parsed["Items"])), consistent=request.get("ConsistentRead", False))
    if operation != "BatchGetItem":
        return 0.0
    total = 0.0
    for name, keys in request["RequestItems"].items():
        found, consistent = parsed["Responses"].get(name, []), keys.get("ConsistentRead", False)
        total += sum(units.read_units(units.item_bytes(item), consistent=consistent) for item in found)
        total += (len(keys["Keys"]) - len(found)) * (1.0 if consistent else 0.5)
    return total


def measure() -> Finding:
    """Measure one batch with nothing else stored, and with ten times as many unrelated jobs."""
    alone, among = _measure_batch(0), _measure_batch(10 * ROWS)
    released = {name: _request_sum(counts, "accepted", "released") / ROWS for name, counts in (("alone", alone), ("among others", among))}
    costlier = sum(
        _stable_requests(alone, step) != _stable_requests(among, step) or not _has_equal_units(alone, among, step)
        for step in alone.requests
    )
    return finding(
        "rows",
        "requests and capacity units of a batch, per row",
        {"requests per row until all are released": AIM, "steps that cost more with ten times as many jobs": 0},
        {"requests per row until all are released": released["alone"], "steps that cost more with ten times as many jobs": costlier},
        rows=ROWS,
        steps={step: _line(alone, step) for step in alone.requests},
        released=released,
    )


def _measure_batch(others: int) -> RequestCounts:
    """Run and read one batch in a new stage in which `others` unrelated jobs are stored."""
    from moto import mock_aws

    os.environ.update(AWS_ACCESS_KEY_ID="bench", AWS_SECRET_ACCESS_KEY="bench", AWS_DEFAULT_REGION="us-east-1")
    os.environ["HEADRACE_LOG_LEVEL"] = "ERROR"  # keeps log lines out of the JSON on standard output
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        os.environ.pop(name, None)
    with mock_aws():
        aws.reset_clients()
        _make_stage()
        bootstrap.override(_Container(Settings(stage=STAGE)))
        counts = RequestCounts()
        counts.attach()
        _create_unrelated_jobs(others)
        _run_batch(counts)
    bootstrap.override(None)
    aws.reset_clients()
    return counts


class _Container(bootstrap.Container):
    """The real container without threads, because they do not make moto faster."""

    @property
    def parallel_map(self) -> Any:
        return serial_map


def _make_stage() -> None:
    for schema in TABLES:
        aws.client("dynamodb").create_table(**create_table_arguments(schema, STAGE))
    aws.client("s3").create_bucket(Bucket=bucket_name(STAGE, ACCOUNT))
    for queue in ("low", TASKS):
        aws.client("sqs").create_queue(QueueName=queue_name(STAGE, queue))
        aws.client("sqs").create_queue(QueueName=dead_letter_queue_name(STAGE, queue))


def _create_unrelated_jobs(count: int) -> None:
    """Store completed jobs of the same tenant that do not belong to the batch."""
    jobs, now = bootstrap.container().jobs, bootstrap.container().clock.now()
    for _ in range(count):
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


def _run_batch(counts: RequestCounts) -> None:
    """Submit a batch, release, run and count its rows, complete it, then read it in every way."""
    ctx, now = bootstrap.container(), bootstrap.container().clock.now
    rows = [Row(number=number, prompt=PROMPT.format(number)) for number in range(ROWS)]
    with counts.during("accepted"):
        batch = submit_batch(ctx, CALLER, prepare_batch(ctx, CALLER, BatchOptions(), Submission(priority="low"), rows), None).batch
    with counts.during("released"):
        advance_batch(ctx, batch.tenant, batch.id, now() + 600_000)
    ids = [job_id_of_row(batch.id, number) for number in range(ROWS)]
    queued = ctx.jobs.get_many(ids)
    running = [_replace(ctx.jobs.replace, job, claim(job, 1, "lease#1", now())) for job in queued]
    outcome = AttemptOutcome(status=Status.COMPLETED, length=400, cost=90_000)
    ended = [_replace(ctx.jobs.replace, job, finish(job, 1, "lease#1", outcome, now())) for job in running]
    for step, jobs in (("counted as queued", queued), ("counted as processing", running), ("counted as ended", ended)):
        with counts.during(step):
            for start in range(0, ROWS, COUNT_BATCH):
                count_job_changes(ctx, [(job.id, None, job) for job in jobs[start : start + COUNT_BATCH]])
    with counts.during("ended"):
        advance_batch(ctx, batch.tenant, batch.id, now() + 600_000)
    stored = manage_batch.get_batch(ctx.batches, CALLER, batch.id)
    assert stored.finished_at is not None, stored
    assert stored.status == "completed", stored
    _read_batch(counts, ctx, batch.id)


def _read_batch(counts: RequestCounts, ctx: Any, batch_id: str) -> None:
    """Make each kind of read once; `READS` names the steps."""
    with counts.during("a view of the batch"):
        manage_batch.view_batch(ctx, manage_batch.get_batch(ctx.batches, CALLER, batch_id))
    with counts.during("a page of its rows"):
        read_rows(ctx, manage_batch.get_batch(ctx.batches, CALLER, batch_id), 0, 100)
    with counts.during("an export"):
        for page in iter_pages(ctx, manage_batch.get_batch(ctx.batches, CALLER, batch_id)):
            results_of(bootstrap.container().results, page)
    with counts.during("a page of its jobs"):
        list_jobs(ctx.jobs, ctx.log, CALLER, Filters(batch=batch_id), 100, None, bootstrap.container().row_count)
    with counts.during("a list of batches"):
        manage_batch.list_batches(ctx, CALLER, None, None, 20)


def _replace(replace: Callable[[Job, Job], None], seen: Job, new: Job | None) -> Job:
    """Write `new`, which a transition must have allowed, and return it."""
    assert new is not None
    replace(seen, new)
    return new


def _request_sum(counts: RequestCounts, *steps: str) -> int:
    return sum(counts.requests[step].total() for step in steps)


def _stable_requests(counts: RequestCounts, step: str) -> Counter[str]:
    """Return the requests of a step without those for the queue depth, which depend on the time."""
    return Counter({name: n for name, n in counts.requests[step].items() if not name.startswith("GetQueue")})


def _has_equal_units(first: RequestCounts, second: RequestCounts, step: str) -> bool:
    """Return whether the units are equal within 2 %, because ids and times differ in length."""
    pairs = ((first.read_units[step], second.read_units[step]), (first.write_units[step], second.write_units[step]))
    return all(abs(a - b) <= 0.02 * max(a, b) + 0.5 for a, b in pairs)


def _line(counts: RequestCounts, step: str) -> dict[str, Any]:
    return {
        "requests": counts.requests[step].total(),
        "by name": dict(counts.requests[step]),
        "write_units": counts.write_units[step],
        "read_units": counts.read_units[step],
    }


READS = ("a view of the batch", "a page of its rows", "an export", "a page of its jobs", "a list of batches")


def show(found: Finding) -> str:
    """Format the finding as a table: per row for the steps of a batch, per read for `READS`."""
    lines: list[tuple[str, ...]] = []
    sums = [0.0, 0.0, 0.0]
    for step, line in found["steps"].items():
        divisor = 1 if step in READS else found["rows"]
        figures = [line["requests"] / divisor, line["write_units"] / divisor, line["read_units"] / divisor]
        sums = sums if step in READS else [a + b for a, b in zip(sums, figures, strict=True)]
        lines.append((step, *(f"{figure:.2f}" for figure in figures), ", ".join(f"{n} {name}" for name, n in line["by name"].items())))
    lines.insert(len(lines) - len(READS), ("sum of the steps, per row", *(f"{figure:.2f}" for figure in sums), ""))
    return (
        table(lines, (f"a batch of {found['rows']} rows", "requests", "write units", "read units", "requests in all"))
        + "\n"
        + verdicts(found)
    )
