"""`/batches`: many rows under one name."""

from __future__ import annotations

from collections.abc import Iterator

from chalice import Blueprint

from chalicelib.bootstrap import Container
from chalicelib.domain.auth.identity import Caller, Role
from chalicelib.domain.batches.batch import Batch
from chalicelib.domain.batches.parsing.reader import CONTENT_TYPES
from chalicelib.domain.errors import Forbidden, TooLarge
from chalicelib.domain.files.export_formats import FORMATS, render_rows
from chalicelib.domain.ids import checked_delivery_id
from chalicelib.entrypoints.http.requests import batches as batch_requests
from chalicelib.entrypoints.http.requests import jobs as job_requests
from chalicelib.entrypoints.http.responses import batches as batch_responses
from chalicelib.entrypoints.http.responses.deliveries import delivery
from chalicelib.entrypoints.http.responses.result import fits
from chalicelib.entrypoints.http.server import REPLAYED, ApiRequest, ApiResponse, endpoint
from chalicelib.services.batches import manage_batch
from chalicelib.services.batches.context import BatchContext
from chalicelib.services.batches.estimate_batch import estimate_batch
from chalicelib.services.batches.manage_batch import BatchView
from chalicelib.services.batches.read_rows import PAGE_SIZE, iter_pages, read_rows, results_of
from chalicelib.services.batches.submit_batch import PreparedBatch, base_submission, find_replay, prepare_batch, submit_batch
from chalicelib.services.idempotency import IdempotentRequest
from chalicelib.services.notifications.settings import check_addresses, check_recipients, redeliver
from chalicelib.services.streaming.long_polling import long_poll

blueprint = Blueprint(__name__)

LONGEST_WAIT = 20  # seconds
ANSWERED_ROWS = 500  # of an export; more are kept as an object, and answered by a link
MOST_CHARACTERS = 24_000_000  # of all answers, that this function has memory for; the job type `export` writes its object part by part


@endpoint(blueprint, "POST", "/batches", Role.USER, accepts=tuple(CONTENT_TYPES))
def submit(request: ApiRequest) -> ApiResponse:
    """Submit a batch: JSON, CSV or plain text; `dry_run` only says what it would cost."""
    ctx, caller, once = request.container, request.caller, batch_requests.idempotent_request(request)
    found = find_replay(ctx, caller, once) if once is not None else None
    if found is not None:
        return _accepted(ctx, found, replayed=True)
    reading, now = batch_requests.batch_reader(request), ctx.clock.now()
    check_recipients(request.container, caller.tenant, reading.options.webhook_url, reading.options.notify)
    prepared = prepare_batch(ctx, caller, reading.options, base_submission(reading.options), reading)
    _check_inputs(ctx, caller, prepared)
    if reading.options.dry_run:
        return ApiResponse(body=batch_responses.estimate(estimate_batch(ctx, caller, prepared), now))
    return _accepted(ctx, submit_batch(ctx, caller, prepared, once).batch, replayed=False)


@endpoint(blueprint, "GET", "/batches", Role.VIEWER)
def listing(request: ApiRequest) -> ApiResponse:
    """List batches, newest first."""
    ctx, limit = request.container, job_requests.number(request, "limit", 20, 1, 100)
    cursor, tenant = request.query.get("cursor") or None, request.query.get("tenant")
    found, following = manage_batch.list_batches(ctx, request.caller, tenant, cursor, limit)
    return ApiResponse(body={"data": [batch_responses.in_list(seen, ctx.clock.now()) for seen in found], "next_cursor": following})


@endpoint(blueprint, "GET", "/batches/{batch_id}", Role.VIEWER)
def read(request: ApiRequest, batch_id: str) -> ApiResponse:
    """A batch and how far it has come; `?detailed=true` for its rows."""
    ctx = request.container
    seen = _seen(request, ctx, batch_id)
    if seen.etag in (job_requests.etags(request) or ()):
        return ApiResponse(status=304, headers={"ETag": seen.etag})
    body = batch_responses.batch(seen, ctx.clock.now())
    if request.query.get("detailed") == "true":
        limit = job_requests.number(request, "limit", PAGE_SIZE, 1, PAGE_SIZE)
        start = job_requests.number(request, "cursor", 0, 0, seen.batch.total)
        seats = read_rows(ctx, seen.batch, start, limit)
        content = request.caller.role >= Role.USER
        following = start + len(seats)
        body["data"] = [batch_responses.row(seat, content=content) for seat in seats]
        body["next_cursor"] = str(following) if following < seen.batch.total else None
    return ApiResponse(body=body, headers={"ETag": seen.etag})


@endpoint(blueprint, "GET", "/batches/{batch_id}/export", Role.USER)
def export(request: ApiRequest, batch_id: str) -> ApiResponse:
    """All rows with their answers so far, as JSON or CSV; 307 to an object where that is large, 413 where it is too much for that."""
    ctx, kind = request.container, batch_requests.word(request, "format", batch_requests.FORMATS, "json")
    seen = _seen(request, ctx, batch_id)
    envelope = {"success": True, **batch_responses.in_list(seen, ctx.clock.now())}
    text = "".join(render_rows(_lines(ctx, seen.batch), "csv" if kind == "csv" else "json", envelope=envelope))
    if seen.batch.total <= ANSWERED_ROWS and fits(text):
        return ApiResponse(body=text, headers={"Content-Type": FORMATS[kind]})
    name = f"export-{seen.batch.version}-{seen.counts.version}.{kind}"
    location = ctx.batch_rows.put_export(seen.batch.tenant, seen.batch.id, name, text, FORMATS[kind])
    return ApiResponse(status=307, body={"batch_id": seen.batch.id, "location": location}, headers={"Location": location})


