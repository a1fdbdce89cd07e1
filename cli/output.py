"""Printing: with colour on a terminal, without it in a pipe, as JSON for scripts.

The answer goes to stdout and notes about it go to stderr, so that a pipe carries only the answer.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

from cli.checks.redaction import redact
from cli.checks.text_input import shown
from cli.errors import ApiError, CliError, HelpShown

if TYPE_CHECKING:
    from rich.console import Console

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
MAX_WIDTH = 1_000
MAX_MESSAGE_CHARS = 4_000  # of a sentence of the server; whoever answers with a book is not the API
CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def stdout() -> Console:
    return _console(stderr=False)


def stderr() -> Console:
    return _console(stderr=True)


def clean(text: str) -> str:
    """Text without control characters, which could move the cursor or set the terminal's title.

    Bytes of a file name that are not UTF-8 are written as \\xe9.
    """
    return CONTROL_CHARACTERS.sub("\ufffd", shown(text).replace("\t", "    "))


def print_json(value: Any) -> None:
    """Print indented JSON."""
    sys.stdout.write(json_text(value, sys.stdout, indent=2) + "\n")


def print_json_line(value: Any) -> None:
    """Print one line of JSON and flush it, so that a program that follows gets it at once."""
    sys.stdout.write(json_text(value, sys.stdout) + "\n")
    sys.stdout.flush()


def json_text(value: Any, stream: TextIO, indent: int | None = None) -> str:
    """JSON that this stream can carry: where its encoding lacks a character, all are escaped in the way of JSON."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    try:
        text.encode(getattr(stream, "encoding", None) or "utf-8")
    except (UnicodeError, LookupError):
        return json.dumps(value, indent=indent)
    return text


def write_bytes(content: Iterable[bytes]) -> None:
    """Write bytes to stdout, as they are."""
    sys.stdout.flush()
    for chunk in content:
        sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()


def note(message: str) -> None:
    """Print a note about the answer to stderr."""
    stderr().print(clean(redact(message)), style="dim", soft_wrap=True)


def print_error(error: CliError, as_json: bool) -> None:
    """Print an error to stderr, with its details, request id and hint."""
    if as_json:
        sys.stderr.write(redact(json_text(error.as_json(), sys.stderr)) + "\n")
        return
    console = stderr()

    def show(text: str, style: str | None = None) -> None:
        console.print(clean(redact(text[:MAX_MESSAGE_CHARS])), style=style, soft_wrap=not console.is_terminal)

    show(error.message, None if isinstance(error, HelpShown) else "bold red")
    if isinstance(error, ApiError):
        for detail in error.details:
            show(f"  {detail.get('path')}: {detail.get('message')}")
        if error.request_id:
            show(f"  request {error.request_id}", "dim")
    if error.hint:
        show(error.hint)


def status_text(status: Any) -> Any:
    from rich.text import Text

    return Text(clean(str(status)), style=STATUS_COLOURS.get(str(status), ""))


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


def number(value: Any) -> float | None:
    """A number, or text that is one, as the API writes costs; None for anything else, such as NaN."""
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def money(amount: Any, currency: str = "USD") -> str | None:
    """`$0.0012`: four decimal places, six for amounts below 0.001. None if it is no number."""
    value = number(amount)
    if value is None:
        return None
    digits = 4 if value == 0 or value >= 0.001 else 6
    return f"${value:.{digits}f}" if currency == "USD" else f"{value:.{digits}f} {currency}"


def limit(shape: Any) -> str | None:
    """A limit as the API writes it: `500 requests a minute`. None if it is none."""
    value = number(shape.get("value")) if isinstance(shape, dict) else None
    if value is None:
        return None
    unit = "jobs at once" if shape.get("kind") == "concurrency" else f"{shape.get('kind')} a minute"
    return f"{value:,.0f} {unit}"


def duration(seconds: Any) -> str | None:
    """`0.4 s`, `12 s`, `3 m 20 s`, `2 h 5 m`, `4 d 3 h`. None if it is no number."""
    value = number(seconds)
    if value is None:
        return None
    if value < 10:
        return f"{value:.1f} s"
    if value < 90:
        return f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 90:
        return f"{minutes} m {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} m" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def ago(moment: Any, now: datetime | None = None) -> str:
    """`12 s ago`; empty if there is no moment, or none that can be read."""
    seconds = seconds_until(moment, now)
    return "" if seconds is None else f"{duration(max(0.0, -seconds))} ago"


def seconds_until(moment: Any, now: datetime | None = None) -> float | None:
    """Seconds until a moment as the API writes it; None if it cannot be read."""
    try:
        return (datetime.fromisoformat(moment) - (now or datetime.now(UTC))).total_seconds()
    except (TypeError, ValueError, OverflowError):
        return None


def _console(stderr: bool) -> Console:
    """A console. It takes no text for markup: brackets and `:smile:` in a prompt are shown as they are.

    In a pipe it is wide, so that nothing is cut to 80 columns, unless COLUMNS is set.
    """
    from rich.console import Console

    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES") or _is_size(value)}
    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False, _environ=environment)
    if not console.is_terminal and "COLUMNS" not in environment:
        console.width = PIPE_WIDTH
    return console


def _is_size(text: str) -> bool:
    """Whether a variable holds a size of a terminal; programs set COLUMNS to 0 or to nothing where there is none."""
    return text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= MAX_WIDTH
