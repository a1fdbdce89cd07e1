"""The entry of `headrace`. It imports nothing heavy, so that even an early Ctrl-C ends it in good order."""

from __future__ import annotations

import sys

from cli.error_handling import exit_on_error, leave
from cli.errors import Exit


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit with its code. Without `arguments`, take those of this process."""
    argv = sys.argv[1:] if arguments is None else arguments
    try:
        with exit_on_error(as_json="--json" in argv):
            from cli.app import run

            sys.exit(run(argv))
    except KeyboardInterrupt:  # a second one, while the first or an error was told
        sys.exit(Exit.INTERRUPTED)
    finally:
        if arguments is None:
            leave()
