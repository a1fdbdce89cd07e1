"""How the program exits: every error becomes one sentence and an exit code, never a traceback."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from cli.checks.redaction import redact
from cli.errors import CliError, Exit, Unreachable, UsageError


@contextmanager
def exit_on_error(as_json: bool) -> Iterator[None]:
    """Print an error of the block and exit with its code. `as_json` prints it as JSON."""
    code: int | str | None = Exit.OK
    try:
        prepare_streams()
        yield
    except SystemExit as ended:
        code = ended.code
    except KeyboardInterrupt:
        code = Exit.INTERRUPTED
    except BrokenPipeError:
        discard_output()
    except Exception as error:  # noqa: BLE001  the last resort: a traceback is of no use to a user, and may quote a secret
        code = _report(error, as_json)
    try:
        _flush()
    except KeyboardInterrupt:
        code = Exit.INTERRUPTED
    except BrokenPipeError:
        discard_output()
    except OSError as error:
        discard_output()
        code = _report(error, as_json) if code in (None, Exit.OK) else code
    sys.exit(code)


def leave() -> None:
    """Ignore Ctrl-C from now on: the result is printed, and Python would show a traceback while it ends."""
    with suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def prepare_streams() -> None:
    """Make the standard streams usable, whatever the shell made of them.

    A stream that is closed becomes /dev/null. Characters that the encoding of the terminal does not
    have are written as \\u20ac.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # the lowest free descriptor is taken, which is the closed one
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def discard_output() -> None:
    """Send further output to /dev/null, because its reader is gone (`| head`).

    Otherwise Python reports a broken pipe when it flushes at exit.
    """
    broken = [stream for stream in (sys.stdout, sys.stderr) if not _flushes(stream)]
    for stream in broken or [sys.stdout]:
        with suppress(OSError, ValueError):  # io.UnsupportedOperation is both: a stream without a descriptor
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _flushes(stream: TextIO) -> bool:
    try:
        stream.flush()
    except (OSError, ValueError):
        return False
    return True


def not_understood(fault: Exception, answered: bool) -> CliError:
    """The sentence for an error that nobody foresaw.

    After an answer of the API, it is most likely an answer of another shape.
    """
    if isinstance(fault, OSError):
        from cli.checks.text_input import reason, shown

        where = f"{shown(str(fault.filename))}: " if isinstance(fault.filename, str) else ""
        return UsageError(f"{where}{reason(fault)}.")
    where = f"{type(fault).__name__} at {place_of(fault)}"
    if answered:
        return Unreachable(
            f"The API gave an answer that this command does not understand ({where}).",
            "Is this the address of the API, and of a version that this headrace knows?",
        )
    return UsageError(f"headrace cannot work with what it was given ({where}): {str(fault)[:200]}")


def _report(error: Exception, as_json: bool) -> int:
    """Print the error and return its exit code, also if nobody can read the error: stderr is closed, or its disk is full."""
    with suppress(OSError):
        import typer

        from cli.output import print_error
        from cli.usage import from_typer

        if isinstance(error, typer.Abort):
            return Exit.INTERRUPTED
        shown = error if isinstance(error, CliError) else from_typer(error) or not_understood(error, answered=False)
        print_error(shown, as_json)
        return shown.exit_code
    discard_output()
    return error.exit_code if isinstance(error, CliError) else Exit.USAGE


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


def place_of(fault: BaseException) -> str:
    """The last line of ours that the error passed, for a report of it."""
    place, trace = "an unknown place", fault.__traceback__
    root = str(Path(__file__).parents[1])
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if file.startswith(root) and "site-packages" not in file:
            place = f"{os.path.relpath(file, root)}:{trace.tb_lineno}"
        trace = trace.tb_next
    return redact(place)
