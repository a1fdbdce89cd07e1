"""Failed jobs: which and why, start them again, delete them; and the same for many jobs of other kinds."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cli import output
from cli.errors import Exit, Misused
from cli.session import JobId, Json, session

OfType = Annotated[str | None, typer.Option("--type", "-t", help="Only jobs of this type.", show_default=False)]
WithError = Annotated[str | None, typer.Option("--error", "-e", help="Only jobs with this error code.", show_default=False)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only count.")]

app = typer.Typer(rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def failed(
    ctx: typer.Context,
    job_type: OfType = None,
    error: WithError = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100, help="How many.")] = 20,
    cursor: Annotated[str | None, typer.Option(help="Go on where the last page ended.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """The jobs that failed last, and why; and what can be done with them. For operators.

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
        output.note("No failed jobs here.")
    else:
        _print_failed(page["data"])
    letters = {lane: count for lane, count in (page.get("dead_letters") or {}).items() if count}
    if letters:
        output.note("\nDead letters: " + ", ".join(f"{lane} {count}" for lane, count in letters.items()) + ". See: headrace failed redrive")
    if page.get("next_cursor"):
        output.note(f"\nMore: headrace failed --cursor {page['next_cursor']}")


@app.command()
def retry(
    ctx: typer.Context,
    jobs: Annotated[list[str] | None, typer.Argument(metavar="[JOB...]", help="Which jobs.", show_default=False)] = None,
    everything: Annotated[bool, typer.Option("--all", help="All failed jobs that the filters find.")] = False,
    job_type: OfType = None,
    error: WithError = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Start failed jobs again: those that are named, or all."""
    if bool(jobs) == everything:
        raise Misused("Name jobs, or say --all.", "headrace failed retry job_01J... or headrace failed retry --all --error stream_cut")
    if jobs and (job_type or error):
        raise Misused("--type and --error narrow --all; named jobs are retried as they are.")
    asked: dict[str, Any] = {"ids": jobs} if jobs else {"all": True, **_given(job_type, error)}
    answer = session(ctx).api.post("/failed-jobs/retry", asked | ({"dry_run": True} if dry_run else {}))
    _say(answer, as_json)
    if jobs and any(answer.get(what) for what in ("skipped", "failed", "not_found")):
        raise typer.Exit(Exit.FAILED)


@app.command()
def delete(ctx: typer.Context, job: JobId, as_json: Json = False) -> None:
    """Delete one failed job and all that is kept of it."""
    answer = session(ctx).api.delete(f"/failed-jobs/{job}")
    if as_json:
        output.print_json(answer)
    else:
        state = "yes" if answer.get("deleted") else "under way"
        output.print_fields([("job", job), ("deleted", state), ("bulk action", answer.get("bulk_id"))])


@app.command()
def purge(
    ctx: typer.Context,
    force: Annotated[bool, typer.Option("--force", help="Really: nothing brings them back.")] = False,
    job_type: OfType = None,
    error: WithError = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Delete all failed jobs, or all that the filters find."""
    if not force and not dry_run:
        raise Misused("This deletes jobs with all that is kept of them.", "Say --force to do it, or --dry-run to count them.")
    query = {"all": "true", **_given(job_type, error), **({"dry_run": "true"} if dry_run else {})}
    _say(session(ctx).api.ask("DELETE", "/failed-jobs", query=query), as_json)


@app.command()
def redrive(
    ctx: typer.Context,
    lane: Annotated[str | None, typer.Option("--lane", help="Only this lane.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """Wake the jobs of dead letters again, as their records say. For admins: the queues are of all tenants."""
    answer = session(ctx).api.post("/failed-jobs/redrive", {"lane": lane} if lane else {})
    if as_json:
        output.print_json(answer)
        return
    table = output.table_of(["lane", "woken", "dropped", "kept"])
    for name, counts in answer["lanes"].items():
        table.add_row(name, *(str(counts.get(what, 0)) for what in ("redriven", "dropped", "kept")))
    output.stdout().print(table)
    if answer.get("more"):
        output.note("There may be more: run it again.")


def bulk(
    ctx: typer.Context,
    bulk_id: Annotated[str, typer.Argument(metavar="BULK", help="The bulk action's id, bulk_...", show_default=False)],
    as_json: Json = False,
) -> None:
    """How far a bulk action has come."""
    _say(session(ctx).api.get(f"/bulk/{bulk_id}"), as_json)


def _given(job_type: str | None, error: str | None) -> dict[str, Any]:
    return {name: value for name, value in (("type", job_type), ("error_code", error)) if value}


def _say(answer: dict[str, Any], as_json: bool) -> None:
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
        output.note(f"It goes on by itself. To see how far: headrace bulk {answer['bulk_id']}")


def _print_failed(jobs: list[dict[str, Any]]) -> None:
    table = output.table_of(["job", "type", "failed", "error", "why"])
    table.columns[0].min_width = max(len(job["job_id"]) for job in jobs)  # an id that is cut is worth nothing
    table.columns[4].no_wrap, table.columns[4].overflow = False, "fold"
    for job in jobs:
        error = job.get("error") or {}
        why = f"{error.get('message') or ''} {error.get('suggestion') or ''}".strip()
        table.add_row(
            job["job_id"],
            str(job.get("job_type") or ""),
            output.ago(job.get("finished_at")),
            str(error.get("code") or ""),
            output.clean(why),
        )
    output.stdout().print(table)
