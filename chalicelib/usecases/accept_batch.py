"""Accept a batch: every row is looked at first, then all of them are kept, then the record that releases them, then the first message.

Whoever dies in between leaves objects that nothing names, and the bucket removes. The same request under the same Idempotency-Key goes on
where it stood, because it has the same id.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from chalicelib.domain.batch import GROUP, PART, Batch
from chalicelib.domain.config_schema import config_problems
from chalicelib.domain.errors import Detail, InvalidRequest, Unavailable
from chalicelib.domain.graph import in_order
from chalicelib.domain.identity import Caller
from chalicelib.domain.job_type import JobType
from chalicelib.domain.parents import MOST_PARENTS
from chalicelib.domain.row import Row
from chalicelib.domain.schema import MAX_DETAILS, problems
from chalicelib.domain.submission import Submission
from chalicelib.domain.terms import Terms
from chalicelib.usecases.clerk import Clerk, send_on
from chalicelib.usecases.correspond import recipients_of
from chalicelib.usecases.known_parents import check_parents
from chalicelib.usecases.once import Once
from chalicelib.usecases.plan_job import plan_job
from chalicelib.usecases.release_rows import submission_of

MOST_OTHERS = 1_000  # jobs beside its rows that they depend on: each is read before it is accepted


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch that may be accepted: its rows in the order in which they are to be released. `ordered`: which is that of the input."""

    options: Terms
    base: Submission
    model: str
    rows: Sequence[Row]
    ordered: bool


@dataclass(frozen=True, slots=True)
class Begun:
    """A batch as it was accepted. `replayed`: the request had been sent before."""

    batch: Batch
    replayed: bool = False


def base_of_terms(terms: Terms) -> Submission:
    """What all rows have in common, as if one of them was submitted as a job.

    Raises:
        InvalidRequest: with every field of `config` that cannot be used.
    """
    config = dict(terms.config)
    if wrong := config_problems(config):
        raise InvalidRequest(details=tuple(wrong))
    return Submission(prompt="-", job_type=terms.type, priority=terms.priority, options=dict(terms.options), config=config)


def prepare(clerk: Clerk, caller: Caller, terms: Terms, base: Submission, rows: Iterable[Row]) -> Prepared:
    """Look at all rows, and at what is said once for all of them.

    Raises:
        InvalidRequest: with every row that cannot be used, up to a hundred.
        JobTypeNotFound: there is no such type.
    """
    kind, read = clerk.job_type(base.job_type), list(rows)
    wrong = [problem for row in read for problem in _problems(kind, row)][:MAX_DETAILS]
    if wrong:
        raise InvalidRequest(details=tuple(wrong))
    _check_others(clerk, caller, read)
    plan = plan_job(clerk.job_type, clerk.prices, caller, submission_of(base, read[0], {}), 0)  # options and config are the same in all
    released = release_order(read)
    return Prepared(terms, base, plan.body.config.model, released, ordered=released == read)


def release_order(rows: list[Row]) -> list[Row]:
    """Rows after those that they depend on, otherwise as they came."""
    if not any(row.depends_on for row in rows):
        return rows
    named = {row.id if row.id is not None else f"\0{row.number}": row for row in rows}
    return [named[name] for name in in_order({name: row.depends_on for name, row in named.items()})]


def _check_others(clerk: Clerk, caller: Caller, rows: Sequence[Row]) -> None:
    """Of the parents that are not rows, whether they are there for the caller."""
    ids = {row.id for row in rows}
    others = dict.fromkeys(parent for row in rows for parent in row.depends_on if parent not in ids)
    if len(others) > MOST_OTHERS:
        wrong = f"depend on {len(others):,} jobs that are no rows of this batch; {MOST_OTHERS:,} are the most"
        raise InvalidRequest(details=(Detail("items", wrong),))
    check_parents(clerk.jobs, caller, {parent: parent for parent in others})


def _named(rows: Sequence[Row]) -> dict[str, int]:
    """The rows that others depend on, by their own names."""
    wanted = {parent for row in rows for parent in row.depends_on}
    return {row.id: row.number for row in rows if row.id in wanted and row.id is not None}


def find_replay(clerk: Clerk, caller: Caller, once: Once) -> Batch | None:
    """The batch of the same request, if it was sent before with this key: asked before anything else.

    Raises:
        IdempotencyConflict: the key stands for another request.
    """
    remembered = once.lookup(clerk.jobs, clerk.clock.now())
    return clerk.batches.get(caller.tenant, remembered.job_id) if remembered is not None else None


def accept(clerk: Clerk, caller: Caller, prepared: Prepared, once: Once | None, batch_id: str | None = None) -> Begun:
    """Keep it, and have its rows released. `batch_id`: the one that it is to have; if there is one of it, that stays as it is.

    Raises:
        IdempotencyConflict: the key stands for another request.
        Unavailable: it was not accepted, or nobody can tell: send it again with the same key.
    """
    there = clerk.batches.get(caller.tenant, batch_id) if batch_id is not None else None
    if there is not None:
        return Begun(there, replayed=True)
    made = _new(clerk, caller, prepared, batch_id or clerk.new_batch_id())
    if once is not None:
        made = replace(made, id=once.claim(clerk.jobs, clerk.clock.now(), made.id))
    clerk.parallel_map(partial(_put_part, clerk, made, prepared.rows), range(0, len(prepared.rows), PART))
    terms = {"options": dict(prepared.base.options), "config": dict(prepared.base.config), "rows": _named(prepared.rows)}
    clerk.batch_rows.put_options(made.tenant, made.id, terms)
    clerk.batches.create(made)
    try:
        send_on(clerk.queues, made)
    except Unavailable as exc:  # it is accepted all the same: the sweep sends it
        clerk.log("a batch will begin later", batch_id=made.id, tenant=made.tenant, error=exc)
    return Begun(made)


def _put_part(clerk: Clerk, batch: Batch, rows: Sequence[Row], start: int) -> None:
    clerk.batch_rows.put_part(batch.tenant, batch.id, start // PART, rows[start : start + PART])


def _new(clerk: Clerk, caller: Caller, prepared: Prepared, batch_id: str) -> Batch:
    terms, now = prepared.options, clerk.clock.now()
    size = terms.batch_size if terms.batch_size is not None or not terms.delay else GROUP
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
        notify_targets=tuple(recipient.name for recipient in recipients_of(terms.webhook_url, terms.notify)),
    )


def _problems(kind: JobType, row: Row) -> list[Detail]:
    """What a type has against a row; that it is not empty, and not too large, whoever read it has seen."""
    place = f"items.{row.number}.input"
    if len(row.depends_on) > MOST_PARENTS:
        return [Detail(f"items.{row.number}.depends_on", f"names more than {MOST_PARENTS} others")]
    if row.input is None:
        return [] if kind.input_schema is None else [Detail(place, f"is required: {kind.name} takes an input")]
    if kind.input_schema is None:
        return [Detail(place, f"{kind.name} takes a prompt, not an input")]
    return [] if row.depends_on else list(problems(kind.input_schema, row.input, place))
