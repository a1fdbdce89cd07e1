"""How things look: for people on a terminal, without colour in a pipe, as JSON for scripts.

What was asked for goes to stdout, everything said about it to stderr, so that a pipe carries the answer and nothing else.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cli.errors import Problem, Refused

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

COLOURS = {
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
WIDTH_OF_A_PIPE = 200
UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def stdout() -> Console:
    return _console(stderr=False)


def stderr() -> Console:
    return _console(stderr=True)


def clean(text: str) -> str:
    """What a model wrote, fit for a terminal: an escape sequence in it must not move the cursor or set the title."""
    return UNSAFE.sub("\ufffd", text.replace("\t", "    "))


def print_json(value: Any) -> None:
    """Indented for a person who looks, and for `jq` all the same."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def print_json_line(value: Any) -> None:
    """One line, at once: for a reader that follows."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def note(message: str) -> None:
    """Something about the answer, for whoever sits there."""
    stderr().print(message, style="dim", markup=False, soft_wrap=True)


def print_problem(problem: Problem, as_json: bool) -> None:
    if as_json:
        sys.stderr.write(json.dumps(problem.as_json(), ensure_ascii=False) + "\n")
        return
    console = stderr()
    console.print(clean(problem.message), style="bold red", markup=False, soft_wrap=True)
    if isinstance(problem, Refused):
        for detail in problem.details:
            console.print(f"  {clean(str(detail.get('path')))}: {clean(str(detail.get('message')))}", markup=False, soft_wrap=True)
        if problem.request_id:
            console.print(f"  request {problem.request_id}", style="dim", markup=False)
    if problem.hint:
        console.print(problem.hint, markup=False, soft_wrap=True)


def status_text(status: str) -> Any:
    from rich.text import Text

    return Text(status, style=COLOURS.get(status, ""))


def print_fields(pairs: Iterable[tuple[str, Any]]) -> None:
    """Names and values below each other; what is unknown is left out."""
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs:
        if value is not None and value != "":
            table.add_row(name, value if hasattr(value, "__rich_console__") else clean(str(value)))
    stdout().print(table)


def table_of(columns: Sequence[str]) -> Table:
    """A table without lines, that fits 80 columns by cutting what is long."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(column, no_wrap=True, overflow="ellipsis")
    return table


def money(amount: Any, currency: str = "USD") -> str | None:
    """`$0.0012`: four digits, more where there would be nothing to see."""
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
    """In a pipe there is no window to fit, so nothing is cut to 80 columns, unless COLUMNS asks for it."""
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = WIDTH_OF_A_PIPE
    return console