@endpoint(blueprint, "GET", "/batches/{batch_id}/deliveries", Role.USER)
def deliveries(request: ApiRequest, batch_id: str) -> ApiResponse:
    """Who was sent word of the batch's end: each attempt, and what came of it."""
    batch = _mine(request, request.container, batch_id)
    found = request.container.deliveries.for_owner(batch.id)
    return ApiResponse(body={"batch_id": batch.id, "data": [delivery(one) for one in found], "next_cursor": None})


@endpoint(blueprint, "POST", "/batches/{batch_id}/deliveries/{delivery_id}/retry", Role.OPERATOR)
def retry_delivery(request: ApiRequest, batch_id: str, delivery_id: str) -> ApiResponse:
    """Deliver it again from the start, for another 24 hours, however it ended."""
    batch = _mine(request, request.container, batch_id)
    return ApiResponse(status=202, body=delivery(redeliver(request.container, batch.id, checked_delivery_id(delivery_id))))


@endpoint(blueprint, "POST", "/batches/{batch_id}/retry-failed", Role.USER)
def retry_failed(request: ApiRequest, batch_id: str) -> ApiResponse:
    """Start again the rows that have failed, expired or ended early; with `cancelled: true` the cancelled ones as well."""
    ctx, cancelled, key = request.container, batch_requests.retry(request), job_requests.idempotency_key(request)
    batch = _mine(request, ctx, batch_id)
    once = (
        IdempotentRequest.of(request.caller, "POST /batches/{batch_id}/retry-failed", key, [batch.id, cancelled])
        if key is not None
        else None
    )
    changed, replayed = manage_batch.retry_failed(ctx, batch, once, cancelled=cancelled)
    return _accepted(ctx, changed, replayed=replayed)


@endpoint(blueprint, "DELETE", "/batches/{batch_id}", Role.USER)
def cancel(request: ApiRequest, batch_id: str) -> ApiResponse:
    """Cancel a batch: 202 while its rows stop, 200 if it is over."""
    ctx = request.container
    changed = manage_batch.cancel_batch(ctx, _mine(request, ctx, batch_id))
    return _answer(ctx, changed, 202 if changed.finished_at is None else 200)


@endpoint(blueprint, "POST", "/batches/{batch_id}/recount", Role.OPERATOR)
def recount(request: ApiRequest, batch_id: str) -> ApiResponse:
    """Count a batch's rows anew, one by one."""
    ctx = request.container
    return _answer(ctx, manage_batch.rebuild_counts(ctx, _mine(request, ctx, batch_id)), 200)


def _check_inputs(ctx: Container, caller: Caller, prepared: PreparedBatch) -> None:
    """Of a type whose inputs name people, whether they may all be written to."""
    named = ctx.job_type(prepared.options.type).recipients_of
    if named is not None:
        found = [(f"items.{row.number}.{place}", text) for row in prepared.rows for place, text in named(row.input)]
        check_addresses(ctx, caller.tenant, found)


def _accepted(ctx: BatchContext, batch: Batch, *, replayed: bool) -> ApiResponse:
    answer = _answer(ctx, batch, 202)
    return ApiResponse(status=202, body=answer.body, headers=REPLAYED if replayed else {})


def _answer(ctx: BatchContext, batch: Batch, status: int) -> ApiResponse:
    return ApiResponse(status=status, body=batch_responses.batch(manage_batch.view_batch(ctx, batch), ctx.clock.now()))


def _mine(request: ApiRequest, ctx: BatchContext, batch_id: str) -> Batch:
    """A batch that the caller may act on; a ticket may not."""
    if request.caller.read_only:
        raise Forbidden("A ticket only reads.")
    return manage_batch.get_batch(ctx.batches, request.caller, batch_id, request.query.get("tenant"))


def _seen(request: ApiRequest, ctx: BatchContext, batch_id: str) -> BatchView:
    """The batch as it is; with `?wait=` once it is no longer what If-None-Match names, or what it is now."""
    tenant = request.query.get("tenant")

    def look() -> BatchView:
        return manage_batch.view_batch(ctx, manage_batch.get_batch(ctx.batches, request.caller, batch_id, tenant))

    first, wait, known = look(), job_requests.number(request, "wait", 0, 0, LONGEST_WAIT), job_requests.etags(request)
    if not wait or first.batch.finished_at is not None or (known is not None and first.etag not in known):
        return first
    return long_poll(request.container, wait, lambda: seen if (seen := look()).etag != first.etag else None) or first


def _lines(ctx: BatchContext, batch: Batch) -> Iterator[batch_responses.Shape]:
    """All rows as an export has them, a page at a time.

    Raises:
        TooLarge: their answers are too much to be held.
    """
    length = 0
    for seats in iter_pages(ctx, batch):
        kept = results_of(ctx.results, seats)
        for seat in seats:
            line = batch_responses.exported(seat, kept.get(seat.job_id))
            length += len(line["output"] or "")
            if length > MOST_CHARACTERS:
                raise TooLarge(
                    f"The answers come to more than {MOST_CHARACTERS // 1_000_000} MB. A job of the type export takes `batch_id`."
                )
            yield line
