"""Commands that show one job: watch, status, progress, result, text."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from cli import output
from cli.api import Api
from cli.errors import Exit, exit_for
from cli.listing import Listing
from cli.reducer import TERMINAL, TextAssembler
from cli.session import JobId, Json, follow_job, session


def watch(ctx: typer.Context, job: JobId, as_json: Json = False) -> None:
    """Watch a job until it ends, from its first token on.

    \b
    headrace watch job_01J...
    headrace watch job_01J... > answer.txt        the text alone, as it is written
    headrace watch job_01J... --json              one event per line
    """
    api = session(ctx).api
    raise typer.Exit(show_end(api, job, follow_job(api, job, as_json), as_json))


def status(ctx: typer.Context, job: JobId, as_json: Json = False) -> None:
    """Show the status of a job. Exits with 0 while it runs and when it is completed."""
    state = session(ctx).api.get(f"/jobs/{job}/status")
    if as_json:
        output.print_json(state)
    else:
        output.print_fields(_state_fields(state))
    if state["status"] in TERMINAL:
        raise typer.Exit(exit_for(state["status"]))


def explain(ctx: typer.Context, job: JobId, as_json: Json = False) -> None:
    """Tell what a job waited for, what was tried and decided, what it waits for now, or how it ended.

    \b
    headrace explain job_01J...
    headrace explain job_01J... --json | jq '.events[] | select(.what == "wait")'
    """
    story = session(ctx).api.get(f"/jobs/{job}/explain")
    if as_json:
        output.print_json(story)
        return
    output.print_fields([(_moment(event.get("at")), event["sentence"]) for event in story["events"]])


def progress(ctx: typer.Context, job: JobId, as_json: Json = False) -> None:
    """Show stages, milestones and figures of a job."""
    state = session(ctx).api.get(f"/jobs/{job}/progress")
    if as_json:
        output.print_json(state)
        return
    speed = output.number(state.get("tokens_per_second"))
    output.print_fields(
        [
            *_state_fields(state),
            ("tokens", _fraction(state.get("tokens_received"), state.get("estimated_total_tokens"))),
            ("speed", f"{speed:.0f} tokens per second" if speed else None),
            ("cost so far", output.money(state.get("cost_so_far"))),
        ]
    )
    _print_steps("stage", [(s["name"], s.get("status"), output.duration(s.get("duration_seconds"))) for s in state.get("stages") or []])
    milestones = state.get("milestones") or []
    _print_steps("milestone", [(m["name"], m.get("description"), _percent(m.get("progress_at_milestone"))) for m in milestones])


def result(ctx: typer.Context, job: JobId, as_json: Json = False) -> None:
    """Print the result of a job: the text to stdout, the figures to stderr.

    \b
    headrace result job_01J... > answer.txt
    headrace result job_01J... --json | jq .parsed
    """
    answer = session(ctx).api.get(f"/jobs/{job}/result")
    if answer["status"] not in TERMINAL:
        if as_json:
            output.print_json(answer)
        else:
            output.note(f"Not finished: {answer['status']}. See its progress with `headrace watch {job}`.")
        raise typer.Exit(Exit.ENDED_EARLY)
    print_result(answer, as_json)
    raise typer.Exit(exit_for(answer["status"]))


def text(
    ctx: typer.Context,
    job: JobId,
    attempt: Annotated[int | None, typer.Option(help="The attempt; by default the latest.", show_default=False)] = None,
    offset: Annotated[int, typer.Option(help="The first character to print.")] = 0,
    as_json: Json = False,
) -> None:
    """Print the text that a job has written so far."""
    api = session(ctx).api
    page = api.get(f"/jobs/{job}/text", attempt=attempt, offset=offset)
    if as_json:
        output.print_json(page)
        return
    while (written := page["text"]) and not page["done"]:
        _write(written, newline=False)
        page = api.get(f"/jobs/{job}/text", attempt=page["attempt"], offset=page["next_offset"])
    _write(written)


def show_end(api: Api, job_id: str, assembly: TextAssembler, as_json: bool) -> Exit:
    """Print the figures after a watch and return its exit code.

    If the stream has lost text, print the text of the result.
    """
    answer = api.get(f"/jobs/{job_id}/result")
    if assembly.lost and not as_json:
        _write(answer.get("output") or "")
    if not as_json:
        _note_figures(answer)
    return exit_for(answer["status"])


def print_result(answer: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.print_json(answer)
        return
    parsed = answer.get("parsed")
    _write(json.dumps(parsed, indent=2, ensure_ascii=False) if parsed is not None else answer.get("output") or "")
    _note_figures(answer)


def _write(content: str, newline: bool = True) -> None:
    """Print text: unchanged into a pipe, without control characters on a terminal.

    `newline` ends the last line if needed.
    """
    shown = output.clean(content) if sys.stdout.isatty() else content
    sys.stdout.write(shown + ("\n" if newline and not shown.endswith("\n") else ""))
    sys.stdout.flush()


def _note_figures(answer: dict[str, Any]) -> None:
    usage, timings = answer.get("usage") or {}, answer.get("timings") or {}
    parts = [
        answer["status"],
        answer.get("model"),
        "answered without OpenAI: no key is configured" if answer.get("fallback") else None,
        f"{usage['output_tokens']} tokens" if usage.get("output_tokens") else None,
        output.money(answer.get("cost")),
        f"cached answer of {answer['cache']['job_id']}" if (answer.get("cache") or {}).get("hit") else None,
        output.duration(timings.get("total")),
    ]
    output.note(" | ".join(str(part) for part in parts if part))
    if error := answer.get("error"):
        output.note(
            f"{error.get('code')}: {output.clean(str(error.get('message') or ''))} {output.clean(str(error.get('suggestion') or ''))}"
        )
    if message := (answer.get("incomplete_details") or {}).get("message"):
        output.note(output.clean(str(message)))


def _state_fields(state: dict[str, Any]) -> list[tuple[str, Any]]:
    return [
        ("job", state["job_id"]),
        ("status", output.status_text(state["status"])),
        ("reason", state.get("reason")),
        ("waits for", state.get("cause")),
        ("limit", output.limit(state.get("limit"))),
        ("starts", state.get("estimated_start_at") if state.get("status") == "held" else None),
        ("attempt", state.get("attempt")),
        ("stage", state.get("stage")),
        ("progress", _percent(state.get("progress_percentage"))),
        ("position", state.get("queue_position")),
        ("remaining", _remaining(state)),
    ]


def _moment(at: Any) -> str:
    """A time of the API without its fraction; empty for what holds now."""
    return output.clean(str(at))[:19].replace("T", " ") if at else ""


def _print_steps(name: str, rows: list[tuple[str, Any, Any]]) -> None:
    if not rows:
        return
    table = Listing([name, "", ""], whole=(name,))
    for row in rows:
        table.add_row(*(output.clean(str(cell)) if cell is not None else "" for cell in row))
    table.print()


def _remaining(state: dict[str, Any]) -> str | None:
    """The expected remaining time, with its likely range."""
    expected = output.duration(state.get("estimated_seconds_remaining") or None)
    low, high = state.get("estimated_seconds_remaining_range") or (None, None)
    if not expected or high is None or low == high:
        return expected
    return f"{expected}, between {output.duration(low)} and {output.duration(high)}"


def _percent(value: Any) -> str | None:
    percentage = output.number(value)
    return None if percentage is None else f"{percentage:.0f}%"


def _fraction(part: Any, whole: Any) -> str | None:
    if not part:
        return None
    return f"{part} of about {whole}" if whole else str(part)
