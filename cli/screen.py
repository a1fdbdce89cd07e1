"""What a watch looks like while it goes on: text above and a status line below on a terminal, text alone in a pipe, or JSON lines."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from cli import output
from cli.reducer import Appended, Ask, Finished, Frame, Lost, MilestoneReached, StartedOver, StateChanged, Trimmed
from cli.rows import Rows
from cli.watch import Interrupted, Listening, Told

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

KINDS = {
    Appended: "appended",
    StartedOver: "started_over",
    Ask: "ask",
    StateChanged: "state",
    MilestoneReached: "milestone",
    Trimmed: "trimmed",
    Lost: "lost",
    Finished: "finished",
    Listening: "listening",
    Interrupted: "interrupted",
}


class Screen(AbstractContextManager["Screen"], Protocol):
    """Whoever is told the outcomes of a watch."""

    def __call__(self, told: Told) -> None: ...


def screen_for(as_json: bool) -> Screen:
    """What fits where stdout goes."""
    if as_json:
        return JsonScreen()
    return LiveScreen() if sys.stdout.isatty() and not output.stdout().is_dumb_terminal else PlainScreen()


class JsonScreen(AbstractContextManager["JsonScreen"]):
    """One outcome a line: `{"kind": "appended", "text": "..."}`."""

    def __call__(self, told: Told) -> None:
        fields = {name: getattr(told, name) for name in told.__slots__ if not (name == "frame" and isinstance(told, Appended))}
        output.print_json_line({"kind": KINDS[type(told)], **fields})

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""


class PlainScreen(AbstractContextManager["PlainScreen"]):
    """The text as it comes on stdout, all else on stderr."""

    def __init__(self) -> None:
        self._wrote = ""
        self._status: str | None = None

    def __call__(self, told: Told) -> None:
        match told:
            case Appended(text):
                self._wrote = text
                sys.stdout.write(text)
                sys.stdout.flush()
            case StartedOver(attempt, reason):
                # What was written cannot be taken back, so a reader of the pipe has to be told there.
                sys.stdout.write(f"\n--- attempt {attempt} starts over{f' ({reason})' if reason else ''} ---\n")
                sys.stdout.flush()
            case StateChanged(status) if status != self._status:
                self._status = status
                output.note(status)
            case Trimmed(length):
                output.note(f"only the first {length} characters are part of the result")
            case Interrupted(way, why):
                output.note(f"{why}; going on by {way}")

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None and self._wrote and not self._wrote.endswith("\n"):
            sys.stdout.write("\n")
            sys.stdout.flush()


class LiveScreen(AbstractContextManager["LiveScreen"]):
    """Whole rows scroll up, the unfinished row and the status line below it are drawn anew."""

    def __init__(self) -> None:
        self._console = output.stdout()
        self._rows = Rows(self._console.width - 1)
        self._state: Frame = {}
        self._milestone: str | None = None
        self._way = ""
        self._began = time.monotonic()
        self._live: Live | None = None

    def __enter__(self) -> LiveScreen:
        from rich.live import Live

        self._live = Live(console=self._console, get_renderable=self._draw, refresh_per_second=8, transient=True, redirect_stdout=False)
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None) -> None:
        if self._live:
            self._live.stop()
        self._print(self._rows.flush())

    def __call__(self, told: Told) -> None:
        match told:
            case Appended(text, frame):
                self._state |= {name: frame[name] for name in ("tokens_received", "progress_percentage") if frame.get(name) is not None}
                self._print(self._rows.feed(output.clean(text)))
            case StartedOver(attempt, reason):
                self._print(self._rows.flush())
                self._say(f"attempt {attempt} starts over{f': {reason}' if reason else ''}")
            case StateChanged(_, frame):
                self._state |= {name: value for name, value in frame.items() if value is not None or name in ("reason", "queue_position")}
            case MilestoneReached(frame):
                self._milestone = output.clean(str(frame.get("name")))
            case Trimmed(length):
                self._say(f"only the first {length} characters are part of the result")
            case Listening(way):
                self._way = way
            case Interrupted(way, why):
                self._say(f"{why}; going on by {way}")

    def _print(self, rows: list[str]) -> None:
        for row in rows:
            self._console.print(row, markup=False, emoji=False, no_wrap=True, overflow="ignore", crop=False)

    def _say(self, message: str) -> None:
        self._console.print(f"--- {message} ---", style="yellow", markup=False)

    def _draw(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        last = [Text(self._rows.unfinished, no_wrap=True)] if self._rows.unfinished else []
        status = Text(" | ".join(status_parts(self._state, self._milestone, time.monotonic() - self._began, self._way)), no_wrap=True)
        status.stylize(output.COLOURS.get(str(self._state.get("status")), ""))
        status.truncate(self._console.width - 1, overflow="ellipsis")
        return Group(*last, Text(""), bar(self._state, self._console.width - 1), status)


def status_parts(state: Frame, milestone: str | None, elapsed: float, way: str) -> list[str]:
    """The status line, what matters most first: the end may be cut off."""
    stage, reason, position = state.get("stage"), state.get("reason"), state.get("queue_position")
    speed, cost, tokens = state.get("tokens_per_second"), state.get("cost_so_far"), state.get("tokens_received")
    parts = [
        str(state.get("status") or "connecting"),
        str(stage) if stage else None,
        str(reason) if reason else None,
        f"position {position}" if position else None,
        milestone,
        f"{tokens} tokens" if tokens else None,
        f"{speed:.0f}/s" if speed else None,
        output.money(cost) if cost else None,
        output.duration(elapsed),
        way or None,
    ]
    return [part for part in parts if part]


def bar(state: Frame, width: int) -> Any:
    """How far it is, as far as that is known."""
    from rich.text import Text

    percentage = min(100.0, float(state.get("progress_percentage") or 0.0))
    room = max(10, width - 6)
    filled = round(room * percentage / 100)
    return Text.assemble(("#" * filled, "green"), ("-" * (room - filled), "dim"), f" {percentage:3.0f}%")
