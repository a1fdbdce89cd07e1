"""Printing: with colour on a terminal, without it in a pipe, as JSON for scripts.

The answer goes to stdout and notes about it go to stderr, so that a pipe carries only the answer.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cli.errors import ApiError, CliError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

STATUS_COLOURS = {
    "completed": "green",
    "completed_with_failures": "yellow",
    "processing": "cyan",
    "queued": "blue",
    "retrying": "yellow",
    "held": "yellow",
    "incomplete": "yellow",
    "failed": "red",
    "cancelled": "magenta",
    "expired": "magenta",
}
PIPE_WIDTH = 200
CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def stdout() -> Console:
    return _console(stderr=False)


def stderr() -> Console:
    return _console(stderr=True)


def clean(text: str) -> str:
    """Text without control characters, which could move the cursor or set the terminal's title."""
    return CONTROL_CHARACTERS.sub("\ufffd", text.replace("\t", "    "))


def print_json(value: Any) -> None:
    """Print indented JSON."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def print_json_line(value: Any) -> None:
    """Print one line of JSON and flush it, so that a program that follows gets it at once."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def note(message: str) -> None:
    """Print a note about the answer to stderr."""
    stderr().print(message, style="dim", markup=False, soft_wrap=True)


def print_error(error: CliError, as_json: bool) -> None:
    """Print an error to stderr, with its details, request id and hint."""
    if as_json:
        sys.stderr.write(json.dumps(error.as_json(), ensure_ascii=False) + "\n")
        return
    console = stderr()
    console.print(clean(error.message), style="bold red", markup=False, soft_wrap=True)
    if isinstance(error, ApiError):
        for detail in error.details:
            console.print(f"  {clean(str(detail.get('path')))}: {clean(str(detail.get('message')))}", markup=False, soft_wrap=True)
        if error.request_id:
            console.print(f"  request {error.request_id}", style="dim", markup=False)
    if error.hint:
        console.print(error.hint, markup=False, soft_wrap=True)


def status_text(status: str) -> Any:
    from rich.text import Text

    return Text(status, style=STATUS_COLOURS.get(status, ""))


def print_fields(pairs: Iterable[tuple[str, Any]]) -> None:
    """Print one name and value per line. Pairs without a value are left out."""
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs:
        if value is not None and value != "":
            table.add_row(name, value if hasattr(value, "__rich_console__") else clean(str(value)))
    stdout().print(table)


def new_table(columns: Sequence[str]) -> Table:
    """A table without borders that cuts off long cells to fit the terminal."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(column, no_wrap=True, overflow="ellipsis")
    return table


def money(amount: Any, currency: str = "USD") -> str | None:
    """`$0.0012`: four decimal places, six for amounts below 0.001."""
    if amount is None:
        return None
    value = float(amount)
    digits = 4 if value == 0 or value >= 0.001 else 6
    return f"${value:.{digits}f}" if currency == "USD" else f"{value:.{digits}f} {currency}"


def duration(seconds: Any) -> str | None:
    """`0.4 s`, `12 s`, `3 m 20 s`, `2 h 5 m`, `4 d 3 h`."""
    if seconds is None:
        return None
    value = float(seconds)
    if value < 10:
        return f"{value:.1f} s"
    if value < 90:
        return f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 90:
        return f"{minutes} m {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} m" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def ago(moment: str | None, now: datetime | None = None) -> str:
    if not moment:
        return ""
    return f"{duration(max(0.0, ((now or datetime.now(UTC)) - datetime.fromisoformat(moment)).total_seconds()))} ago"


def _console(stderr: bool) -> Console:
    """A console.

    In a pipe it is wide, so that nothing is cut to 80 columns, unless COLUMNS is set.
    """
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPE_WIDTH
    return console
