"""`/batches`: submit, list, read, export, cancel and retry batches."""

from __future__ import annotations

from collections.abc import Iterator

from chalice import Blueprint

from chalicelib.bootstrap import Container
from chalicelib.domain.auth.identity import Caller, Role
from chalicelib.domain.batches.batch import Batch
from chalicelib.domain.batches.options import PROPERTIES
from chalicelib.domain.batches.parsing.reader import CONTENT_TYPES
from chalicelib.domain.errors import Detail, Forbidden, InvalidRequest, TooLarge
from chalicelib.domain.files.export_formats import FORMATS, PLAIN, render_rows
from chalicelib.domain.ids import checked_delivery_id
from chalicelib.entrypoints.http.requests import batches as batch_requests
from chalicelib.entrypoints.http.requests import jobs as job_requests
from chalicelib.entrypoints.http.requests import pauses as pause_requests
from chalicelib.entrypoints.http.requests import schemas
from chalicelib.entrypoints.http.requests.schemas import PAGE
from chalicelib.entrypoints.http.responses import batches as batch_responses
from chalicelib.entrypoints.http.responses.deliveries import delivery_shape
from chalicelib.entrypoints.http.responses.pauses import pause as pause_shape
from chalicelib.entrypoints.http.responses.result_response import fits
from chalicelib.entrypoints.http.server import REPLAYED, ApiRequest, ApiResponse, endpoint
from chalicelib.services.batches import manage_batch
from chalicelib.services.batches.context import BatchContext
from chalicelib.services.batches.estimate_batch import estimate_batch
from chalicelib.services.batches.manage_batch import BatchView
from chalicelib.services.batches.read_rows import PAGE_SIZE, iter_pages, read_rows, results_of
from chalicelib.services.batches.submit_batch import PreparedBatch, base_submission, find_replay, prepare_batch, submit_batch
from chalicelib.services.idempotency import IdempotentRequest
from chalicelib.services.notifications.settings import check_addresses, check_recipients, redeliver
from chalicelib.services.operations.pauses import batch_scope, end_pauses, pause_batch
from chalicelib.services.streaming.long_polling import long_poll

blueprint = Blueprint(__name__)

MAX_WAIT_SECONDS = 20
MAX_INLINE_ROWS = 500  # a larger export becomes an object, and the response a link to it
MAX_EXPORT_CHARACTERS = 24_000_000  # of all outputs, limited by the function's memory; the job type `export` writes in parts instead


@endpoint(blueprint, "POST", "/batches", Role.USER, query=(*PROPERTIES, "upload_id"), accepts=tuple(CONTENT_TYPES))
def submit(request: ApiRequest) -> ApiResponse:
    """Submit a batch as JSON, CSV or plain text; with `dry_run`, only estimate it."""
    ctx, caller, idempotent = request.container, request.caller, batch_requests.idempotent_request(request)
    replay = find_replay(ctx, caller, idempotent) if idempotent is not None else None
    if replay is not None:
        return _accepted(ctx, replay, replayed=True)
    reader, now = batch_requests.batch_reader(request), ctx.clock.now()
    check_recipients(request.container, caller.tenant, reader.options.webhook_url, reader.options.notify)
    prepared = prepare_batch(ctx, caller, reader.options, base_submission(reader.options), reader)
    _check_inputs(ctx, caller, prepared)
    if reader.options.dry_run:
        return ApiResponse(body=batch_responses.estimate(estimate_batch(ctx, caller, prepared), now, reader.prompt_column))
    return _accepted(ctx, submit_batch(ctx, caller, prepared, idempotent).batch, replayed=False)


@endpoint(blueprint, "GET", "/batches", Role.VIEWER, query=("tenant", *PAGE))
def listing(request: ApiRequest) -> ApiResponse:
    """List batches, newest first."""
    ctx, limit = request.container, job_requests.number(request, "limit", 20, 1, 100)
    cursor, tenant = request.query.get("cursor") or None, request.query.get("tenant")
    views, next_cursor = manage_batch.list_batches(ctx, request.caller, tenant, cursor, limit)
    return ApiResponse(body={"data": [batch_responses.in_list(view, ctx.clock.now()) for view in views], "next_cursor": next_cursor})


