"""Many jobs at a glance, and what can be done to one."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cli import output
from cli.errors import Exit, Misused
from cli.session import JobId, Json, session

NOT_MADE_YET = 202
STATUSES = ("waiting", "queued", "processing", "retrying", "held", "completed", "incomplete", "failed", "cancelled", "expired")


def list_jobs(
    ctx: typer.Context,
    status: Annotated[str | None, typer.Option("--status", "-s", help="Only jobs with this status.", show_default=False)] = None,
    job_type: Annotated[str | None, typer.Option("--type", "-t", help="Only jobs of this type.", show_default=False)] = None,
    priority: Annotated[str | None, typer.Option("--priority", "-p", help="Only jobs of this lane.", show_default=False)] = None,
    tag: Annotated[str | None, typer.Option(help="Only jobs with this tag.", show_default=False)] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100, help="How many.")] = 20,
    cursor: Annotated[str | None, typer.Option(help="Go on where the last page ended.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """The newest jobs.

    \b
    headrace list --status failed
    headrace list --json | jq -r '.data[].job_id'
    """
    if status and status not in STATUSES:
        raise Misused(f"There is no status {status}.", f"Statuses: {', '.join(STATUSES)}.")
    page = session(ctx).api.get("/jobs", status=status, type=job_type, priority=priority, tag=tag, limit=limit, cursor=cursor)
    if as_json:
        output.print_json(page)
        return
    if not page["data"]:
        output.note("No jobs here.")
    else:
        _print_jobs(page["data"])
    if page.get("next_cursor"):
        output.note(f"\nMore: headrace list --cursor {page['next_cursor']}")


def cancel(ctx: typer.Context, job: JobId, as_json: Json = False) -> None:
    """Stop a job. What it has written is kept, and charged."""
    _say(session(ctx).api.post(f"/jobs/{job}/cancel"), as_json)


def retry(ctx: typer.Context, job: JobId, as_json: Json = False) -> None:
    """Start a job again that failed, was cancelled, expired or is incomplete, or at once one that waits for its next attempt."""
    api = session(ctx).api
    run = api.get(f"/jobs/{job}/status").get("run")  # named, so that a request which is repeated on the way starts one run, not two
    _say(api.post(f"/jobs/{job}/retry", {"run": run} if run else None), as_json)


def download(
    ctx: typer.Context,
    job: JobId,
    to: Annotated[str | None, typer.Option("--output", "-o", help="The file; `-` for stdout. Else named as the job names it.")] = None,
) -> None:
    """Save the object that an export made.

    \b
    headrace submit --type export --input '{"filter": {"status": "completed"}}' --wait
    headrace download job_01J... -o results.csv
    """
    answer = session(ctx).api.send("GET", f"/jobs/{job}/download")
    if answer.status_code == NOT_MADE_YET:
        output.note(f"The job is {answer.json().get('status')}: nothing is made yet. `headrace watch {job}` shows how far it is.")
        raise typer.Exit(Exit.ENDED_EARLY)
    if to == "-":
        sys.stdout.buffer.write(answer.content)
        return
    path = Path(to or _name_of(answer.headers.get("Content-Disposition", ""), job))
    path.write_bytes(answer.content)
    output.note(f"{path}: {len(answer.content)} bytes")


def _name_of(disposition: str, job: str) -> str:
    """The name that the object is to be saved under, without any folder."""
    named = re.search(r'filename="([^"]+)"', disposition)
    return Path(named.group(1)).name if named else job


def move(
    ctx: typer.Context,
    job: JobId,
    run_at: Annotated[str | None, typer.Option(help="Begin at this time: 2026-11-22T09:30:00Z.", show_default=False)] = None,
    delay: Annotated[float | None, typer.Option(min=0, help="Begin in so many seconds; 0 is now.", show_default=False)] = None,
    expires_in: Annotated[float | None, typer.Option(min=1, help="It must have begun so many seconds later.", show_default=False)] = None,
    priority: Annotated[str | None, typer.Option("--priority", "-p", help="To this lane.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """Move a job that has not ended: to another time, another lane, or let it wait longer.

    \b
    headrace move job_01J... --delay 0
    headrace move job_01J... --priority urgent
    """
    given = {"run_at": run_at, "delay": delay, "expires_in": expires_in, "priority": priority}
    wanted = {name: value for name, value in given.items() if value is not None}
    if not wanted:
        raise Misused("Say where to: --run-at, --delay, --expires-in or --priority.")
    answer = session(ctx).api.patch(f"/jobs/{job}", wanted)
    if as_json:
        output.print_json(answer)
        return
    shown = [("lane", answer.get("priority")), ("begins", answer.get("next_attempt_at")), ("expires", answer.get("expires_at"))]
    output.print_fields([("job", answer.get("job_id")), ("status", output.status_text(str(answer.get("status")))), *shown])


def _say(answer: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.print_json(answer)
    else:
        output.print_fields([("job", answer.get("job_id")), ("status", output.status_text(str(answer.get("status"))))])


def _print_jobs(jobs: list[dict[str, Any]]) -> None:
    table = output.table_of(["job", "status", "type", "lane", "created", "cost"])
    table.columns[0].min_width = max(len(job["job_id"]) for job in jobs)  # an id that is cut is worth nothing
    for job in jobs:
        table.add_row(
            job["job_id"],
            output.status_text(job["status"]),
            str(job.get("job_type") or ""),
            str(job.get("priority") or ""),
            output.ago(job.get("created_at")),
            output.money(job.get("cost"), job.get("currency", "USD")) or "",
        )
    output.stdout().print(table)
