"""The entry of `headrace`. It imports nothing heavy, so that even an early Ctrl-C ends it in good order."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from cli.error_handling import exit_on_error, leave
from cli.errors import Exit

if TYPE_CHECKING:
    from sys import UnraisableHookArgs


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit with its code. Without `arguments`, take those of this process."""
    argv = sys.argv[1:] if arguments is None else arguments
    if arguments is None:
        sys.unraisablehook = _unraisable
    try:
        with exit_on_error(as_json="--json" in argv):
            from cli.app import run

            sys.exit(run(argv))
    except KeyboardInterrupt:  # a second one, while the first or an error was told
        sys.exit(Exit.INTERRUPTED)
    finally:
        if arguments is None:
            leave()


def _unraisable(error: UnraisableHookArgs) -> None:
    """Say nothing of a Ctrl-C in a callback of the interpreter, which drops it: the next one is taken."""
    if not isinstance(error.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(error)
