"""What the API is, and who one is to it."""

from __future__ import annotations

import sys
from contextlib import closing
from typing import Annotated, Any

import typer

from cli import output
from cli.api import Api
from cli.session import Json, session
from cli.target import Target, write_login


def types(ctx: typer.Context, as_json: Json = False) -> None:
    """The kinds of work that there are."""
    answer = session(ctx).api.get("/job-types")
    if as_json:
        output.print_json(answer)
        return
    table = output.table_of(["type", "model", "what it does"])
    table.columns[2].no_wrap, table.columns[2].overflow = False, "fold"
    for kind in answer["data"]:
        name = kind.get("name") or kind.get("job_type")
        table.add_row(
            str(name), str(kind.get("default_model") or ""), output.clean(str(kind.get("description") or kind.get("title") or ""))
        )
    output.stdout().print(table)


def whoami(ctx: typer.Context, as_json: Json = False) -> None:
    """Tenant, user and role of the key, and what it may still do."""
    answer = session(ctx).api.get("/me")
    if as_json:
        output.print_json(answer)
    else:
        output.print_fields([("api", session(ctx).target.api_url), *_plain(answer)])


def login(
    ctx: typer.Context,
    api_url: Annotated[str | None, typer.Option(help="The API's address, with its stage.", show_default=False)] = None,
    key: Annotated[str | None, typer.Option(help="The key, hr_...; asked for if it is not given.", show_default=False)] = None,
    ws_url: Annotated[str | None, typer.Option(help="The WebSocket's address; the API tells it too.", show_default=False)] = None,
) -> None:
    """Keep an address and a key for later, once they are known to work.

    \b
    headrace login --api-url https://abc123.execute-api.eu-central-1.amazonaws.com/api
    """
    current = session(ctx)
    address = api_url or current.api_url or typer.prompt("Address of the API")
    secret = key or current.key or _ask_key()
    target = Target(address.rstrip("/"), secret)
    with closing(Api(target)) as api:
        me = api.get("/me")
    path = write_login(Target(target.api_url, target.key, ws_url or me.get("websocket")))
    output.note(f"Logged in as {me.get('user')} ({me.get('role')}) of {me.get('tenant')}; kept in {path}")


def _ask_key() -> str:
    """Not shown while it is typed; from a pipe it is a line."""
    if sys.stdin.isatty():
        return str(typer.prompt("Key", hide_input=True))
    return sys.stdin.readline().strip()


def _plain(answer: dict[str, Any]) -> list[tuple[str, Any]]:
    """What is a plain value, below its name; what is nested, a level deep."""
    found: list[tuple[str, Any]] = []
    for name, value in answer.items():
        if isinstance(value, dict):
            found += [(f"{name} {inner}".replace("_", " "), deep) for inner, deep in value.items()]
        elif name != "success":
            found.append((name.replace("_", " "), ", ".join(map(str, value)) if isinstance(value, list) else value))
    return found
