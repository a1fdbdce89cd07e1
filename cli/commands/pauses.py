"""Commands that pause and resume jobs, and show the queues."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from urllib.parse import quote

import typer

from cli import output
from cli.errors import UsageError
from cli.listing import Listing
from cli.session import Json, session
from cli.usage import text

SCOPES = "all, tenant:NAME, type:NAME, lane:NAME, queue:TYPE:LANE, batch_..., job_..."
UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
ID = re.compile(r"(job|batch|pause)_[A-Za-z0-9]{1,100}")
LANES = ("urgent", "high", "normal", "low")

Scope = Annotated[str, typer.Argument(metavar="SCOPE", help=f"What: {SCOPES}.", show_default=False, callback=text)]
Tenant = Annotated[str | None, typer.Option(help="Of this tenant; for keys of all tenants.", show_default=False)]


@dataclass(frozen=True, slots=True)
class Target:
    """What a scope names: one thing by its id, or what jobs have in common."""

    kind: str  # job, batch, pause or queue
    id: str = ""
    fields: dict[str, str] | None = None  # tenant, type and lane, of a queue

    @property
    def queue(self) -> str:
        """The name of the queue in the address of the API."""
        fields = self.fields or {}
        lane = f":{fields['lane']}" if "lane" in fields else ""
        return quote(f"{fields.get('type', '*')}{lane}", safe=":*")


def pause(
    ctx: typer.Context,
    scope: Scope,
    reason: Annotated[str | None, typer.Option("--reason", "-r", help="Why; people see it.", show_default=False)] = None,
    until: Annotated[str | None, typer.Option(help="It ends at this time: 2026-11-22T09:30:00Z.", show_default=False)] = None,
    lasting: Annotated[str | None, typer.Option("--for", help="It ends after this time: 90s, 30m, 2h, 1d.", show_default=False)] = None,
    tenant: Tenant = None,
    replace: Annotated[bool, typer.Option("--replace", help="Change the reason and the end of a pause that there is.")] = False,
    as_json: Json = False,
) -> None:
    """Pause jobs: none that has not begun starts until they are resumed, or the pause ends.

    \b
    headrace pause type:export --reason "the disk is full" --for 2h
    headrace pause queue:export:low --reason "after the night run"
    headrace pause batch_01J...
    headrace pause job_01J...
    """
    target, end = target_of(scope, tenant), _end(until, lasting)
    body = {name: value for name, value in (("reason", reason), ("until", end), ("replace", replace)) if value}
    if target.kind == "pause":
        raise UsageError(f"{scope} is the id of a pause.", f"Scopes: {SCOPES}.")
    if target.kind == "job":
        if replace:
            raise UsageError("--replace is not for a job.", "Resume it first.")
        _print_job(session(ctx).api.post(f"/jobs/{target.id}/pause", body), as_json)
    elif target.kind == "batch":
        _print_pause(session(ctx).api.post(f"/batches/{target.id}/pause", body), as_json)
    elif reason is None:
        raise UsageError("Say why: --reason TEXT.", f'headrace pause {scope} --reason "the disk is full"')
    else:
        _print_pause(session(ctx).api.post("/pauses", {"scope": target.fields or {}, **body}), as_json)


def resume(ctx: typer.Context, scope: Scope, tenant: Tenant = None, as_json: Json = False) -> None:
    """Resume what was paused. Its jobs start in their order, some at a time.

    \b
    headrace resume type:export
    headrace resume pause_4039a3c336b79693ae313e74
    """
    target, api = target_of(scope, tenant), session(ctx).api
    if target.kind == "job":
        _print_job(api.post(f"/jobs/{target.id}/resume"), as_json)
    elif target.kind == "batch":
        _print_resumed(api.post(f"/batches/{target.id}/resume"), as_json)
    elif target.kind == "pause":
        query = {"tenant": tenant} if tenant else {}
        _print_pause(api.request_json("DELETE", f"/pauses/{target.id}", query=query), as_json)
    else:
        body = {"tenant": target.fields["tenant"]} if target.fields and "tenant" in target.fields else {}
        _print_resumed(api.post(f"/queues/{target.queue}/resume", body), as_json)


def queues(
    ctx: typer.Context,
    tenant: Tenant = None,
    show_all: Annotated[bool, typer.Option("--all", help="Show also the queues that are not paused.")] = False,
    as_json: Json = False,
) -> None:
    """Show what is paused, by whom and why.

    \b
    headrace queues
    headrace queues --all
    """
    api = session(ctx).api
    found, pauses = api.get("/queues", tenant=tenant), api.get("/pauses", tenant=tenant)
    if as_json:
        output.print_json({"queues": found["data"], "pauses": pauses["data"], "next_cursor": pauses.get("next_cursor")})
        return
    if pauses["data"]:
        _print_pauses(pauses["data"])
    else:
        output.note("Nothing is paused.")
    if pauses.get("next_cursor"):
        output.note("There are more pauses, of other tenants: give --tenant.")
    rows = [row for row in found["data"] if show_all or row.get("paused")]
    if rows:
        _print_queues(rows)


def target_of(scope: str, tenant: str | None) -> Target:
    """What a scope on the command line names.

    Raises:
        UsageError: it names nothing.
    """
    kind, _, rest = scope.partition(":")
    named = rest if kind == "batch" else scope
    if (match := ID.fullmatch(named)) is not None:
        return Target(match.group(1), named)
    own = {"tenant": tenant} if tenant else {}
    match scope.split(":"):
        case ["all"]:
            return Target("queue", fields=own)
        case ["tenant", *_] if rest and tenant in (None, rest):
            return Target("queue", fields={"tenant": rest})
        case ["type", str(name)] if name:
            return Target("queue", fields={**own, "type": name})
        case ["lane", str(lane)] if lane in LANES:
            return Target("queue", fields={**own, "lane": lane})
        case ["queue", str(name), str(lane)] if name and lane in LANES:
            return Target("queue", fields={**own, "type": name, "lane": lane})
    raise UsageError(f"{output.clean(scope)} is no scope.", f"Scopes: {SCOPES}. Lanes: {', '.join(LANES)}.")


def _end(until: str | None, lasting: str | None) -> str | None:
    if until is not None and lasting is not None:
        raise UsageError("--until and --for say the same; give one of them.")
    if lasting is None:
        return until
    match = re.fullmatch(r"([0-9]{1,9})([smhd])", lasting)
    if match is None or int(match.group(1)) * UNITS[match.group(2)] > 400 * UNITS["d"]:
        raise UsageError(f"--for {output.clean(lasting)} is no duration.", "Write it as 90s, 30m, 2h or 1d, at most a year.")
    moment = datetime.now(UTC) + timedelta(seconds=int(match.group(1)) * UNITS[match.group(2)])
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _print_job(answer: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.print_json(answer)
        return
    paused = answer.get("paused") or {}
    fields = [("job", answer.get("job_id")), ("status", output.status_text(str(answer.get("status"))))]
    output.print_fields([*fields, ("paused by", paused.get("by")), ("reason", paused.get("reason")), ("until", paused.get("until"))])


def _print_pause(answer: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.print_json(answer)
    else:
        _print_pauses([answer])


def _print_resumed(answer: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.print_json(answer)
    elif answer.get("resumed"):
        _print_pauses(answer.get("ended") or [])
    else:
        output.note("It was not paused.")


def _print_pauses(rows: list[dict[str, Any]]) -> None:
    columns = ["pause", "scope", "tenant", "by", "since", "until", "reason"]
    table = Listing(columns, whole=["pause", "scope"], spare=["since", "by", "tenant", "reason", "until"])
    for row in rows:
        author = row.get("by") or ("the operator" if row.get("by_operator") else "")
        cells = (row.get("pause_id"), row.get("name"), row.get("tenant") or "everybody", author)
        ends = row.get("until") or "it is resumed"
        table.add_row(*cells, output.ago(row.get("paused_at")), ends, row.get("reason") or "")
    table.print()


def _print_queues(rows: list[dict[str, Any]]) -> None:
    table = Listing(["queue", "paused by", "held by it", "messages"], whole=["queue"], spare=["messages", "held by it"])
    for row in rows:
        held = "" if row.get("held_by_pause") is None else f"{row['held_by_pause']}{' or more' if row.get('held_more') else ''}"
        messages = "" if row.get("messages") is None else f"{row['messages']} in {row.get('queue')}"
        name = (row.get("pause") or {}).get("name") or ""
        table.add_row(row.get("name"), name, held, messages)
    table.print()
