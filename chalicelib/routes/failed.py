"""`/failed-jobs`: what failed and why, started again or deleted; and dead letters."""

from __future__ import annotations

from chalice import Blueprint

from chalicelib import wiring
from chalicelib.domain.bulk import Action
from chalicelib.domain.errors import JobNotDeletable, JobNotFound, Unavailable
from chalicelib.domain.identity import Role
from chalicelib.domain.job import Status
from chalicelib.domain.lanes import LANES
from chalicelib.domain.units import rfc3339
from chalicelib.observability import record
from chalicelib.routes import parse, parse_many, schemas, shapes
from chalicelib.routes.bulk import carry_out
from chalicelib.routes.http import Answer, Request, endpoint
from chalicelib.usecases import bulk
from chalicelib.usecases.bulk import Wish
from chalicelib.usecases.list_jobs import list_jobs
from chalicelib.usecases.redrive import redrive as redrive_lanes

blueprint = Blueprint(__name__)


@endpoint(blueprint, "GET", "/failed-jobs", Role.OPERATOR)
def listing(request: Request) -> Answer:
    """List failed jobs with their errors, the last to fail first; and how many dead letters each lane has."""
    have, filters = wiring.adapters(), parse.filters(request, schemas.FAILED_FILTERS, status=Status.FAILED.value)
    limit, cursor = parse.number(request, "limit", 20, 1, 100), request.query.get("cursor")
    page = list_jobs(have.jobs, request.caller, filters, limit, cursor)
    rows = [shapes.record(job, None, have.endpoints.get("ws_url"), content=True) for job in page.jobs]
    letters = None if cursor else _dead_letters()
    return Answer(
        body={"data": rows, "next_cursor": page.next_cursor, "scanned_until": rfc3339(page.scanned_until), "dead_letters": letters}
    )


@endpoint(blueprint, "POST", "/failed-jobs/retry", Role.OPERATOR)
def retry(request: Request) -> Answer:
    """Start failed jobs again: those that are named, or all."""
    data = request.json()
    wish = parse_many.failed(data, Action.RETRY)
    return carry_out(request, wish, "POST /failed-jobs/retry", data, dry_run=bool(data.get("dry_run")))


@endpoint(blueprint, "DELETE", "/failed-jobs", Role.OPERATOR)
def purge(request: Request) -> Answer:
    """Delete all failed jobs, or all that the filters find: only with `?all=true`."""
    said = {name: parse_many.word(value) for name, value in request.query.items()}
    return carry_out(request, parse_many.failed(said, Action.DELETE), "", said, dry_run=bool(said.get("dry_run")))


@endpoint(blueprint, "DELETE", "/failed-jobs/{job_id}", Role.OPERATOR)
def delete(request: Request, job_id: str) -> Answer:
    """Delete a failed job and all that is kept of it; 202 if that goes on by itself."""
    job = wiring.adapters().jobs.get(job_id)
    if job is None or not request.caller.owns(job):
        raise JobNotFound(job_id)
    if job.status is not Status.FAILED:
        raise JobNotDeletable(f"This job is {job.status.value}; only failed jobs are deleted here.")
    begun = bulk.begin(wiring.desk(), request.caller, Wish(action=Action.DELETE, ids=(job_id,)))
    if begun.bulk.finished_at is None:
        return Answer(status=202, body={"job_id": job_id, "deleted": False, "bulk_id": begun.bulk.id})
    if begun.bulk.skipped:
        raise JobNotDeletable("This job has been started again.")
    return Answer(body={"job_id": job_id, "deleted": True})


@endpoint(blueprint, "POST", "/failed-jobs/redrive", Role.ADMIN)
def redrive(request: Request) -> Answer:
    """Wake the jobs of dead letters again, by what their records say. The queues are of all tenants."""
    have, data = wiring.adapters(), parse.check(schemas.REDRIVE, request.json())
    lane = data.get("lane")
    done = redrive_lanes(have.clock, have.jobs, have.queues, [lane] if lane else LANES)
    totals = {name: sum(counts[name] for counts in done.lanes.values()) for name in ("redriven", "dropped", "kept")}
    record("dead letters were redriven", tenant=request.caller.tenant, key_id=request.caller.key_id, **totals)
    return Answer(body={**totals, "lanes": {name: dict(counts) for name, counts in done.lanes.items()}, "more": done.more})


def _dead_letters() -> dict[str, int] | None:
    """By lane; None where they cannot be counted just now, which must not hide the jobs."""
    queues = wiring.adapters().queues
    try:
        return {lane: queues.dead_letters(lane) for lane in LANES}
    except Unavailable as exc:
        record("dead letters were not counted", error=exc)
        return None
