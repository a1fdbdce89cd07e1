"""`headrace`: the commands and the options before them."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cli.commands import about, batch, failed, graph, jobs, operations, show, submit, webhooks
from cli.error_handling import discard_stdout, exit_on_error
from cli.errors import Exit
from cli.session import Session
from cli.target import ROLES

ABOUT = """Run OpenAI jobs in the background and watch them live.

\b
headrace submit "Say hello in five languages" --watch
headrace submit --type security_analysis --file Vault.sol --priority high --wait
headrace list --status processing
headrace watch job_01J...
\b
The API is taken from the first of: --api-url and --key; HEADRACE_API_URL and HEADRACE_KEY; the login stored by `headrace login`;
the laptop cloud of this checkout (`make up`).
\b
Exit codes: 0 completed; 1 failed; 2 wrong usage or rejected by the API; 3 cancelled, expired, incomplete or not finished yet;
4 API not reachable or access denied; 130 interrupted.
"""


class Commands(TyperGroup):
    """A command group for which a closed pipe is no error. Typer itself would exit with 1."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]  # typer's context is the one that it passes
        try:
            return super().invoke(ctx)
        except BrokenPipeError as closed:
            discard_stdout()
            raise typer.Exit(Exit.OK) from closed


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
app.command()(jobs.update)
app.command("move", hidden=True)(jobs.update)  # the former name of `update`
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
    api_url: Annotated[str | None, typer.Option(help="The address of the API, including its stage.", show_default=False)] = None,
    key: Annotated[str | None, typer.Option(help="The API key, hr_...", show_default=False)] = None,
    role: Annotated[str, typer.Option("--as", help=f"The key of the laptop cloud to use: {', '.join(ROLES)}.")] = "user",
) -> None:
    """Store the options in a session; the API is looked up when a command first uses it."""
    ctx.obj = Session(api_url, key, role)
    ctx.call_on_close(ctx.obj.close)


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit with its code."""
    argv = sys.argv[1:] if arguments is None else arguments
    with exit_on_error(as_json="--json" in argv):
        app(argv, prog_name="headrace")
