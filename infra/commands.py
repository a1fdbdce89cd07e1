"""The commands of `python -m infra`, which the Makefile runs."""

from __future__ import annotations

import os
import sys
from getpass import getpass

import typer

from cli.checks.redaction import redact
from infra import chalice_config
from infra.deploy import DeploymentFailed
from infra.deploy import deploy as deploy_stage
from infra.deploy import destroy as destroy_stage
from infra.error_handling import sentence
from infra.keys import app as keys
from infra.layer import NoWheel
from infra.local import stack_file
from infra.local.down import down as end_local
from infra.local.emulators import NotStarted
from infra.local.reach import cloud_of
from infra.local.up import NotHealthy
from infra.local.up import up as start_local
from infra.local.watch import watch as watch_sources
from infra.openai_address import AddressRefused, check_api
from infra.openai_key import checked_openai_key, put_openai_credentials, wake_waiting_jobs

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="Deploy Headrace to AWS or to this machine."
)
app.add_typer(keys, name="keys")


@app.command()
def up() -> None:
    """Start the laptop cloud or update the running one."""
    with stack_file.exclusive():
        stack = start_local()
    print(f"Headrace is up: {stack['api_url']}\n   keys and more: .local/stack.json")


@app.command()
def watch() -> None:
    """Update the laptop cloud whenever a source file changes."""
    watch_sources()


@app.command()
def down() -> None:
    """Stop the laptop cloud."""
    with stack_file.exclusive():
        ended = end_local()
    print(f"Headrace is down ({ended} processes ended)." if ended else "Nothing was running.")


@app.command()
def deploy(stage: str = typer.Option(...)) -> None:
    """Deploy or update a stage."""
    deployment = deploy_stage(cloud_of(stage))
    print(f"{stage}: {deployment.rest_url}\n{stage}: {deployment.websocket_url}")


@app.command()
def destroy(stage: str = typer.Option(...)) -> None:
    """Remove a stage. Protected tables keep their data."""
    destroy_stage(cloud_of(stage))


@app.command()
def doctor(stage: str = typer.Option(...)) -> None:
    """Check a stage and its account, and say what to do. Exits with 1 if there is a problem."""
    from infra.doctor.run import run

    raise typer.Exit(0 if run(cloud_of(stage)) else 1)


@app.command()
def openai_key(stage: str = typer.Option(...)) -> None:
    """Store the OpenAI key of a stage, from $OPENAI_API_KEY or stdin.

    It is never an argument, because arguments show in process lists and shell histories.
    """
    names = {"base_url": "OPENAI_BASE_URL", "organization": "OPENAI_ORG_ID", "project": "OPENAI_PROJECT_ID"}
    credentials = {key: os.environ[name] for key, name in names.items() if os.environ.get(name)}
    key = checked_openai_key(os.environ.get("OPENAI_API_KEY") or (getpass("OpenAI key: ") if sys.stdin.isatty() else _first_line()))
    unchecked = check_api(credentials.get("base_url"), key)
    cloud = cloud_of(stage)
    put_openai_credentials(cloud, credentials | {"api_key": key})
    if unchecked:
        print(unchecked)
    soon = "in some seconds" if wake_waiting_jobs(cloud) else "within a minute"
    print(f"{stage}: OpenAI key stored. Jobs that wait for it start {soon}.")


def _first_line() -> str:
    return sys.stdin.buffer.readline().decode("utf-8", "replace")


@app.command()
def chalice_files() -> None:
    """Generate .chalice/config.json and the policy files."""
    for path in chalice_config.write():
        print(path.relative_to(chalice_config.ROOT))


def run() -> None:
    """Run a command and exit with its code. An error ends with one sentence."""
    try:
        app(prog_name="python -m infra")
    except (AddressRefused, DeploymentFailed, NoWheel, NotHealthy, NotStarted) as error:
        sys.exit(f"Failed: {redact(str(error))}")
    except Exception as error:  # noqa: BLE001  the last resort: a traceback helps no user, and may quote a secret
        sys.exit(f"Failed: {sentence(error)}")
