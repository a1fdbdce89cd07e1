"""Commands for batches: submit, watch and export many rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cli import output, request
from cli.batch_files import BYTE_ORDER_MARK, read_batch_input, submit_batch
from cli.batch_screen import exit_for_batch, follow_batch, print_batch, print_dry_run, print_rows
from cli.commands import options
from cli.errors import Unreachable, UsageError
from cli.files import write_file
from cli.links import download
from cli.listing import Listing
from cli.session import Json, Session, session
from cli.usage import text_id

BatchId = Annotated[
    str, typer.Argument(metavar="BATCH", help="The id of the batch, batch_...", show_default=False, callback=text_id("batch"))
]

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Submit, watch and export batches of prompts.")


@app.command()
def submit(
    ctx: typer.Context,
    paths: options.Paths,
    glob: options.Glob = None,
    as_what: options.AsWhat = None,
    template: options.Template = None,
    job_type: options.Type = None,
    model: options.Model = None,
    priority: options.Priority = None,
    option: options.TypeOption = None,
    config: options.Config = None,
    name: options.BatchName = None,
    batch_size: options.BatchSize = None,
    delay: options.ReleaseDelay = None,
    parallel_limit: options.ParallelLimit = None,
    failure_tolerance: options.FailureTolerance = None,
    webhook_url: options.WebhookUrl = None,
    notify: options.Notify = None,
    delimiter: options.Delimiter = None,
    dry_run: options.DryRun = False,
    monitor: options.Monitor = False,
    as_json: Json = False,
) -> None:
    """Submit a batch.

    \b
    headrace batch submit prompts.csv --dry-run
    headrace batch submit prompts.csv --template "Translate into {{language}}: {{input}}" --monitor
    headrace batch submit contracts --glob '*.sol' --type security_analysis --name audit
    headrace batch submit a.sol b.sol --json | jq -r .batch_id
    \b
    headrace batch submit january.csv february.csv --dry-run
    \b
    A single .csv, .tsv, .json, .jsonl or .txt file is sent unchanged: its rows are the batch.
    Of several .csv, .tsv and .jsonl files the rows of all are the batch.
    Otherwise each file is one row, with its name as id. Files that end with .gz are unpacked.
    """
    if glob is not None and not any(path.is_dir() for path in paths):
        raise UsageError("--glob chooses files of a folder, but no folder is named.")
    given = _options(ctx.params)
    answer = submit_batch(session(ctx).api, read_batch_input(paths, glob, as_what), given)
    if answer.get("dry_run"):
        _show(answer, as_json, print_dry_run)
    elif monitor:
        _watch(session(ctx), answer["batch_id"], as_json)
    else:
        _show(answer, as_json, print_batch)


@app.command()
def status(
    ctx: typer.Context,
    batch: BatchId,
    detailed: Annotated[bool, typer.Option("--detailed", help="List the rows too.")] = False,
    as_json: Json = False,
) -> None:
    """Show progress, cost and failed rows of a batch."""
    api = session(ctx).api
    answer = api.get(f"/batches/{batch}", detailed="true" if detailed else None)
    rows = list(answer.get("data") or [])
    while detailed and answer.get("next_cursor"):
        page = api.get(f"/batches/{batch}", detailed="true", cursor=answer["next_cursor"])
        rows += page.get("data") or []
        answer["next_cursor"] = page.get("next_cursor")
    if detailed:
        answer["data"] = rows
    _show(answer, as_json, print_batch)
    if rows and not as_json:
        print_rows(rows)


@app.command()
def watch(ctx: typer.Context, batch: BatchId, as_json: Json = False) -> None:
    """Watch a batch until it ends. Ctrl-C leaves it running."""
    _watch(session(ctx), batch, as_json)


@app.command()
def export(
    ctx: typer.Context,
    batch: BatchId,
    export_format: Annotated[Literal["csv", "json"] | None, typer.Option("--format", help="csv or json.", show_default="csv")] = None,
    file: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file.", show_default=False)] = None,
    delimiter: Annotated[
        str | None, typer.Option(help="The delimiter of CSV: comma, semicolon, tab, pipe, or the character.", show_default="comma")
    ] = None,
    bom: Annotated[
        bool | None,
        typer.Option("--bom/--no-bom", help="Begin CSV with a byte order mark, which Excel needs.", show_default="in a file"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Export all rows with their answers so far, in the order of submission.

    \b
    headrace batch export batch_01J... -o answers.csv
    headrace batch export batch_01J... -o answers.csv --delimiter semicolon     # for a German or French Excel
    headrace batch export batch_01J... --json | jq -r '.items[].output'
    """
    if as_json and export_format == "csv":
        raise UsageError("--json and --format csv contradict each other.")
    names_json = export_format is None and file is not None and file.suffix.lower() == ".json"
    query: dict[str, Any] = {"format": "json" if as_json or names_json else export_format or "csv"}
    if query["format"] == "csv":
        has_bom = bom if bom is not None else file is not None
        query |= {"delimiter": delimiter, "bom": "true" if has_bom else None}
    elif delimiter is not None or bom is not None:
        raise UsageError("--delimiter and --bom are of CSV, but the format is JSON.")
    chunks = _export(session(ctx), batch, query)
    if file is None:
        output.write_bytes(chunks)
    else:
        output.note(f"{file}  {write_file(file, chunks):,} bytes")


