"""Accept a batch: every row is looked at first, then all of them are kept, then the record that releases them, then the first message.

Whoever dies in between leaves objects that nothing names, and the bucket removes. The same request under the same Idempotency-Key goes on
where it stood, because it has the same id.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from chalicelib.domain.auth.identity import Caller
from chalicelib.domain.batches.batch import DEFAULT_GROUP_SIZE, ROWS_PER_OBJECT, Batch
from chalicelib.domain.batches.options import BatchOptions
from chalicelib.domain.batches.row import Row
from chalicelib.domain.errors import Detail, InvalidRequest, Unavailable
from chalicelib.domain.jobs.dependencies import MAX_PARENTS
from chalicelib.domain.jobs.job_type import JobType
from chalicelib.domain.jobs.submission import Submission
from chalicelib.domain.jobs.topological_order import topological_order
from chalicelib.domain.validation.config_schema import config_problems
from chalicelib.domain.validation.schema import MAX_DETAILS, problems
from chalicelib.services.batches.context import BatchContext, enqueue_advance
from chalicelib.services.batches.release_rows import submission_of
from chalicelib.services.dependencies.check_parents import check_parents
from chalicelib.services.idempotency import IdempotentRequest
from chalicelib.services.jobs.plan_job import plan_job
from chalicelib.services.notifications.settings import parse_recipients

MAX_EXTERNAL_PARENTS = 1_000  # jobs beside its rows that they depend on: each is read before it is accepted


@dataclass(frozen=True, slots=True)
class PreparedBatch:
    """A batch that may be accepted: its rows in the order in which they are to be released. `ordered`: which is that of the input."""

    options: BatchOptions
    base: Submission
    model: str
    rows: Sequence[Row]
    ordered: bool


@dataclass(frozen=True, slots=True)
class SubmittedBatch:
    """A batch as it was accepted. `replayed`: the request had been sent before."""

    batch: Batch
    replayed: bool = False


def base_submission(terms: BatchOptions) -> Submission:
    """What all rows have in common, as if one of them was submitted as a job.

    Raises:
        InvalidRequest: with every field of `config` that cannot be used.
    """
    config = dict(terms.config)
    if wrong := config_problems(config):
        raise InvalidRequest(details=tuple(wrong))
    return Submission(prompt="-", job_type=terms.type, priority=terms.priority, options=dict(terms.options), config=config)


def prepare_batch(ctx: BatchContext, caller: Caller, terms: BatchOptions, base: Submission, rows: Iterable[Row]) -> PreparedBatch:
    """Look at all rows, and at what is said once for all of them.

    Raises:
        InvalidRequest: with every row that cannot be used, up to a hundred.
        JobTypeNotFound: there is no such type.
    """
    kind, read = ctx.job_type(base.job_type), list(rows)
    wrong = [problem for row in read for problem in _row_problems(kind, row)][:MAX_DETAILS]
    if wrong:
        raise InvalidRequest(details=tuple(wrong))
    _check_external_parents(ctx, caller, read)
    plan = plan_job(ctx.job_type, ctx.prices, caller, submission_of(base, read[0], {}), 0)  # options and config are the same in all
    released = order_rows(read)
    return PreparedBatch(terms, base, plan.body.config.model, released, ordered=released == read)


def order_rows(rows: list[Row]) -> list[Row]:
    """Rows after those that they depend on, otherwise as they came."""
    if not any(row.depends_on for row in rows):
        return rows
    named = {row.id if row.id is not None else f"\0{row.number}": row for row in rows}
    return [named[name] for name in topological_order({name: row.depends_on for name, row in named.items()})]


def _check_external_parents(ctx: BatchContext, caller: Caller, rows: Sequence[Row]) -> None:
    """Of the parents that are not rows, whether they are there for the caller."""
    ids = {row.id for row in rows}
    others = dict.fromkeys(parent for row in rows for parent in row.depends_on if parent not in ids)
    if len(others) > MAX_EXTERNAL_PARENTS:
        wrong = f"depend on {len(others):,} jobs that are no rows of this batch; {MAX_EXTERNAL_PARENTS:,} are the most"
        raise InvalidRequest(details=(Detail("items", wrong),))
    check_parents(ctx.jobs, caller, {parent: parent for parent in others})


def _named(rows: Sequence[Row]) -> dict[str, int]:
    """The rows that others depend on, by their own names."""
    wanted = {parent for row in rows for parent in row.depends_on}
    return {row.id: row.number for row in rows if row.id in wanted and row.id is not None}


def find_replay(ctx: BatchContext, caller: Caller, once: IdempotentRequest) -> Batch | None:
    """The batch of the same request, if it was sent before with this key: asked before anything else.

    Raises:
        IdempotencyConflict: the key stands for another request.
    """
    remembered = once.lookup(ctx.jobs, ctx.clock.now())
    return ctx.batches.get(caller.tenant, remembered.job_id) if remembered is not None else None


def submit_batch(
    ctx: BatchContext, caller: Caller, prepared: PreparedBatch, once: IdempotentRequest | None, batch_id: str | None = None
) -> SubmittedBatch:
    """Keep it, and have its rows released. `batch_id`: the one that it is to have; if there is one of it, that stays as it is.

    Raises:
        IdempotencyConflict: the key stands for another request.
        Unavailable: it was not accepted, or nobody can tell: send it again with the same key.
    """
    there = ctx.batches.get(caller.tenant, batch_id) if batch_id is not None else None
    if there is not None:
        return SubmittedBatch(there, replayed=True)
    made = _new(ctx, caller, prepared, batch_id or ctx.new_batch_id())
    if once is not None:
        made = replace(made, id=once.claim(ctx.jobs, ctx.clock.now(), made.id))
    ctx.parallel_map(partial(_put_part, ctx, made, prepared.rows), range(0, len(prepared.rows), ROWS_PER_OBJECT))
    terms = {"options": dict(prepared.base.options), "config": dict(prepared.base.config), "rows": _named(prepared.rows)}
    ctx.batch_rows.put_options(made.tenant, made.id, terms)
    ctx.batches.create(made)
    try:
        enqueue_advance(ctx.queues, made)
    except Unavailable as exc:  # it is accepted all the same: the sweep sends it
        ctx.log("batch_start_deferred", batch_id=made.id, tenant=made.tenant, error=exc)
    return SubmittedBatch(made)


def _put_part(ctx: BatchContext, batch: Batch, rows: Sequence[Row], start: int) -> None:
    ctx.batch_rows.put_part(batch.tenant, batch.id, start // ROWS_PER_OBJECT, rows[start : start + ROWS_PER_OBJECT])


def _new(ctx: BatchContext, caller: Caller, prepared: PreparedBatch, batch_id: str) -> Batch:
    terms, now = prepared.options, ctx.clock.now()
    size = terms.batch_size if terms.batch_size is not None or not terms.delay else DEFAULT_GROUP_SIZE
    return Batch(
        id=batch_id,
        tenant=caller.tenant,
        user=caller.user,
        key_id=caller.key_id,
        role=caller.role.label,
        total=len(prepared.rows),
        created_at=now,
        updated_at=now,
        name=terms.name,
        type=prepared.base.job_type,
        model=prepared.model,
        lane=prepared.base.priority,
        batch_size=size,
        delay=terms.delay,
        parallel_limit=terms.parallel_limit,
        failure_tolerance=terms.failure_tolerance,
        ordered=prepared.ordered,
        notify_targets=tuple(recipient.name for recipient in parse_recipients(terms.webhook_url, terms.notify)),
    )


def _row_problems(kind: JobType, row: Row) -> list[Detail]:
    """What a type has against a row; that it is not empty, and not too large, whoever read it has seen."""
    place = f"items.{row.number}.input"
    if len(row.depends_on) > MAX_PARENTS:
        return [Detail(f"items.{row.number}.depends_on", f"names more than {MAX_PARENTS} others")]
    if row.input is None:
        return [] if kind.input_schema is None else [Detail(place, f"is required: {kind.name} takes an input")]
    if kind.input_schema is None:
        return [Detail(place, f"{kind.name} takes a prompt, not an input")]
    return [] if row.depends_on else list(problems(kind.input_schema, row.input, place))
