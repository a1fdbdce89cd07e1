"""How the program exits: every error is printed and mapped to an exit code, without a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from cli.errors import CliError, Exit


@contextmanager
def exit_on_error(as_json: bool) -> Iterator[None]:
    """Print an error of the block and exit with its code. `as_json` prints it as JSON."""
    try:
        yield
    except CliError as error:
        from cli.output import print_error

        print_error(error, as_json)
        sys.exit(error.exit_code)
    except typer.Exit as ended:
        sys.exit(ended.exit_code)
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)
    except BrokenPipeError:
        discard_stdout()
        sys.exit(Exit.OK)


def discard_stdout() -> None:
    """Send further output to /dev/null, because the reader of the pipe is gone (`| head`).

    Otherwise Python reports a broken pipe when it flushes stdout at exit.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
