"""`/batches`: many rows under one name."""

from __future__ import annotations

from collections.abc import Iterator

from chalice import Blueprint

from chalicelib import wiring
from chalicelib.domain.batch import Batch
from chalicelib.domain.errors import Forbidden, TooLarge
from chalicelib.domain.exporting import FORMATS, rendered
from chalicelib.domain.identity import Caller, Role
from chalicelib.domain.ids import checked_delivery_id
from chalicelib.domain.reading import CONTENT_TYPES
from chalicelib.routes import parse, parse_batch
from chalicelib.routes import shapes_batches as shapes
from chalicelib.routes.http import REPLAYED, Answer, Request, endpoint
from chalicelib.routes.result import fits
from chalicelib.routes.shapes_deliveries import delivery
from chalicelib.usecases import steer_batch
from chalicelib.usecases.accept_batch import Prepared, accept, base_of_terms, find_replay, prepare
from chalicelib.usecases.clerk import Clerk
from chalicelib.usecases.correspond import check_named, check_recipients, deliver_again
from chalicelib.usecases.estimate_batch import look_ahead
from chalicelib.usecases.hold import hold
from chalicelib.usecases.once import Once
from chalicelib.usecases.read_rows import PAGE, pages, results_of, rows_from
from chalicelib.usecases.steer_batch import Seen

blueprint = Blueprint(__name__)

LONGEST_WAIT = 20  # seconds
ANSWERED_ROWS = 500  # of an export; more are kept as an object, and answered by a link
MOST_CHARACTERS = 24_000_000  # of all answers, that this function has memory for; the job type `export` writes its object part by part


@endpoint(blueprint, "POST", "/batches", Role.USER, accepts=tuple(CONTENT_TYPES))
def submit(request: Request) -> Answer:
    """Submit a batch: JSON, CSV or plain text; `dry_run` only says what it would cost."""
    clerk, caller, once = wiring.clerk(), request.caller, parse_batch.once(request)
    found = find_replay(clerk, caller, once) if once is not None else None
    if found is not None:
        return _accepted(clerk, found, replayed=True)
    reading, now = parse_batch.reading(request), clerk.clock.now()
    check_recipients(wiring.post_office(), caller.tenant, reading.terms.webhook_url, reading.terms.notify)
    prepared = prepare(clerk, caller, reading.terms, base_of_terms(reading.terms), reading)
    _check_inputs(caller, prepared)
    if reading.terms.dry_run:
        return Answer(body=shapes.outlook(look_ahead(clerk, caller, prepared), now))
    return _accepted(clerk, accept(clerk, caller, prepared, once).batch, replayed=False)


@endpoint(blueprint, "GET", "/batches", Role.VIEWER)
def listing(request: Request) -> Answer:
    """List batches, newest first."""
    clerk, limit = wiring.clerk(), parse.number(request, "limit", 20, 1, 100)
    cursor, tenant = request.query.get("cursor") or None, request.query.get("tenant")
    found, following = steer_batch.listed(clerk, request.caller, tenant, cursor, limit)
    return Answer(body={"data": [shapes.in_list(seen, clerk.clock.now()) for seen in found], "next_cursor": following})


@endpoint(blueprint, "GET", "/batches/{batch_id}", Role.VIEWER)
def read(request: Request, batch_id: str) -> Answer:
    """A batch and how far it has come; `?detailed=true` for its rows."""
    clerk = wiring.clerk()
    seen = _seen(request, clerk, batch_id)
    if seen.etag in (parse.etags(request) or ()):
        return Answer(status=304, headers={"ETag": seen.etag})
    body = shapes.batch(seen, clerk.clock.now())
    if request.query.get("detailed") == "true":
        limit = parse.number(request, "limit", PAGE, 1, PAGE)
        start = parse.number(request, "cursor", 0, 0, seen.batch.total)
        seats = rows_from(clerk, seen.batch, start, limit)
        content = request.caller.role >= Role.USER
        following = start + len(seats)
        body["data"] = [shapes.row(seat, content=content) for seat in seats]
        body["next_cursor"] = str(following) if following < seen.batch.total else None
    return Answer(body=body, headers={"ETag": seen.etag})


@endpoint(blueprint, "GET", "/batches/{batch_id}/export", Role.USER)
def export(request: Request, batch_id: str) -> Answer:
    """All rows with their answers so far, as JSON or CSV; 307 to an object where that is large, 413 where it is too much for that."""
    clerk, kind = wiring.clerk(), parse_batch.word(request, "format", parse_batch.FORMATS, "json")
    seen = _seen(request, clerk, batch_id)
    head = {"success": True, **shapes.in_list(seen, clerk.clock.now())}
    text = "".join(rendered(_lines(clerk, seen.batch), "csv" if kind == "csv" else "json", head=head))
    if seen.batch.total <= ANSWERED_ROWS and fits(text):
        return Answer(body=text, headers={"Content-Type": FORMATS[kind]})
    name = f"export-{seen.batch.version}-{seen.counts.version}.{kind}"
    location = clerk.batch_rows.put_export(seen.batch.tenant, seen.batch.id, name, text, FORMATS[kind])
    return Answer(status=307, body={"batch_id": seen.batch.id, "location": location}, headers={"Location": location})


