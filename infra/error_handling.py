"""How `python -m infra` fails: with one sentence, without a traceback or a secret."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Iterator

from cli.checks.redaction import redact, remember
from cli.error_handling import place_of
from infra.local.proxies import left_out

MAX_LINES = 3  # of the words of a tool: its reason stands at the end
SECRETS = ("OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_BEGIN = "Traceback (most recent call last):"
_CHAINED = ("During handling of the above exception", "The above exception was the direct cause")


def sentence(error: Exception) -> str:
    """What went wrong, in one line, for somebody who did not write this."""
    for name in SECRETS:
        remember(os.environ.get(name))
    if isinstance(error, subprocess.CalledProcessError):
        command = " ".join(str(part) for part in error.cmd[:4]) if isinstance(error.cmd, list) else str(error.cmd)
        socks = " pip cannot use a SOCKS proxy without PySocks: name an HTTP proxy." if left_out(os.environ) else ""
        return redact(f"`{command} ...` ended with {error.returncode}; its words are above.{socks}")
    lines = [line for line in without_tracebacks(str(error).splitlines()) if line.strip()]
    words = " ".join(" ".join(lines[-MAX_LINES:]).split())
    if isinstance(error, OSError) and error.strerror:
        return redact(f"{error.filename}: {error.strerror}." if error.filename else f"{error.strerror}.")
    if type(error).__module__.startswith(("botocore", "boto3")):
        return redact(f"AWS cannot be used: {words}. `make doctor STAGE=...` looks for the cause.")
    return redact(f"{words or 'no reason is given'} ({type(error).__name__} at {place_of(error)})")


def without_tracebacks(lines: Iterable[str]) -> Iterator[str]:
    """The lines without tracebacks of Python. The error at the end of each stays."""
    inside = False
    for line in lines:
        text = line.strip()
        if text == _BEGIN:
            inside = True
        elif text.startswith(_CHAINED):
            continue
        elif not inside:
            yield redact(line)
        elif text and not line.startswith((" ", "\t")):
            inside = False
            yield redact(line)