@endpoint(blueprint, "GET", "/batches/{batch_id}", Role.VIEWER, query=("tenant", "detailed", *PAGE, "wait"))
def read(request: ApiRequest, batch_id: str) -> ApiResponse:
    """Get a batch and its progress; with `?detailed=true` also its rows."""
    ctx, detailed = request.container, _is_detailed(request)
    view = _view(request, ctx, batch_id)
    if view.etag in (job_requests.etags(request) or ()):
        return ApiResponse(status=304, headers={"ETag": view.etag})
    body = batch_responses.batch(view, ctx.clock.now())
    if detailed:
        limit = job_requests.number(request, "limit", PAGE_SIZE, 1, PAGE_SIZE)
        start = job_requests.number(request, "cursor", 0, 0, view.batch.total) if request.query.get("cursor") else 0
        rows = read_rows(ctx, view.batch, start, limit)
        content = request.caller.role >= Role.USER
        following = start + len(rows)
        body["data"] = [batch_responses.row(row, content=content) for row in rows]
        body["next_cursor"] = str(following) if following < view.batch.total else None
    return ApiResponse(body=body, headers={"ETag": view.etag})


@endpoint(blueprint, "GET", "/batches/{batch_id}/export", Role.USER, query=("tenant", "format", "delimiter", "bom", "wait"))
def export(request: ApiRequest, batch_id: str) -> ApiResponse:
    """Export all rows with their output as JSON or CSV; 307 to an object if that is large.

    413 if the output is too large for this route.
    """
    ctx, kind = request.container, batch_requests.choice(request, "format", batch_requests.FORMATS, "json")
    style = batch_requests.csv_style(request)
    view = _view(request, ctx, batch_id)
    envelope = {"success": True, **batch_responses.in_list(view, ctx.clock.now())}
    text = "".join(render_rows(_lines(ctx, view.batch), "csv" if kind == "csv" else "json", envelope=envelope, style=style))
    if view.batch.total <= MAX_INLINE_ROWS and fits(text):
        return ApiResponse(body=text, headers={"Content-Type": FORMATS[kind]})
    written = "" if style == PLAIN else f"-{ord(style.delimiter)}-{'bom' if style.bom else 'plain'}"
    name = f"export-{view.batch.version}-{view.counts.version}{written}.{kind}"
    location = ctx.batch_rows.put_export(view.batch.tenant, view.batch.id, name, text, FORMATS[kind])
    return ApiResponse(status=307, body={"batch_id": view.batch.id, "location": location}, headers={"Location": location})


@endpoint(blueprint, "GET", "/batches/{batch_id}/deliveries", Role.USER, query=("tenant",))
def deliveries(request: ApiRequest, batch_id: str) -> ApiResponse:
    """List the notification deliveries of a batch with their attempts."""
    batch = _own_batch(request, request.container, batch_id)
    found = request.container.deliveries.for_owner(batch.id)
    return ApiResponse(body={"batch_id": batch.id, "data": [delivery_shape(delivery) for delivery in found], "next_cursor": None})


@endpoint(blueprint, "POST", "/batches/{batch_id}/deliveries/{delivery_id}/retry", Role.OPERATOR, query=("tenant",), accepts=())
def retry_delivery(request: ApiRequest, batch_id: str, delivery_id: str) -> ApiResponse:
    """Restart a delivery for another 24 hours, whatever its status."""
    batch = _own_batch(request, request.container, batch_id)
    return ApiResponse(status=202, body=delivery_shape(redeliver(request.container, batch.id, checked_delivery_id(delivery_id))))


@endpoint(blueprint, "POST", "/batches/{batch_id}/retry-failed", Role.USER, query=("tenant",))
def retry_failed(request: ApiRequest, batch_id: str) -> ApiResponse:
    """Retry failed, expired and incomplete rows; with `cancelled: true` also cancelled ones."""
    ctx, cancelled, key = request.container, batch_requests.retry(request), job_requests.idempotency_key(request)
    batch = _own_batch(request, ctx, batch_id)
    idempotent = (
        IdempotentRequest.of(request.caller, "POST /batches/{batch_id}/retry-failed", key, [batch.id, cancelled])
        if key is not None
        else None
    )
    changed, replayed = manage_batch.retry_failed(ctx, batch, idempotent, cancelled=cancelled)
    return _accepted(ctx, changed, replayed=replayed)


@endpoint(blueprint, "DELETE", "/batches/{batch_id}", Role.USER, query=("tenant",))
def cancel(request: ApiRequest, batch_id: str) -> ApiResponse:
    """Cancel a batch: 202 while its rows stop, 200 if it has ended."""
    ctx = request.container
    changed = manage_batch.cancel_batch(ctx, _own_batch(request, ctx, batch_id))
    return _response(ctx, changed, 202 if changed.finished_at is None else 200)


