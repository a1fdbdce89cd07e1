"""`headrace`: the table of commands, and what happens when one goes wrong."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cli.commands import about, batch, failed, graph, jobs, operations, show, submit, webhooks
from cli.ending import ending, forget_reader
from cli.errors import Exit
from cli.session import Session
from cli.target import ROLES

ABOUT = """OpenAI work in the background, watched live.

\b
headrace submit "Say hello in five languages" --watch
headrace submit --type security_analysis --file Vault.sol --priority high --wait
headrace list --status processing
headrace watch job_01J...
\b
The API is found in this order: --api-url and --key; HEADRACE_API_URL and HEADRACE_KEY; what `headrace login` kept;
the laptop cloud of this checkout (`make up`).
\b
Exit codes: 0 completed, 1 failed, 2 not understood or refused, 3 cancelled, expired, incomplete or not finished,
4 not reachable or not allowed, 130 interrupted.
"""


class Commands(TyperGroup):
    """The group as typer makes it, which alone would call a reader that has gone a failure."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]  # typer's context is the one that it passes
        try:
            return super().invoke(ctx)
        except BrokenPipeError as gone:
            forget_reader()
            raise typer.Exit(Exit.OK) from gone


app = typer.Typer(
    cls=Commands, help=ABOUT, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=True
)
app.command()(submit.submit)
app.command()(show.watch)
app.command()(show.status)
app.command()(show.progress)
app.command()(show.result)
app.command()(show.text)
app.command("list")(jobs.list_jobs)
app.command()(graph.graph)
app.command()(jobs.cancel)
app.command()(jobs.retry)
app.command()(jobs.move)
app.add_typer(batch.app, name="batch")
app.command()(jobs.download)
app.add_typer(failed.app, name="failed")
app.command()(failed.bulk)
app.command()(webhooks.deliveries)
app.command()(submit.estimate)
app.command()(about.types)
app.command()(operations.health)
app.add_typer(operations.circuits, name="circuits")
app.command()(about.whoami)
app.command()(about.login)


@app.callback()
def options(
    ctx: typer.Context,
    api_url: Annotated[str | None, typer.Option(help="The API's address, with its stage.", show_default=False)] = None,
    key: Annotated[str | None, typer.Option(help="The key, hr_...", show_default=False)] = None,
    role: Annotated[str, typer.Option("--as", help=f"Whose key of the laptop cloud: {', '.join(ROLES)}.")] = "user",
) -> None:
    """Kept for the command: the API is found when it is first asked."""
    ctx.obj = Session(api_url, key, role)
    ctx.call_on_close(ctx.obj.close)


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit with its code."""
    given = sys.argv[1:] if arguments is None else arguments
    with ending(as_json="--json" in given):
        app(given, prog_name="headrace")