@endpoint(blueprint, "GET", "/batches/{batch_id}/deliveries", Role.USER)
def deliveries(request: Request, batch_id: str) -> Answer:
    """Who was sent word of the batch's end: each attempt, and what came of it."""
    batch = _mine(request, wiring.clerk(), batch_id)
    found = wiring.adapters().deliveries.for_owner(batch.id)
    return Answer(body={"batch_id": batch.id, "data": [delivery(one) for one in found], "next_cursor": None})


@endpoint(blueprint, "POST", "/batches/{batch_id}/deliveries/{delivery_id}/retry", Role.OPERATOR)
def retry_delivery(request: Request, batch_id: str, delivery_id: str) -> Answer:
    """Deliver it again from the start, for another 24 hours, however it ended."""
    batch = _mine(request, wiring.clerk(), batch_id)
    return Answer(status=202, body=delivery(deliver_again(wiring.post_office(), batch.id, checked_delivery_id(delivery_id))))


@endpoint(blueprint, "POST", "/batches/{batch_id}/retry-failed", Role.USER)
def retry_failed(request: Request, batch_id: str) -> Answer:
    """Start again the rows that have failed, expired or ended early; with `cancelled: true` the cancelled ones as well."""
    clerk, cancelled, key = wiring.clerk(), parse_batch.retry(request), parse.idempotency_key(request)
    batch = _mine(request, clerk, batch_id)
    once = Once.of(request.caller, "POST /batches/{batch_id}/retry-failed", key, [batch.id, cancelled]) if key is not None else None
    changed, replayed = steer_batch.retry_failed(clerk, batch, once, cancelled=cancelled)
    return _accepted(clerk, changed, replayed=replayed)


@endpoint(blueprint, "DELETE", "/batches/{batch_id}", Role.USER)
def cancel(request: Request, batch_id: str) -> Answer:
    """Cancel a batch: 202 while its rows stop, 200 if it is over."""
    clerk = wiring.clerk()
    changed = steer_batch.cancel(clerk, _mine(request, clerk, batch_id))
    return _answer(clerk, changed, 202 if changed.finished_at is None else 200)


@endpoint(blueprint, "POST", "/batches/{batch_id}/recount", Role.OPERATOR)
def recount(request: Request, batch_id: str) -> Answer:
    """Count a batch's rows anew, one by one."""
    clerk = wiring.clerk()
    return _answer(clerk, steer_batch.count_anew(clerk, _mine(request, clerk, batch_id)), 200)


def _check_inputs(caller: Caller, prepared: Prepared) -> None:
    """Of a type whose inputs name people, whether they may all be written to."""
    named = wiring.job_type(prepared.options.type).recipients_of
    if named is not None:
        found = [(f"items.{row.number}.{place}", text) for row in prepared.rows for place, text in named(row.input)]
        check_named(wiring.post_office(), caller.tenant, found)


def _accepted(clerk: Clerk, batch: Batch, *, replayed: bool) -> Answer:
    answer = _answer(clerk, batch, 202)
    return Answer(status=202, body=answer.body, headers=REPLAYED if replayed else {})


def _answer(clerk: Clerk, batch: Batch, status: int) -> Answer:
    return Answer(status=status, body=shapes.batch(steer_batch.see(clerk, batch), clerk.clock.now()))


def _mine(request: Request, clerk: Clerk, batch_id: str) -> Batch:
    """A batch that the caller may act on; a ticket may not."""
    if request.caller.read_only:
        raise Forbidden("A ticket only reads.")
    return steer_batch.find(clerk.batches, request.caller, batch_id, request.query.get("tenant"))


def _seen(request: Request, clerk: Clerk, batch_id: str) -> Seen:
    """The batch as it is; with `?wait=` once it is no longer what If-None-Match names, or what it is now."""
    tenant = request.query.get("tenant")

    def look() -> Seen:
        return steer_batch.see(clerk, steer_batch.find(clerk.batches, request.caller, batch_id, tenant))

    first, wait, known = look(), parse.number(request, "wait", 0, 0, LONGEST_WAIT), parse.etags(request)
    if not wait or first.batch.finished_at is not None or (known is not None and first.etag not in known):
        return first
    return hold(wiring.holding(), wait, lambda: seen if (seen := look()).etag != first.etag else None) or first


def _lines(clerk: Clerk, batch: Batch) -> Iterator[shapes.Shape]:
    """All rows as an export has them, a page at a time.

    Raises:
        TooLarge: their answers are too much to be held.
    """
    length = 0
    for seats in pages(clerk, batch):
        kept = results_of(wiring.adapters().results, seats)
        for seat in seats:
            line = shapes.exported(seat, kept.get(seat.job_id))
            length += len(line["output"] or "")
            if length > MOST_CHARACTERS:
                raise TooLarge(
                    f"The answers come to more than {MOST_CHARACTERS // 1_000_000} MB. A job of the type export takes `batch_id`."
                )
            yield line