@endpoint(blueprint, "POST", "/batches/{batch_id}/pause", Role.USER, query=("tenant",))
def pause(request: ApiRequest, batch_id: str) -> ApiResponse:
    """Pause a batch: it releases no further rows, and rows that have not started do not start."""
    ctx, caller = request.container, request.caller
    fields = pause_requests.pause_fields(schemas.BATCH_PAUSE, request.json(), ctx.clock.now())
    batch = _own_batch(request, ctx, batch_id)
    paused = pause_batch(ctx, caller, batch, fields.reason, fields.until, replaces=fields.replaces)
    return ApiResponse(status=201 if paused.created else 200, body=pause_shape(paused.pause, caller))


@endpoint(blueprint, "POST", "/batches/{batch_id}/resume", Role.USER, query=("tenant",), accepts=())
def resume(request: ApiRequest, batch_id: str) -> ApiResponse:
    """Resume a batch: its rows start again, in order."""
    ctx, caller = request.container, request.caller
    ended = end_pauses(ctx, caller, batch_scope(_own_batch(request, ctx, batch_id)))
    return ApiResponse(body={"batch_id": batch_id, "resumed": bool(ended), "ended": [pause_shape(one, caller) for one in ended]})


@endpoint(blueprint, "POST", "/batches/{batch_id}/recount", Role.OPERATOR, query=("tenant",), accepts=())
def recount(request: ApiRequest, batch_id: str) -> ApiResponse:
    """Rebuild the counts of a batch from its rows."""
    ctx = request.container
    return _response(ctx, manage_batch.rebuild_counts(ctx, _own_batch(request, ctx, batch_id)), 200)


def _is_detailed(request: ApiRequest) -> bool:
    """Whether a page of rows is asked for.

    Raises:
        InvalidRequest: the query has the limits of a page, but does not ask for one.
    """
    detailed = job_requests.flag(request, "detailed")
    if not detailed and (unused := [name for name in PAGE if name in request.query]):
        raise InvalidRequest(details=tuple(Detail(name, "is only for detailed=true") for name in unused))
    return detailed


def _check_inputs(ctx: Container, caller: Caller, prepared: PreparedBatch) -> None:
    """Check the recipients in the rows' inputs, for job types that send notifications."""
    recipients_of = ctx.job_type(prepared.options.type).recipients_of
    if recipients_of is not None:
        recipients = [(f"items.{row.number}.{path}", text) for row in prepared.rows for path, text in recipients_of(row.input)]
        check_addresses(ctx, caller.tenant, recipients)


def _accepted(ctx: BatchContext, batch: Batch, *, replayed: bool) -> ApiResponse:
    return ApiResponse(status=202, body=_response(ctx, batch, 202).body, headers=REPLAYED if replayed else {})


def _response(ctx: BatchContext, batch: Batch, status: int) -> ApiResponse:
    return ApiResponse(status=status, body=batch_responses.batch(manage_batch.view_batch(ctx, batch), ctx.clock.now()))


def _own_batch(request: ApiRequest, ctx: BatchContext, batch_id: str) -> Batch:
    """The batch, if the caller may change it.

    Raises:
        Forbidden: the caller uses a ticket.
        BatchNotFound: the caller has no such batch.
    """
    if request.caller.read_only:
        raise Forbidden("A ticket is read-only.")
    return manage_batch.get_batch(ctx.batches, request.caller, batch_id, request.query.get("tenant"))


def _view(request: ApiRequest, ctx: BatchContext, batch_id: str) -> BatchView:
    """The batch. With `?wait=`, wait for a change, unless it differs from If-None-Match already."""
    tenant = request.query.get("tenant")

    def load() -> BatchView:
        return manage_batch.view_batch(ctx, manage_batch.get_batch(ctx.batches, request.caller, batch_id, tenant))

    first, wait, known = load(), job_requests.number(request, "wait", 0, 0, MAX_WAIT_SECONDS), job_requests.etags(request)
    if not wait or first.batch.finished_at is not None or (known is not None and first.etag not in known):
        return first
    return long_poll(request.container, request.caller.tenant, wait, lambda: view if (view := load()).etag != first.etag else None) or first


def _lines(ctx: BatchContext, batch: Batch) -> Iterator[batch_responses.Shape]:
    """All rows of an export, loaded page by page.

    Raises:
        TooLarge: the outputs do not fit into memory.
    """
    length = 0
    for rows in iter_pages(ctx, batch):
        results = results_of(ctx.results, rows)
        for row in rows:
            line = batch_responses.exported(row, results.get(row.job_id))
            length += len(line["output"] or "")
            if length > MAX_EXPORT_CHARACTERS:
                size = MAX_EXPORT_CHARACTERS // 1_000_000
                raise TooLarge(f"The outputs are larger than {size} MB. Submit a job of the type export with this `batch_id` instead.")
            yield line
