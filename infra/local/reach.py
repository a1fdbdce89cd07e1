"""Find the cloud of a stage: AWS or the running emulator."""

from __future__ import annotations

import typer

from infra.cloud import Cloud
from infra.local import stack_file


def cloud_of(stage: str) -> Cloud:
    """The cloud of a stage.

    Raises:
        BadParameter: the stage is `local` and the laptop cloud is not running.
    """
    if stage != "local":
        return Cloud(stage)
    stack = stack_file.read()
    if stack is None:
        raise typer.BadParameter("The laptop cloud is not running; `make up` starts it.")
    return Cloud(stage, stack["aws_endpoint"])
