"""How a program of the command line ends: every way of failing has its words and its exit code, and none a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from cli.errors import Exit, Problem


@contextmanager
def ending(as_json: bool) -> Iterator[None]:
    """Around everything that a program does."""
    try:
        yield
    except Problem as problem:
        from cli.output import print_problem

        print_problem(problem, as_json)
        sys.exit(problem.exit_code)
    except typer.Exit as ended:
        sys.exit(ended.exit_code)
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)
    except BrokenPipeError:
        forget_reader()
        sys.exit(Exit.OK)


def forget_reader() -> None:
    """Whoever read stdout has gone, as `head` does: no cause for complaint, and none for Python's at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
