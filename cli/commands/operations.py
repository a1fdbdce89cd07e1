"""Commands for operators: system health and the circuit breakers of the models."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from cli import output
from cli.errors import Exit
from cli.listing import Listing
from cli.session import Json, session
from cli.usage import text

Model = Annotated[str, typer.Argument(metavar="MODEL", help="The OpenAI model.", show_default=False, callback=text)]
Reason = Annotated[str | None, typer.Option(help="A reason to show with the open circuit.", show_default=False)]
COLOURS = {
    "healthy": "green",
    "ok": "green",
    "degraded": "yellow",
    "unhealthy": "red",
    "closed": "green",
    "half_open": "yellow",
    "open": "red",
    "open for you": "red",
}

circuits = typer.Typer(invoke_without_command=True, rich_markup_mode=None, no_args_is_help=False)


def health(ctx: typer.Context, as_json: Json = False) -> None:
    """Show whether the API is up and, with a key, the health of each component.

    Exits with 1 if it is unhealthy.
    """
    api, target = session(ctx).api, session(ctx).target
    answer = api.get("/health")
    system = api.get("/health/system") if target.key else None
    if as_json:
        output.print_json(answer | ({"system": system} if system else {}))
    else:
        rows = [
            ("api", target.api_url),
            *((name, answer.get(name)) for name in ("stage", "time")),
            ("answers", _coloured(answer.get("status"))),
        ]
        output.print_fields([*rows, *_parts(system)])
        _print_findings(system or {})
    if answer.get("status") != "ok" or (system or {}).get("status") == "unhealthy":
        raise typer.Exit(Exit.FAILED)


@circuits.callback()
def list_circuits(ctx: typer.Context, as_json: Json = False) -> None:
    """List the circuit breakers of the models. While a circuit is open, jobs of its model wait.

    \b
    headrace circuits
    headrace circuits open gpt-4o-mini --reason "moving to another account"
    headrace circuits close gpt-4o-mini
    """
    if ctx.invoked_subcommand is not None:
        return
    page = session(ctx).api.get("/circuits")
    if as_json:
        output.print_json(page)
    elif not page["data"]:
        output.note("All circuits are closed; there were no recent failures.")
    else:
        _print_circuits(page["data"])


@circuits.command("open")
def open_circuit(ctx: typer.Context, model: Model, reason: Reason = None, as_json: Json = False) -> None:
    """Open the circuit of a model: its jobs wait until the circuit is closed. For admins of all tenants."""
    _print_circuit(session(ctx).api.post(f"/circuits/{quote(model, safe='')}/open", {"reason": reason} if reason else {}), as_json)


@circuits.command("close")
def close_circuit(ctx: typer.Context, model: Model, as_json: Json = False) -> None:
    """Close the circuit of a model: its jobs run again. For admins of all tenants."""
    _print_circuit(session(ctx).api.post(f"/circuits/{quote(model, safe='')}/close", {}), as_json)


def _print_circuit(circuit: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.print_json(circuit)
    else:
        _print_circuits([circuit])


def _print_circuits(rows: list[dict[str, Any]]) -> None:
    table = Listing(
        ["model", "circuit", "reason", "failures", "trips", "until"],
        whole=("model", "circuit", "failures", "trips", "until"),
        spare=("trips", "failures", "until", "reason"),
    )
    for circuit in rows:
        until = "closed by hand" if circuit.get("forced") else circuit.get("until") or ""
        table.add_row(
            output.clean(str(circuit["model"])),
            _coloured("open for you" if circuit.get("scope") == "tenant" else circuit["state"]),
            output.clean(str(circuit.get("reason") or "")),
            str(circuit.get("failures") or ""),
            str(circuit.get("trips") or ""),
            until,
        )
    table.print()


def _parts(system: dict[str, Any] | None) -> list[tuple[str, Any]]:
    if system is None:
        return []
    parts = [(name.replace("_", " "), _coloured(part.get("status"))) for name, part in (system.get("parts") or {}).items()]
    return [("system", _coloured(system.get("status"))), *parts]


def _print_findings(system: dict[str, Any]) -> None:
    console = output.stdout()
    for title in ("issues", "recommendations"):
        if system.get(title):
            console.print(f"\n{title}", style="dim")
            for line in system[title]:
                console.print(f"  {output.clean(str(line))}", markup=False, soft_wrap=True)


def _coloured(status: Any) -> Any:
    from rich.text import Text

    return Text(str(status), style=COLOURS.get(str(status), ""))
