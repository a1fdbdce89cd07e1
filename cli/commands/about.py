"""Commands about the deployment and the key: job types, `whoami`, `login`."""

from __future__ import annotations

import re
import sys
from contextlib import closing
from typing import Annotated, Any

import typer

from cli import output
from cli.api import Api
from cli.checks.text_input import read_stdin_line
from cli.errors import UsageError
from cli.listing import Listing
from cli.session import Json, session
from cli.target import Target, checked_address, checked_key, write_login


def types(ctx: typer.Context, as_json: Json = False) -> None:
    """List the job types."""
    answer = session(ctx).api.get("/job-types")
    if as_json:
        output.print_json(answer)
        return
    table = Listing(["type", "model", "what it does"], whole=("type", "model"), folded=("what it does",), spare=("model",))
    for job_type in answer["data"]:
        name = job_type.get("name") or job_type.get("job_type")
        description = str(job_type.get("description") or job_type.get("title") or "")
        table.add_row(str(name), str(job_type.get("default_model") or ""), output.clean(description))
    table.print()


def whoami(ctx: typer.Context, as_json: Json = False) -> None:
    """Show tenant, user, role and limits of the key."""
    answer = session(ctx).api.get("/me")
    if as_json:
        output.print_json(answer)
    else:
        output.print_fields([("api", session(ctx).target.api_url), *_flat_fields(answer)])


def login(
    ctx: typer.Context,
    api_url: Annotated[str | None, typer.Option(help="The address of the API, including its stage.", show_default=False)] = None,
    key: Annotated[str | None, typer.Option(help="The API key, hr_...; prompted for if it is missing.", show_default=False)] = None,
    ws_url: Annotated[str | None, typer.Option(help="The WebSocket address; by default from the API.", show_default=False)] = None,
) -> None:
    """Store the address and key of an API for later commands, after checking that they work.

    \b
    headrace login --api-url https://abc123.execute-api.eu-central-1.amazonaws.com/api
    """
    current = session(ctx)
    address = checked_address(api_url or current.api_url or _prompt_for_address(), "The address")
    secret = checked_key(key or current.key or _prompt_for_key(), "the login")
    if address is None or secret is None:
        raise UsageError("A login needs an address and a key.", "headrace login --api-url https://...; the key is asked for.")
    _check_websocket_address(ws_url)
    target = Target(address, secret)
    with closing(Api(target)) as api:
        me = api.get("/me")
    published = me.get("websocket")
    path = write_login(Target(address, secret, ws_url or (published if isinstance(published, str) else None)))
    output.note(f"Logged in as {me.get('user')} ({me.get('role')}) of {me.get('tenant')}; stored in {path}")


def _check_websocket_address(address: str | None) -> None:
    if address and not re.fullmatch(r"wss?://[^\s/]+[^\s]*", address):
        raise UsageError("--ws-url is no address of a WebSocket.", "It begins with wss:// or ws://.")


def _prompt_for_address() -> str:
    if not sys.stdin.isatty():
        raise UsageError("There is no address.", "Give it with --api-url https://...")
    return str(typer.prompt("Address of the API"))


def _prompt_for_key() -> str:
    """Read the key: hidden input on a terminal, else one line of stdin."""
    return str(typer.prompt("Key", hide_input=True)) if sys.stdin.isatty() else read_stdin_line()


def _flat_fields(answer: dict[str, Any]) -> list[tuple[str, Any]]:
    """The fields of an answer as names and values, with nested objects flattened one level."""
    fields: list[tuple[str, Any]] = []
    for name, value in answer.items():
        if isinstance(value, dict):
            fields += [(f"{name} {inner_name}".replace("_", " "), inner) for inner_name, inner in value.items()]
        elif name != "success":
            fields.append((name.replace("_", " "), ", ".join(map(str, value)) if isinstance(value, list) else value))
    return fields
