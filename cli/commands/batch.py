"""Many rows under one name: submit them, watch them, fetch their answers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cli import output, request
from cli.batch_files import rows_of, send
from cli.batch_screen import exit_for_batch, follow_batch, print_batch, print_dry_run, print_rows
from cli.commands.submit import Model, Notify, Priority, Type, TypeOption, WebhookUrl
from cli.errors import Misused
from cli.links import download
from cli.session import Json, Session, session

BatchId = Annotated[str, typer.Argument(metavar="BATCH", help="The batch's id, batch_...", show_default=False)]

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Many prompts under one name; see `headrace batch submit --help`.")


@app.command()
def submit(
    ctx: typer.Context,
    paths: Annotated[list[Path], typer.Argument(metavar="FILE...|DIR", help="What to send.", exists=True, show_default=False)],
    glob: Annotated[str | None, typer.Option(help="Which files of a folder, with all below it.", show_default=False)] = None,
    template: Annotated[
        str | None, typer.Option(help="The prompt, with {{input}} or any column in it; @FILE: read it there.", show_default=False)
    ] = None,
    job_type: Type = None,
    model: Model = None,
    priority: Priority = None,
    option: TypeOption = None,
    config: Annotated[list[str] | None, typer.Option("--config", help="How it is answered: name=value.", show_default=False)] = None,
    name: Annotated[str | None, typer.Option(help="What to call it.", show_default=False)] = None,
    batch_size: Annotated[int | None, typer.Option(help="How many rows are released at a time.", show_default=False)] = None,
    delay: Annotated[float | None, typer.Option(help="Seconds between those.", show_default=False)] = None,
    parallel_limit: Annotated[int | None, typer.Option(help="How many rows may be worked on at once.", show_default=False)] = None,
    failure_tolerance: Annotated[
        float | None, typer.Option(help="The share of rows, 0 to 1, that may fail before the rest is cancelled.", show_default=False)
    ] = None,
    webhook_url: WebhookUrl = None,
    notify: Notify = None,
    delimiter: Annotated[str | None, typer.Option(help="Of CSV: comma, semicolon or tab.", show_default=False)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would be and cost.")] = False,
    monitor: Annotated[bool, typer.Option("--monitor", help="Watch it to its end.")] = False,
    as_json: Json = False,
) -> None:
    """Submit a batch.

    \b
    headrace batch submit prompts.csv --dry-run
    headrace batch submit prompts.csv --template "Translate into {{language}}: {{input}}" --monitor
    headrace batch submit contracts --glob '*.sol' --type security_analysis --name audit
    headrace batch submit a.sol b.sol --json | jq -r .batch_id
    \b
    One .csv, .tsv, .json, .jsonl or .txt file is sent as it is: its rows are the batch. Otherwise each file is a row, with its name as id.
    """
    if glob is not None and not any(path.is_dir() for path in paths):
        raise Misused("--glob chooses files of a folder; no folder is named.")
    said = {
        "name": name,
        "type": job_type,
        "model": model,
        "priority": priority,
        "options": request.pairs(option or [], "--option"),
        "config": request.pairs(config or [], "--config"),
        "prompt_template": _template(template),
        "batch_size": batch_size,
        "delay": delay,
        "parallel_limit": parallel_limit,
        "failure_tolerance": failure_tolerance,
        "webhook_url": webhook_url,
        "notify": notify or None,
        "delimiter": delimiter,
        "dry_run": dry_run or None,
    }
    current = session(ctx)
    answer = send(current.api, rows_of(paths, glob), {name: value for name, value in said.items() if value not in (None, {})})
    if answer.get("dry_run"):
        _show(answer, as_json, print_dry_run)
    elif monitor:
        _watch(current, answer["batch_id"], as_json)
    else:
        _show(answer, as_json, print_batch)


@app.command()
def status(
    ctx: typer.Context,
    batch: BatchId,
    detailed: Annotated[bool, typer.Option("--detailed", help="Each row too.")] = False,
    as_json: Json = False,
) -> None:
    """How far a batch has come, what it has cost, and which rows failed."""
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
    """Watch a batch to its end. Ctrl-C leaves it running."""
    _watch(session(ctx), batch, as_json)


@app.command()
def export(
    ctx: typer.Context,
    batch: BatchId,
    kind: Annotated[Literal["csv", "json"] | None, typer.Option("--format", help="csv or json.", show_default="csv")] = None,
    file: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """All rows with their answers so far, in the order in which they were sent.

    \b
    headrace batch export batch_01J... -o answers.csv
    headrace batch export batch_01J... --json | jq -r '.items[].output'
    """
    if as_json and kind == "csv":
        raise Misused("--json and --format csv contradict each other.")
    chosen = "json" if as_json or (kind is None and file is not None and file.suffix.lower() == ".json") else kind or "csv"
    pieces = _exported(session(ctx), batch, chosen)
    if file is None:
        for piece in pieces:
            sys.stdout.buffer.write(piece)
        sys.stdout.flush()
        return
    unfinished = file.with_name(f"{file.name}.part")
    try:
        with unfinished.open("wb") as to:
            to.writelines(pieces)
        unfinished.replace(file)
    except OSError as problem:
        raise Misused(f"{file} cannot be written: {problem}") from problem
    finally:
        unfinished.unlink(missing_ok=True)
    output.note(f"{file}  {file.stat().st_size:,} bytes")


@app.command("list")
def list_batches(
    ctx: typer.Context,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100, help="How many.")] = 20,
    cursor: Annotated[str | None, typer.Option(help="Go on where the last page ended.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """The newest batches."""
    page = session(ctx).api.get("/batches", limit=limit, cursor=cursor)
    if as_json:
        output.print_json(page)
        return
    if page["data"]:
        _print_batches(page["data"])
    else:
        output.note("No batches here.")
    if page.get("next_cursor"):
        output.note(f"\nMore: headrace batch list --cursor {page['next_cursor']}")


@app.command("retry-failed")
def retry_failed(
    ctx: typer.Context,
    batch: BatchId,
    cancelled: Annotated[bool, typer.Option("--cancelled", help="Those that were cancelled as well.")] = False,
    as_json: Json = False,
) -> None:
    """Start the rows again that failed; what is completed stays."""
    answer = session(ctx).api.post(f"/batches/{batch}/retry-failed", {"cancelled": True} if cancelled else None)
    _show(answer, as_json, print_batch)


@app.command()
def cancel(ctx: typer.Context, batch: BatchId, as_json: Json = False) -> None:
    """Stop a batch. What its rows have written is kept, and charged."""
    _show(session(ctx).api.delete(f"/batches/{batch}"), as_json, print_batch)


def _watch(current: Session, batch: str, as_json: bool) -> None:
    raise typer.Exit(exit_for_batch(follow_batch(current.api, batch, as_json)))


def _show(answer: dict[str, Any], as_json: bool, show: Any) -> None:
    if as_json:
        output.print_json(answer)
    else:
        show(answer)


def _template(said: str | None) -> str | None:
    return request.read_prompt(None, Path(said[1:])) if said is not None and said.startswith("@") else said


def _exported(current: Session, batch: str, kind: str) -> Iterator[bytes]:
    """The bytes, from the API or from where it says that they are."""
    response = current.api.send("GET", f"/batches/{batch}/export", query={"format": kind}, follow=False)
    return download(response.headers["Location"]) if response.status_code == 307 else iter([response.content])


def _print_batches(batches: list[dict[str, Any]]) -> None:
    table = output.table_of(["batch", "name", "status", "rows", "done", "failed", "cost", "created"])
    table.columns[0].min_width = max(len(one["batch_id"]) for one in batches)  # an id that is cut is worth nothing
    for one in batches:
        counts = one.get("counts") or {}
        table.add_row(
            one["batch_id"],
            output.clean(one.get("name") or ""),
            output.status_text(one["status"]),
            str(counts.get("total", "")),
            str(counts.get("completed", "")),
            str(counts.get("failed", "")),
            output.money(one.get("cost"), one.get("currency", "USD")) or "",
            output.ago(one.get("created_at")),
        )
    output.stdout().print(table)
