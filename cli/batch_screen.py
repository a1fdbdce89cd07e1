"""A batch as people see it: its figures, a bar while it goes on, the rows of a dry run."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from typing import Any, cast

import typer

from cli import output
from cli.api import Api
from cli.errors import Exit

ENDED = ("completed", "completed_with_failures", "failed", "cancelled")
COUNTS = (
    ("completed", "green"),
    ("failed", "red"),
    ("cancelled", "magenta"),
    ("processing", "cyan"),
    ("queued", "blue"),
    ("waiting", "dim"),
)
NOT_MODIFIED = 304
PROMPT_SHOWN = 60

Batch = dict[str, Any]


def exit_for_batch(batch: Batch) -> Exit:
    """Like a job's: whether all went well, something failed, or it was stopped."""
    if batch["status"] == "completed":
        return Exit.OK
    return Exit.ENDED_EARLY if batch["status"] == "cancelled" else Exit.FAILED


def follow_batch(api: Api, batch_id: str, as_json: bool, sleep: Callable[[float], None] | None = None) -> Batch:
    """Show it until its end. The API holds each request until something changes, or answers at once if it holds too many."""
    etag: str | None = None
    try:
        with _screen(as_json) as show:
            while True:
                asked_at = time.monotonic()
                named = {"If-None-Match": etag} if etag else None
                response = api.send("GET", f"/batches/{batch_id}", query={"wait": 20}, headers=named)
                if response.status_code != NOT_MODIFIED:
                    batch: Batch = response.json()
                    show(batch)
                    if batch["status"] in ENDED:
                        break
                    etag = response.headers.get("ETag")
                if time.monotonic() - asked_at < 1.0:
                    (sleep or time.sleep)(1.0)
    except KeyboardInterrupt as interrupt:
        output.note(f"\nThe batch goes on. To see it:  headrace batch watch {batch_id}\nTo stop it:  headrace batch cancel {batch_id}")
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
            ("counts", ", ".join(f"{counts[name]} {name}" for name, _ in COUNTS if counts.get(name))),
            ("progress", f"{batch['progress_percentage']} %" if batch.get("progress_percentage") is not None else None),
            ("remaining", remaining(batch)),
            ("cost", output.money(batch.get("cost"), batch.get("currency", "USD"))),
            ("failed jobs", ", ".join(failed[:5]) + (" ..." if len(failed) > 5 else "")),
        ]
    )
    if batch["status"] not in ENDED:
        output.note(f"\nheadrace batch watch {batch['batch_id']}")
    elif counts.get("completed"):
        output.note(f"\nheadrace batch export {batch['batch_id']} -o answers.csv")


def print_dry_run(answer: Batch) -> None:
    currency = answer.get("currency", "USD")
    looked_at = answer.get("estimated_from")
    expected, most = (output.money(answer.get(name), currency) for name in ("estimated_cost", "max_cost"))
    output.print_fields(
        [
            ("rows", answer.get("count")),
            ("cost", f"about {expected}, at most {most}" if expected and most else expected),
            ("estimated", f"from {looked_at} of the rows" if looked_at else None),
            ("expected", output.duration(answer.get("estimated_duration_seconds"))),
        ]
    )
    table = output.table_of(["row", "id", "priority", "model", "cost", "prompt"])
    for item in answer.get("items") or []:
        prompt = " ".join(str(item.get("prompt") or "").split())
        table.add_row(
            str(item.get("row", "")),
            output.clean(str(item.get("id") or "")),
            str(item.get("priority") or ""),
            str(item.get("model") or ""),
            output.money(item.get("estimated_cost"), currency) or "",
            output.clean(prompt if len(prompt) <= PROMPT_SHOWN else f"{prompt[:PROMPT_SHOWN]}..."),
        )
    output.stdout().print()
    output.stdout().print(table)
    output.note("\nNothing was submitted.")


def print_rows(rows: list[Batch]) -> None:
    table = output.table_of(["row", "id", "job", "status", "cost", "why"])
    table.columns[2].min_width = max(len(str(row.get("job_id") or "")) for row in rows)
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
    output.stdout().print(table)


def remaining(batch: Batch, now: datetime | None = None) -> str | None:
    """How long it will probably take, as far as that is known."""
    moment = batch.get("estimated_completion_at")
    if not moment or batch["status"] in ENDED:
        return None
    left = (datetime.fromisoformat(moment) - (now or datetime.now(UTC))).total_seconds()
    return f"about {output.duration(max(0.0, left))}"


def status_line(batch: Batch) -> str:
    """What matters most first: the end may be cut off."""
    counts = batch.get("counts") or {}
    cost = output.money(batch.get("cost"), batch.get("currency", "USD"))
    figures = ", ".join(f"{counts[name]} {name}" for name, _ in COUNTS if counts.get(name))
    return " | ".join(part for part in (str(batch["status"]), figures, f"of {counts.get('total', '?')}", cost, remaining(batch)) if part)


def _screen(as_json: bool) -> AbstractContextManager[Callable[[Batch], None]]:
    if as_json:
        return nullcontext(output.print_json_line)
    if sys.stdout.isatty() and not output.stdout().is_dumb_terminal:
        return LiveBatch()
    return nullcontext(lambda batch: output.note(status_line(batch)))


class LiveBatch(AbstractContextManager[Any]):
    """A bar in the colours of what its rows are, and the figures below it, drawn anew."""

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

        return Group(
            colours_of(batch, output.stdout().width - 8), Text(output.clean(status_line(batch)), no_wrap=True, overflow="ellipsis")
        )


def colours_of(batch: Batch, width: int) -> Any:
    """The bar: as much of each colour as there are rows of it, and the rest empty."""
    from rich.text import Text

    counts, made = batch.get("counts") or {}, Text()
    total, room, passed, drawn = max(1, counts.get("total") or 1), max(10, width), 0, 0
    for name, colour in COUNTS[:4]:
        passed += counts.get(name) or 0
        end = room * passed // total
        made.append("#" * (end - drawn), colour)
        drawn = end
    made.append("-" * (room - drawn), "dim")
    return made.append(f" {batch.get('progress_percentage') or 0:3.0f}%")
