"""Output of a watch: text and a status line on a terminal, plain text in a pipe, or JSON lines."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from cli import output
from cli.checks.redaction import redact
from cli.line_wrapper import LineWrapper
from cli.reducer import Appended, Finished, Frame, Lost, MilestoneReached, Resubscribe, StartedOver, StateChanged, Trimmed
from cli.watch import Interrupted, Listening, WatchEvent

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

JSON_KINDS = {
    Appended: "appended",
    StartedOver: "started_over",
    Resubscribe: "ask",
    StateChanged: "state",
    MilestoneReached: "milestone",
    Trimmed: "trimmed",
    Lost: "lost",
    Finished: "finished",
    Listening: "listening",
    Interrupted: "interrupted",
}
JSON_KEYS = {"transport": "way", "next_transport": "way", "error": "why"}  # fields that `--json` prints under another name


class Screen(AbstractContextManager["Screen"], Protocol):
    """Shows the events of a watch."""

    def __call__(self, event: WatchEvent) -> None: ...


def screen_for(as_json: bool) -> Screen:
    """The screen that suits stdout."""
    if as_json:
        return JsonScreen()
    return LiveScreen() if sys.stdout.isatty() and not output.stdout().is_dumb_terminal else PlainScreen()


class JsonScreen(AbstractContextManager["JsonScreen"]):
    """Prints one event per line: `{"kind": "appended", "text": "..."}`."""

    def __call__(self, event: WatchEvent) -> None:
        names = [name for name in event.__slots__ if not (name == "frame" and isinstance(event, Appended))]
        fields = {JSON_KEYS.get(name, name): getattr(event, name) for name in names}
        output.print_json_line({"kind": JSON_KINDS[type(event)], **fields})

    def __exit__(self, *_: object) -> None:
        """Do nothing: there is nothing to close."""


class PlainScreen(AbstractContextManager["PlainScreen"]):
    """Prints the text to stdout as it arrives and everything else to stderr."""

    def __init__(self) -> None:
        self._last_text = ""
        self._status: str | None = None

    def __call__(self, event: WatchEvent) -> None:
        match event:
            case Appended(text):
                self._last_text = text
                sys.stdout.write(text)
                sys.stdout.flush()
            case StartedOver(attempt, reason):
                # Text in a pipe cannot be withdrawn, so its reader must see this note on stdout.
                sys.stdout.write(f"\n--- attempt {attempt} starts over{f' ({reason})' if reason else ''} ---\n")
                sys.stdout.flush()
            case StateChanged(status, frame) if status != self._status:
                self._status = status
                output.note(", ".join([status, *_why_held(status, frame)]))
            case Trimmed(length):
                output.note(f"only the first {length} characters are part of the result")
            case Interrupted(next_transport, error):
                output.note(f"{error}; continuing by {next_transport}")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None and self._last_text and not self._last_text.endswith("\n"):
            sys.stdout.write("\n")
            sys.stdout.flush()


class LiveScreen(AbstractContextManager["LiveScreen"]):
    """Scrolls complete lines up and redraws the unfinished line, a bar and a status line."""

    def __init__(self) -> None:
        self._console = output.stdout()
        self._wrapper = LineWrapper(self._console.width - 1)
        self._state: Frame = {}
        self._milestone: str | None = None
        self._transport = ""
        self._started_at = time.monotonic()
        self._live: Live | None = None

    def __enter__(self) -> LiveScreen:
        from rich.live import Live

        self._live = Live(console=self._console, get_renderable=self._draw, refresh_per_second=8, transient=True, redirect_stdout=False)
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live:
            self._live.stop()
        self._print_lines(self._wrapper.flush())

    def __call__(self, event: WatchEvent) -> None:
        match event:
            case Appended(text, frame):
                self._state |= {name: frame[name] for name in ("tokens_received", "progress_percentage") if frame.get(name) is not None}
                self._print_lines(self._wrapper.feed(output.clean(text)))
            case StartedOver(attempt, reason):
                self._print_lines(self._wrapper.flush())
                self._print_note(f"attempt {attempt} starts over{f': {reason}' if reason else ''}")
            case StateChanged(_, frame):
                self._state |= {name: value for name, value in frame.items() if value is not None or name in ("reason", "queue_position")}
            case MilestoneReached(frame):
                self._milestone = output.clean(str(frame.get("name")))
            case Trimmed(length):
                self._print_note(f"only the first {length} characters are part of the result")
            case Listening(transport):
                self._transport = transport
            case Interrupted(next_transport, error):
                self._print_note(f"{error}; continuing by {next_transport}")

    def _print_lines(self, lines: list[str]) -> None:
        for line in lines:
            self._console.print(line, markup=False, emoji=False, no_wrap=True, overflow="ignore", crop=False)

    def _print_note(self, message: str) -> None:
        self._console.print(f"--- {output.clean(redact(message))} ---", style="yellow")

    def _draw(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        unfinished = [Text(self._wrapper.unfinished, no_wrap=True)] if self._wrapper.unfinished else []
        parts = status_parts(self._state, self._milestone, time.monotonic() - self._started_at, self._transport)
        status = Text(" | ".join(parts), no_wrap=True)
        status.stylize(output.STATUS_COLOURS.get(str(self._state.get("status")), ""))
        status.truncate(self._console.width - 1, overflow="ellipsis")
        return Group(*unfinished, Text(""), progress_bar(self._state, self._console.width - 1), status)


def status_parts(state: Frame, milestone: str | None, elapsed: float, transport: str) -> list[str]:
    """The parts of the status line.

    The most important come first, because a narrow terminal cuts off the end.
    """
    stage, reason, position = state.get("stage"), state.get("reason"), state.get("queue_position")
    speed, cost, tokens = output.number(state.get("tokens_per_second")), state.get("cost_so_far"), state.get("tokens_received")
    parts = [
        str(state.get("status") or "connecting"),
        str(stage) if stage else None,
        str(reason) if reason else None,
        *_why_held(str(state.get("status")), state)[1:],
        f"position {position}" if position else None,
        milestone,
        f"{tokens} tokens" if tokens else None,
        f"{speed:.0f}/s" if speed else None,
        output.money(cost) if cost else None,
        output.duration(elapsed),
        transport or None,
    ]
    return [output.clean(part) for part in parts if part]


def _why_held(status: str, frame: Frame) -> list[str]:
    """Why a job is held, its limit, and when it probably starts; nothing for another status."""
    if status != "held":
        return []
    starts_in = output.seconds_until(frame.get("estimated_start_at"))
    starts = f"starts in {output.duration(max(0.0, starts_in))}" if starts_in is not None else None
    limit = output.limit(frame.get("limit"))
    return [str(frame.get("reason") or "unknown reason"), *(part for part in (limit, starts) if part)]


def progress_bar(state: Frame, width: int) -> Any:
    """A bar of the progress percentage; empty while it is unknown."""
    from rich.text import Text

    percentage = max(0.0, min(100.0, output.number(state.get("progress_percentage")) or 0.0))
    cells = max(10, width - 6)
    filled = round(cells * percentage / 100)
    return Text.assemble(("#" * filled, "green"), ("-" * (cells - filled), "dim"), f" {percentage:3.0f}%")
