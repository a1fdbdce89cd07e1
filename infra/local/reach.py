"""Which cloud a stage is in: AWS, or the emulator that runs here."""

from __future__ import annotations

import typer

from infra.cloud import Cloud
from infra.local import stack_file


def cloud_of(stage: str) -> Cloud:
    """The cloud of a stage.

    Raises:
        BadParameter: it is the local one, and that does not run.
    """
    if stage != "local":
        return Cloud(stage)
    stack = stack_file.read()
    if stack is None:
        raise typer.BadParameter("The laptop cloud is not running; `make up` starts it.")
    return Cloud(stage, stack["aws_endpoint"])