@app.command("list")
def list_batches(
    ctx: typer.Context,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100, help="The maximum number of batches.")] = 20,
    cursor: Annotated[str | None, typer.Option(help="The next_cursor of the previous page.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """List the newest batches."""
    page = session(ctx).api.get("/batches", limit=limit, cursor=cursor)
    if as_json:
        output.print_json(page)
        return
    if page["data"]:
        _print_batches(page["data"])
    else:
        output.note("No batches found.")
    if page.get("next_cursor"):
        output.note(f"\nMore: headrace batch list --cursor {page['next_cursor']}")


@app.command("retry-failed")
def retry_failed(
    ctx: typer.Context,
    batch: BatchId,
    cancelled: Annotated[bool, typer.Option("--cancelled", help="Retry cancelled rows as well.")] = False,
    as_json: Json = False,
) -> None:
    """Retry the failed rows of a batch. Completed rows stay as they are."""
    answer = session(ctx).api.post(f"/batches/{batch}/retry-failed", {"cancelled": True} if cancelled else None)
    _show(answer, as_json, print_batch)


@app.command()
def cancel(ctx: typer.Context, batch: BatchId, as_json: Json = False) -> None:
    """Cancel a batch. The text written so far is kept and charged."""
    _show(session(ctx).api.delete(f"/batches/{batch}"), as_json, print_batch)


def _watch(current: Session, batch: str, as_json: bool) -> None:
    raise typer.Exit(exit_for_batch(follow_batch(current.api, batch, as_json)))


def _show(answer: dict[str, Any], as_json: bool, show: Any) -> None:
    if as_json:
        output.print_json(answer)
    else:
        show(answer)


def _options(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the batch. `given` are the parameters of `submit` by name."""
    names = ("name", "model", "priority", "batch_size", "delay", "parallel_limit", "failure_tolerance", "webhook_url", "delimiter")
    options = {
        **{name: given[name] for name in names},
        "type": given["job_type"],
        "options": request.parse_pairs(given["option"] or [], "--option"),
        "config": request.parse_pairs(given["config"] or [], "--config"),
        "prompt_template": _read_template(given["template"]),
        "notify": list(given["notify"] or []) or None,
        "dry_run": given["dry_run"] or None,
    }
    return {name: value for name, value in options.items() if value not in (None, {})}


def _read_template(template: str | None) -> str | None:
    """The template, read from a file if it is `@FILE`."""
    if template is None or not template.startswith("@"):
        return template
    return request.read_prompt(None, Path(template[1:])).removeprefix(BYTE_ORDER_MARK)


def _export(current: Session, batch: str, query: dict[str, Any]) -> Iterator[bytes]:
    """The exported bytes, from the API or from the signed link to which it redirects."""
    response = current.api.request("GET", f"/batches/{batch}/export", query=query, follow_redirects=False)
    if response.status_code != 307:
        return iter([response.content])
    link = response.headers.get("Location", "")
    if not link.startswith(("https://", "http://")):
        raise Unreachable("The API named no link for the download.")
    return download(link)


def _print_batches(batches: list[dict[str, Any]]) -> None:
    table = Listing(
        ["batch", "name", "status", "rows", "done", "failed", "cost", "created"],
        whole=("batch", "status", "rows", "done", "failed", "cost", "created"),
        spare=("created", "cost", "name", "done", "rows", "failed"),
    )
    for batch in batches:
        counts = batch.get("counts") or {}
        table.add_row(
            batch["batch_id"],
            str(batch.get("name") or ""),
            output.status_text(batch["status"]),
            str(counts.get("total", "")),
            str(counts.get("completed", "")),
            str(counts.get("failed", "")),
            output.money(batch.get("cost"), batch.get("currency", "USD")) or "",
            output.ago(batch.get("created_at")),
        )
    table.print()
