"""Commands for jobs: list, cancel, retry, update, download."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from cli import output
from cli.api import json_of
from cli.errors import Exit, UsageError
from cli.files import write_file
from cli.listing import Listing
from cli.session import JobId, Json, session

ACCEPTED = 202
STATUSES = ("waiting", "queued", "processing", "retrying", "held", "completed", "incomplete", "failed", "cancelled", "expired")


def list_jobs(
    ctx: typer.Context,
    status: Annotated[str | None, typer.Option("--status", "-s", help="Only jobs with this status.", show_default=False)] = None,
    job_type: Annotated[str | None, typer.Option("--type", "-t", help="Only jobs of this type.", show_default=False)] = None,
    priority: Annotated[str | None, typer.Option("--priority", "-p", help="Only jobs in this lane.", show_default=False)] = None,
    tag: Annotated[str | None, typer.Option(help="Only jobs with this tag.", show_default=False)] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100, help="The maximum number of jobs.")] = 20,
    cursor: Annotated[str | None, typer.Option(help="The next_cursor of the previous page.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """List the newest jobs.

    \b
    headrace list --status failed
    headrace list --json | jq -r '.data[].job_id'
    """
    if status and status not in STATUSES:
        raise UsageError(f"There is no status {status}.", f"Statuses: {', '.join(STATUSES)}.")
    page = session(ctx).api.get("/jobs", status=status, type=job_type, priority=priority, tag=tag, limit=limit, cursor=cursor)
    if as_json:
        output.print_json(page)
        return
    if not page["data"]:
        output.note("No jobs found.")
    else:
        _print_jobs(page["data"])
    if page.get("next_cursor"):
        output.note(f"\nMore: headrace list --cursor {page['next_cursor']}")


def cancel(ctx: typer.Context, job: JobId, as_json: Json = False) -> None:
    """Cancel a job. The text written so far is kept and charged."""
    _print_status(session(ctx).api.post(f"/jobs/{job}/cancel"), as_json)


def retry(ctx: typer.Context, job: JobId, as_json: Json = False) -> None:
    """Retry a job that did not complete, or start the next attempt of a retrying job now."""
    api = session(ctx).api
    run = api.get(f"/jobs/{job}/status").get("run")  # with the run, a request that is repeated starts one run, not two
    _print_status(api.post(f"/jobs/{job}/retry", {"run": run} if run else None), as_json)


def download(
    ctx: typer.Context,
    job: JobId,
    target: Annotated[
        str | None, typer.Option("--output", "-o", help="The file to write; `-` for stdout. By default the job names it.")
    ] = None,
) -> None:
    """Download the file that a job has created, such as an export.

    \b
    headrace submit --type export --input '{"filter": {"status": "completed"}}' --wait
    headrace download job_01J... -o results.csv
    """
    answer = session(ctx).api.request("GET", f"/jobs/{job}/download")
    if answer.status_code == ACCEPTED:
        status = json_of(answer).get("status")
        output.note(f"The job is {status} and has not created its file yet. See its progress with `headrace watch {job}`.")
        raise typer.Exit(Exit.ENDED_EARLY)
    if target == "-":
        output.write_bytes([answer.content])
        return
    path = Path(target or _file_name(answer.headers.get("Content-Disposition", ""), job))
    if target is None and path.exists():  # the name is the server's choice, and must cost nobody a file
        raise UsageError(f"{path} exists already.", "Name the file with -o; it is then overwritten.")
    output.note(f"{path}: {write_file(path, [answer.content])} bytes")


def _file_name(disposition: str, job: str) -> str:
    """The file name of a Content-Disposition header, without folders, or else the job id."""
    match = re.search(r'filename="([^"]+)"', disposition)
    name = re.sub(r"[^\w .()+-]", "_", Path(match.group(1)).name) if match else ""
    return name[:100] if name.strip(". ") and not name.startswith((".", "-")) else job


def update(
    ctx: typer.Context,
    job: JobId,
    run_at: Annotated[str | None, typer.Option(help="Start at this time: 2026-11-22T09:30:00Z.", show_default=False)] = None,
    delay: Annotated[float | None, typer.Option(min=0, help="Start after this many seconds; 0 starts now.", show_default=False)] = None,
    expires_in: Annotated[
        float | None, typer.Option(min=1, help="Expire if not started this many seconds later.", show_default=False)
    ] = None,
    priority: Annotated[str | None, typer.Option("--priority", "-p", help="Move to this lane.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """Change start time, expiry or lane of a job that has not ended.

    \b
    headrace update job_01J... --delay 0
    headrace update job_01J... --priority urgent
    """
    options = {"run_at": run_at, "delay": delay, "expires_in": expires_in, "priority": priority}
    changes = {name: value for name, value in options.items() if value is not None}
    if not changes:
        raise UsageError("Give at least one change: --run-at, --delay, --expires-in or --priority.")
    answer = session(ctx).api.patch(f"/jobs/{job}", changes)
    if as_json:
        output.print_json(answer)
        return
    changed = [("lane", answer.get("priority")), ("starts", answer.get("next_attempt_at")), ("expires", answer.get("expires_at"))]
    output.print_fields([("job", answer.get("job_id")), ("status", output.status_text(str(answer.get("status")))), *changed])


def _print_status(answer: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.print_json(answer)
    else:
        output.print_fields([("job", answer.get("job_id")), ("status", output.status_text(str(answer.get("status"))))])


def _print_jobs(jobs: list[dict[str, Any]]) -> None:
    table = Listing(
        ["job", "status", "type", "lane", "created", "cost"],
        whole=("job", "status", "lane", "created", "cost"),
        spare=("lane", "cost", "type", "created"),
    )
    for job in jobs:
        table.add_row(
            job["job_id"],
            output.status_text(job["status"]),
            str(job.get("job_type") or ""),
            str(job.get("priority") or ""),
            output.ago(job.get("created_at")),
            output.money(job.get("cost"), job.get("currency", "USD")) or "",
        )
    table.print()
