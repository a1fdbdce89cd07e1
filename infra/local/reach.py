"""Find the cloud of a stage: AWS or the running emulator."""

from __future__ import annotations

import typer

from infra.cloud import Cloud
from infra.local import stack_file
from infra.naming import STAGES


def cloud_of(stage: str) -> Cloud:
    """The cloud of a stage.

    Raises:
        BadParameter: there is no such stage, or it is `local` and the laptop cloud is not running.
    """
    if stage not in STAGES:
        raise typer.BadParameter(f"must be one of {', '.join(STAGES)}", param_hint="--stage")
    if stage != "local":
        return Cloud(stage)
    stack = stack_file.read()
    if stack is None or not isinstance(stack.get("aws_endpoint"), str):
        raise typer.BadParameter("The laptop cloud is not running; `make up` starts it.")
    return Cloud(stage, stack["aws_endpoint"])
