"""Accept a batch: check every row, store the rows, write the batch record, then enqueue its first
task (protocol rule 24: object, record, message).

A process that dies in between leaves objects that no record names; the bucket expires them. A
repeated request with the same Idempotency-Key continues, because it gets the same batch id.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from chalicelib.domain.auth.identity import Caller
from chalicelib.domain.batches.batch import ROWS_PER_OBJECT, Batch
from chalicelib.domain.batches.options import BatchOptions, check_release_time
from chalicelib.domain.batches.row import Row
from chalicelib.domain.errors import Detail, InvalidRequest, Unavailable
from chalicelib.domain.jobs.dependencies import MAX_PARENTS
from chalicelib.domain.jobs.job_type import JobType
from chalicelib.domain.jobs.submission import Submission
from chalicelib.domain.jobs.topological_order import topological_order
from chalicelib.domain.validation.config_schema import CONFIG, config_problems
from chalicelib.domain.validation.schema import MAX_DETAILS, problems
from chalicelib.domain.validation.whole_numbers import whole_numbers
from chalicelib.services.batches.context import BatchContext, enqueue_advance
from chalicelib.services.batches.release_rows import submission_of
from chalicelib.services.dependencies.check_parents import check_parents
from chalicelib.services.idempotency import IdempotentRequest
from chalicelib.services.jobs.plan_job import plan_job
from chalicelib.services.notifications.settings import parse_recipients

MAX_EXTERNAL_PARENTS = 1_000  # parents outside the batch; each is read at the submission


@dataclass(frozen=True, slots=True)
class PreparedBatch:
    """A checked batch that can be submitted."""

    options: BatchOptions
    base: Submission  # the part of the submission that all rows share
    model: str
    rows: Sequence[Row]  # in the order of their release
    ordered: bool  # that order is the order of the input


@dataclass(frozen=True, slots=True)
class SubmittedBatch:
    """An accepted batch."""

    batch: Batch
    replayed: bool = False  # the request had been sent before


def base_submission(options: BatchOptions) -> Submission:
    """Return the part of a submission that all rows share.

    Raises:
        InvalidRequest: with every invalid field of `config`.
    """
    config = dict(options.config)
    if details := config_problems(config):
        raise InvalidRequest(details=tuple(details))
    config = whole_numbers(CONFIG, config)
    return Submission(prompt="-", job_type=options.type, priority=options.priority, options=dict(options.options), config=config)


def prepare_batch(ctx: BatchContext, caller: Caller, options: BatchOptions, base: Submission, rows: Iterable[Row]) -> PreparedBatch:
    """Check all rows and the options that they share.

    Raises:
        InvalidRequest: with every invalid row, up to 100; or the rows would be released over too
            long a time.
        JobTypeNotFound: there is no such type.
    """
    kind, checked = ctx.job_type(base.job_type), list(rows)
    details = [detail for row in checked for detail in _row_problems(kind, row)][:MAX_DETAILS]
    if details:
        raise InvalidRequest(details=tuple(details))
    check_release_time(options, len(checked))
    _check_external_parents(ctx, caller, checked)
    # One plan checks the options and the config, which all rows share.
    plan = plan_job(ctx.job_type, ctx.prices, caller, submission_of(base, checked[0], {}), 0)
    ordered_rows = order_rows(checked)
    return PreparedBatch(options, base, plan.spec.config.model, ordered_rows, ordered=ordered_rows == checked)


def order_rows(rows: list[Row]) -> list[Row]:
    """Return the rows with each row after its parents, otherwise in the order of the input."""
    if not any(row.depends_on for row in rows):
        return rows
    by_id = {row.id if row.id is not None else f"\0{row.number}": row for row in rows}
    return [by_id[row_id] for row_id in topological_order({row_id: row.depends_on for row_id, row in by_id.items()})]


def _check_external_parents(ctx: BatchContext, caller: Caller, rows: Sequence[Row]) -> None:
    """Check the parents that are not rows of the batch."""
    ids = {row.id for row in rows}
    external = dict.fromkeys(parent for row in rows for parent in row.depends_on if parent not in ids)
    if len(external) > MAX_EXTERNAL_PARENTS:
        message = f"depend on {len(external):,} jobs outside this batch; at most {MAX_EXTERNAL_PARENTS:,} are allowed"
        raise InvalidRequest(details=(Detail("items", message),))
    check_parents(ctx.jobs, caller, {parent: parent for parent in external})


def _parent_rows(rows: Sequence[Row]) -> dict[str, int]:
    """Return the numbers, by row id, of the rows that other rows depend on."""
    parents = {parent for row in rows for parent in row.depends_on}
    return {row.id: row.number for row in rows if row.id in parents and row.id is not None}


def find_replay(ctx: BatchContext, caller: Caller, idempotent_request: IdempotentRequest) -> Batch | None:
    """Return the batch of an earlier copy of this request; None if it is new. Call it first.

    Raises:
        IdempotencyConflict: the key belongs to another request.
    """
    result = idempotent_request.lookup(ctx.jobs, ctx.clock.now())
    return ctx.batches.get(caller.tenant, result.job_id) if result is not None else None


def submit_batch(
    ctx: BatchContext, caller: Caller, prepared: PreparedBatch, idempotent_request: IdempotentRequest | None, batch_id: str | None = None
) -> SubmittedBatch:
    """Store the batch, and enqueue the task that releases its rows.

    Args:
        batch_id: the id of the new batch; an existing batch with this id is returned unchanged.
            None: a new id.

    Raises:
        IdempotencyConflict: the key belongs to another request.
        Unavailable: the batch may not have been accepted; send the request again with the same key.
    """
    existing = ctx.batches.get(caller.tenant, batch_id) if batch_id is not None else None
    if existing is not None:
        return SubmittedBatch(existing, replayed=True)
    batch = _new_batch(ctx, caller, prepared, batch_id or ctx.new_batch_id())
    if idempotent_request is not None:
        batch = replace(batch, id=idempotent_request.claim(ctx.jobs, ctx.clock.now(), batch.id))
    ctx.parallel_map(partial(_put_part, ctx, batch, prepared.rows), range(0, len(prepared.rows), ROWS_PER_OBJECT))
    options = {"options": dict(prepared.base.options), "config": dict(prepared.base.config), "rows": _parent_rows(prepared.rows)}
    ctx.batch_rows.put_options(batch.tenant, batch.id, options)
    ctx.batches.create(batch)
    try:
        enqueue_advance(ctx.queues, batch)
    except Unavailable as exc:  # the batch is accepted; the sweeper sends the task
        ctx.log("batch_start_deferred", batch_id=batch.id, tenant=batch.tenant, error=exc)
    return SubmittedBatch(batch)


def _put_part(ctx: BatchContext, batch: Batch, rows: Sequence[Row], start: int) -> None:
    ctx.batch_rows.put_part(batch.tenant, batch.id, start // ROWS_PER_OBJECT, rows[start : start + ROWS_PER_OBJECT])


def _new_batch(ctx: BatchContext, caller: Caller, prepared: PreparedBatch, batch_id: str) -> Batch:
    options, now = prepared.options, ctx.clock.now()
    return Batch(
        id=batch_id,
        tenant=caller.tenant,
        user=caller.user,
        key_id=caller.key_id,
        role=caller.role.label,
        total=len(prepared.rows),
        created_at=now,
        updated_at=now,
        name=options.name,
        type=prepared.base.job_type,
        model=prepared.model,
        lane=prepared.base.priority,
        batch_size=options.group_size,
        delay=options.delay,
        parallel_limit=options.parallel_limit,
        failure_tolerance=options.failure_tolerance,
        ordered=prepared.ordered,
        notify_targets=tuple(recipient.name for recipient in parse_recipients(options.webhook_url, options.notify)),
    )


def _row_problems(kind: JobType, row: Row) -> list[Detail]:
    """Return what the type rejects in a row. The reader has already checked its size."""
    path = f"items.{row.number}.input"
    if len(row.depends_on) > MAX_PARENTS:
        return [Detail(f"items.{row.number}.depends_on", f"names more than {MAX_PARENTS} others")]
    if row.input is None:
        return [] if kind.input_schema is None else [Detail(path, f"is required: {kind.name} takes an input")]
    if kind.input_schema is None:
        return [Detail(path, f"{kind.name} takes a prompt, not an input")]
    return [] if row.depends_on else list(problems(kind.input_schema, row.input, path))
