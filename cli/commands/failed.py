"""Commands for failed jobs (list, retry, delete, purge, redrive) and `headrace bulk`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cli import output
from cli.errors import Exit, UsageError
from cli.listing import Listing
from cli.session import JobId, Json, session
from cli.usage import text_id

OfType = Annotated[str | None, typer.Option("--type", "-t", help="Only jobs of this type.", show_default=False)]
WithError = Annotated[str | None, typer.Option("--error", "-e", help="Only jobs with this error code.", show_default=False)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only count the matching jobs.")]

app = typer.Typer(rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def failed(
    ctx: typer.Context,
    job_type: OfType = None,
    error: WithError = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100, help="The maximum number of jobs.")] = 20,
    cursor: Annotated[str | None, typer.Option(help="The next_cursor of the previous page.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """List failed jobs with their errors, latest first, or act on them. For operators.

    \b
    headrace failed --error provider_quota_exhausted
    headrace failed retry --all --error provider_quota_exhausted
    """
    if ctx.invoked_subcommand is not None:
        return
    page = session(ctx).api.get("/failed-jobs", type=job_type, error_code=error, limit=limit, cursor=cursor)
    if as_json:
        output.print_json(page)
        return
    if not page["data"]:
        output.note("No failed jobs found.")
    else:
        _print_failed(page["data"])
    dead_letters = [f"{lane} {count}" for lane, count in (page.get("dead_letters") or {}).items() if count]
    if dead_letters:
        output.note(f"\nDead letters: {', '.join(dead_letters)}. See: headrace failed redrive")
    if page.get("next_cursor"):
        output.note(f"\nMore: headrace failed --cursor {page['next_cursor']}")


@app.command()
def retry(
    ctx: typer.Context,
    jobs: Annotated[list[str] | None, typer.Argument(metavar="JOB", help="The ids of the jobs.", show_default=False)] = None,
    retry_all: Annotated[bool, typer.Option("--all", help="Retry all failed jobs that match the filters.")] = False,
    job_type: OfType = None,
    error: WithError = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Retry the named failed jobs, or all that match the filters."""
    if bool(jobs) == retry_all:
        raise UsageError("Name jobs, or give --all.", "headrace failed retry job_01J... or headrace failed retry --all --error stream_cut")
    if jobs and (job_type or error):
        raise UsageError("--type and --error are filters for --all and cannot be combined with named jobs.")
    selection: dict[str, Any] = {"ids": jobs} if jobs else {"all": True, **_filters(job_type, error)}
    answer = session(ctx).api.post("/failed-jobs/retry", selection | ({"dry_run": True} if dry_run else {}))
    _print_bulk(answer, as_json)
    if jobs and any(answer.get(count) for count in ("skipped", "failed", "not_found")):
        raise typer.Exit(Exit.FAILED)


@app.command()
def delete(ctx: typer.Context, job: JobId, as_json: Json = False) -> None:
    """Delete a failed job and all of its data."""
    answer = session(ctx).api.delete(f"/failed-jobs/{job}")
    if as_json:
        output.print_json(answer)
    else:
        state = "yes" if answer.get("deleted") else "in progress"
        output.print_fields([("job", job), ("deleted", state), ("bulk operation", answer.get("bulk_id"))])


@app.command()
def purge(
    ctx: typer.Context,
    force: Annotated[bool, typer.Option("--force", help="Delete for real; it cannot be undone.")] = False,
    job_type: OfType = None,
    error: WithError = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Delete all failed jobs that match the filters, with all of their data."""
    if not force and not dry_run:
        raise UsageError("This deletes jobs and all of their data.", "Give --force to do it, or --dry-run to count the jobs.")
    query = {"all": "true", **_filters(job_type, error), **({"dry_run": "true"} if dry_run else {})}
    _print_bulk(session(ctx).api.request_json("DELETE", "/failed-jobs", query=query), as_json)


@app.command()
def redrive(
    ctx: typer.Context,
    lane: Annotated[str | None, typer.Option("--lane", help="Only this lane, or `work`, the queue of tasks.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """Redrive dead letters: wake their jobs if the job records still allow it. For admins of all tenants.

    The dead-letter queues are shared by all tenants.
    """
    answer = session(ctx).api.post("/failed-jobs/redrive", {"lane": lane} if lane else {})
    if as_json:
        output.print_json(answer)
        return
    table = Listing(["queue", "woken", "dropped", "kept"], whole=("queue", "woken", "dropped", "kept"))
    for name, counts in answer["lanes"].items():
        table.add_row(name, *(str(counts.get(count, 0)) for count in ("redriven", "dropped", "kept")))
    table.print()
    if answer.get("more"):
        output.note("There may be more dead letters: run it again.")


def bulk(
    ctx: typer.Context,
    bulk_id: Annotated[
        str,
        typer.Argument(
            metavar="BULK", help="The id of the bulk operation, bulk_...", show_default=False, callback=text_id("bulk operation")
        ),
    ],
    as_json: Json = False,
) -> None:
    """Show the progress of a bulk operation."""
    _print_bulk(session(ctx).api.get(f"/bulk/{bulk_id}"), as_json)


def _filters(job_type: str | None, error: str | None) -> dict[str, Any]:
    return {name: value for name, value in (("type", job_type), ("error_code", error)) if value}


def _print_bulk(answer: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.print_json(answer)
        return
    if answer.get("dry_run"):
        output.print_fields([("action", answer.get("action")), ("jobs", f"{answer['matched']}{' or more' if answer.get('more') else ''}")])
        return
    names = ("bulk_id", "action", "status", "matched", "done", "skipped", "failed", "not_found")
    output.print_fields([(name.replace("_", " "), answer.get(name)) for name in names])
    for problem in answer.get("problems") or []:
        output.note(f"  {problem['job_id']}: {problem['code']}")
    if answer.get("status") == "running":
        output.note(f"It continues in the background. To see its progress: headrace bulk {answer['bulk_id']}")


def _print_failed(jobs: list[dict[str, Any]]) -> None:
    table = Listing(
        ["job", "type", "failed", "error", "message"],
        whole=("job", "failed", "error"),
        folded=("message",),
        spare=("failed", "type", "error"),
    )
    for job in jobs:
        error = job.get("error") or {}
        message = f"{error.get('message') or ''} {error.get('suggestion') or ''}".strip()
        table.add_row(
            job["job_id"],
            str(job.get("job_type") or ""),
            output.ago(job.get("finished_at")),
            str(error.get("code") or ""),
            output.clean(message),
        )
    table.print()
