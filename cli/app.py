"""`headrace`: the commands and the options before them."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cli.commands import about, batch, failed, graph, jobs, limits, operations, pauses, show, submit, webhooks
from cli.error_handling import discard_output, not_understood
from cli.errors import CliError, Exit
from cli.session import Session
from cli.target import ROLES
from cli.usage import PromptCommand, from_typer

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
    """The commands. An error that none of them foresaw is told as what it most likely is."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]  # typer's context is the one that it passes
        try:
            return super().invoke(ctx)
        except BrokenPipeError as closed:  # typer itself would exit with 1
            discard_output()
            raise typer.Exit(Exit.OK) from closed
        except (CliError, typer.Exit, typer.Abort):
            raise
        except Exception as fault:
            if from_typer(fault) is not None:
                raise
            current = ctx.find_object(Session)
            raise not_understood(fault, answered=current is not None and current.answered) from fault


app = typer.Typer(
    cls=Commands, help=ABOUT, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=True
)
app.command(cls=PromptCommand)(submit.submit)
app.command()(show.watch)
app.command()(show.status)
app.command()(show.explain)
app.command()(show.progress)
app.command()(show.result)
app.command()(show.text)
app.command("list")(jobs.list_jobs)
app.command()(graph.graph)
app.command()(jobs.cancel)
app.command()(jobs.retry)
app.command()(jobs.update)
app.command()(pauses.pause)
app.command()(pauses.resume)
app.command()(pauses.queues)
app.command("move", hidden=True)(jobs.update)  # the former name of `update`
app.add_typer(batch.app, name="batch")
app.command()(jobs.download)
app.add_typer(failed.app, name="failed")
app.command()(failed.bulk)
app.command()(webhooks.deliveries)
app.command(cls=PromptCommand)(submit.estimate)
app.command()(about.types)
app.command()(operations.health)
app.add_typer(operations.circuits, name="circuits")
app.add_typer(limits.app, name="limits")
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


def run(arguments: list[str]) -> int:
    """Run a command and return its exit code. Errors are raised."""
    code = typer.main.get_command(app).main(arguments, prog_name="headrace", standalone_mode=False)
    return code if isinstance(code, int) else 0
