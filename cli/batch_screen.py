"""Terminal output of batches: fields, a progress bar while they run, the rows of a dry run."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from typing import Any, cast

import typer

from cli import output
from cli.api import Api, json_of
from cli.errors import Exit
from cli.listing import Listing

TERMINAL_STATUSES = ("completed", "completed_with_failures", "failed", "cancelled")
COUNT_COLOURS = (
    ("completed", "green"),
    ("failed", "red"),
    ("cancelled", "magenta"),
    ("processing", "cyan"),
    ("queued", "blue"),
    ("waiting", "dim"),
)
NOT_MODIFIED = 304
MAX_PROMPT_CHARS = 60  # shown of each prompt of a dry run
LONG_POLL_SECONDS = 20

Batch = dict[str, Any]


def exit_for_batch(batch: Batch) -> Exit:
    """The exit code of a command that waited for a batch, as for a job."""
    if batch["status"] == "completed":
        return Exit.OK
    return Exit.ENDED_EARLY if batch["status"] == "cancelled" else Exit.FAILED


def follow_batch(api: Api, batch_id: str, as_json: bool, sleep: Callable[[float], None] | None = None) -> Batch:
    """Show a batch until it ends, by long polling. Return it as it ended.

    An API that already holds its maximum of requests answers at once, so requests are at least a
    second apart.
    """
    etag: str | None = None
    try:
        with _screen(as_json) as show:
            while True:
                requested_at = time.monotonic()
                headers = {"If-None-Match": etag} if etag else None
                response = api.request("GET", f"/batches/{batch_id}", query={"wait": LONG_POLL_SECONDS}, headers=headers)
                if response.status_code != NOT_MODIFIED:
                    batch = json_of(response)
                    show(batch)
                    if batch["status"] in TERMINAL_STATUSES:
                        break
                    etag = response.headers.get("ETag")
                if time.monotonic() - requested_at < 1.0:
                    (sleep or time.sleep)(1.0)
    except KeyboardInterrupt as interrupt:
        output.note(
            f"\nThe batch is still running. To watch it:  headrace batch watch {batch_id}\nTo stop it:  headrace batch cancel {batch_id}"
        )
        raise typer.Exit(Exit.INTERRUPTED) from interrupt
    if not as_json:
        print_batch(batch)
    return batch


def print_batch(batch: Batch) -> None:
    counts = batch.get("counts") or {}
    failed = batch.get("failed_job_ids") or []
    output.print_fields(
        [
            ("batch", batch["batch_id"]),
            ("name", batch.get("name")),
            ("status", output.status_text(batch["status"])),
            ("reason", batch.get("reason")),
            ("rows", counts.get("total")),
            ("counts", _counts_text(counts)),
            ("progress", f"{batch['progress_percentage']} %" if batch.get("progress_percentage") is not None else None),
            ("remaining", time_remaining(batch)),
            ("cost", output.money(batch.get("cost"), batch.get("currency", "USD"))),
            ("failed jobs", ", ".join(failed[:5]) + (" ..." if len(failed) > 5 else "")),
        ]
    )
    if batch["status"] not in TERMINAL_STATUSES:
        output.note(f"\nheadrace batch watch {batch['batch_id']}")
    elif counts.get("completed"):
        output.note(f"\nheadrace batch export {batch['batch_id']} -o answers.csv")


def print_dry_run(answer: Batch) -> None:
    currency = answer.get("currency", "USD")
    sample_size = answer.get("estimated_from")
    expected, maximum = (output.money(answer.get(name), currency) for name in ("estimated_cost", "max_cost"))
    output.print_fields(
        [
            ("rows", answer.get("count")),
            ("asked", f"the column {answer['prompt_column']}" if answer.get("prompt_column") else None),
            ("cost", f"about {expected}, at most {maximum}" if expected and maximum else expected),
            ("estimated", f"from {sample_size} of the rows" if sample_size else None),
            ("duration", output.duration(answer.get("estimated_duration_seconds"))),
        ]
    )
    table = Listing(["row", "id", "priority", "model", "cost", "prompt"], whole=("row", "cost"), spare=("priority", "model", "cost"))
    for item in answer.get("items") or []:
        prompt = " ".join(str(item.get("prompt") or "").split())
        table.add_row(
            str(item.get("row", "")),
            output.clean(str(item.get("id") or "")),
            str(item.get("priority") or ""),
            str(item.get("model") or ""),
            output.money(item.get("estimated_cost"), currency) or "",
            output.clean(prompt if len(prompt) <= MAX_PROMPT_CHARS else f"{prompt[:MAX_PROMPT_CHARS]}..."),
        )
    output.stdout().print()
    table.print()
    output.note("\nNothing was submitted.")


def print_rows(rows: list[Batch]) -> None:
    table = Listing(
        ["row", "id", "job", "status", "cost", "reason"], whole=("row", "job", "status", "cost"), spare=("cost", "reason", "id")
    )
    for row in rows:
        error = row.get("error") or {}
        table.add_row(
            str(row.get("row", "")),
            output.clean(str(row.get("id") or "")),
            str(row.get("job_id") or ""),
            output.status_text(str(row.get("status"))),
            output.money(row.get("cost"), row.get("currency", "USD")) or "",
            output.clean(str(error.get("message") or row.get("reason") or "")),
        )
    output.stdout().print()
    table.print()


def time_remaining(batch: Batch, now: datetime | None = None) -> str | None:
    """The estimated time to the end; None if there is no estimate or the batch has ended."""
    completion_at = batch.get("estimated_completion_at")
    if not completion_at or batch["status"] in TERMINAL_STATUSES:
        return None
    seconds = output.seconds_until(completion_at, now)
    return None if seconds is None else f"about {output.duration(max(0.0, seconds))}"


def status_line(batch: Batch) -> str:
    """One line of figures.

    The most important come first, because a narrow terminal cuts off the end.
    """
    counts = batch.get("counts") or {}
    cost = output.money(batch.get("cost"), batch.get("currency", "USD"))
    parts = [str(batch["status"]), _counts_text(counts), f"of {counts.get('total', '?')}", cost, time_remaining(batch)]
    return " | ".join(part for part in parts if part)


def _counts_text(counts: dict[str, Any]) -> str:
    return ", ".join(f"{counts[name]} {name}" for name, _ in COUNT_COLOURS if counts.get(name))


def _screen(as_json: bool) -> AbstractContextManager[Callable[[Batch], None]]:
    """How to show each state: a JSON line, a live bar on a terminal, or else a status line."""
    if as_json:
        return nullcontext(output.print_json_line)
    if sys.stdout.isatty() and not output.stdout().is_dumb_terminal:
        return LiveBatch()
    return nullcontext(lambda batch: output.note(status_line(batch)))


class LiveBatch(AbstractContextManager[Any]):
    """A progress bar with the status line below it, redrawn in place."""

    def __init__(self) -> None:
        from rich.live import Live

        self._live = Live(console=output.stdout(), refresh_per_second=4, transient=True)

    def __enter__(self) -> Callable[[Batch], None]:
        self._live.start()
        return lambda batch: self._live.update(cast(Any, self._draw(batch)))

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def _draw(self, batch: Batch) -> Any:
        from rich.console import Group
        from rich.text import Text

        line = Text(output.clean(status_line(batch)), no_wrap=True, overflow="ellipsis")
        return Group(progress_bar(batch, output.stdout().width - 8), line)


def progress_bar(batch: Batch, width: int) -> Any:
    """A bar with one coloured segment per status, each as long as its share of the rows."""
    from rich.text import Text

    counts, bar = batch.get("counts") or {}, Text()
    total, cells = max(1, int(output.number(counts.get("total")) or 1)), max(10, width)
    rows_so_far = cells_drawn = 0
    for name, colour in COUNT_COLOURS[:4]:
        rows_so_far += int(output.number(counts.get(name)) or 0)
        segment_end = max(cells_drawn, min(cells, cells * rows_so_far // total))
        bar.append("#" * (segment_end - cells_drawn), colour)
        cells_drawn = segment_end
    bar.append("-" * (cells - cells_drawn), "dim")
    return bar.append(f" {output.number(batch.get('progress_percentage')) or 0.0:3.0f}%")
