"""Build the body of a submission from the arguments of a command."""

from __future__ import annotations

import json
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

from cli.checks.text_input import read_file, read_json, read_stdin, shown
from cli.errors import UsageError

HOW_TO_PROMPT = 'Give it as an argument, with --file PATH, or pipe it in: echo "Say hello" | headrace submit'
MAX_EXACT_NUMBER = 2**53  # the largest whole number that every reader of JSON keeps exactly


def read_prompt(prompt: str | None, file: Path | None) -> str:
    """The prompt from the argument, the file, or stdin. `-` names stdin too. Raises UsageError for an empty one."""
    if prompt not in (None, "-") and file is not None:
        raise UsageError("Give the prompt or a file, not both.")
    if prompt is None and file is None and sys.stdin.isatty():
        raise UsageError("There is no prompt.", HOW_TO_PROMPT)
    text = prompt if prompt is not None and prompt != "-" else _read(file)
    if not text.strip():
        raise UsageError("The prompt is empty.", HOW_TO_PROMPT)
    return text


def _read(file: Path | None) -> str:
    return read_file(file) if file is not None and str(file) != "-" else read_stdin()


def job_content(prompt: str | None, file: Path | None, input_file: Path | None) -> dict[str, Any]:
    """The content of a job: `prompt`, or `input` from a JSON file. `-` names stdin."""
    if input_file is None:
        return {"prompt": read_prompt(prompt, file)}
    if prompt is not None or file is not None:
        raise UsageError("Give a prompt or --input, not both.")
    return {"input": read_json(_read(input_file), "stdin" if str(input_file) == "-" else shown(str(input_file)))}


def parse_pairs(items: list[str], option: str, *, as_typed: bool = False) -> dict[str, Any]:
    """Parse `name=value` items.

    A value that is JSON is decoded: `n=3` is a number and `n="3"` is text. With `as_typed`, a number
    that would print in another way stays the text that it is: `1.10`, `1e5`, `007`.
    """
    values = dict[str, Any]()
    for item in items:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise UsageError(f"{option} {item}: write it as name=value.")
        if name in values:
            raise UsageError(f"{option} {item}: {name} is given twice.")
        values[name] = _decode(value, as_typed)
    return values


def parse_dependencies(items: list[str]) -> list[str] | dict[str, str]:
    """Parse the jobs to run after: a list of ids, or a dict by name if one is `name=job_...`."""
    if not any("=" in item for item in items):
        return items
    by_name: dict[str, str] = {}
    for item in items:
        name, equals, job = item.partition("=")
        if (name if equals else item) in by_name:
            raise UsageError(f"--depends-on {item}: there is another {name}.")
        by_name[name if equals else item] = job if equals else item
    return by_name


def job_body(content: dict[str, Any], config: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """The body of POST /jobs.

    Options that were not given are left out, so that the API applies its defaults.
    """
    given_config = {name: value for name, value in config.items() if value is not None}
    given_fields = {name: value for name, value in fields.items() if value not in (None, [], {})}
    return {**content, **given_fields} | ({"config": given_config} if given_config else {})


def _decode(text: str, as_typed: bool) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value if (_prints_as(text, value) if as_typed else _is_exact(text, value)) else text
    return value if _is_finite(value) else text


def _prints_as(text: str, value: float) -> bool:
    """Whether every program prints the number as it was typed. Some print 1.0 as 1, and round large numbers."""
    return json.dumps(value) == text and abs(value) <= MAX_EXACT_NUMBER and not (isinstance(value, float) and value.is_integer())


def _is_exact(text: str, value: float) -> bool:
    """Whether the number is the one that was typed: finite, and none of its digits is lost."""
    try:
        typed = Decimal(text.strip())
        return typed.is_finite() and typed == Decimal(repr(value))
    except ArithmeticError:  # an exponent of many digits
        return False


def _is_finite(value: Any) -> bool:
    """Whether all numbers in a list or an object are finite: Python reads NaN and 1e999, which JSON cannot write."""
    try:
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        return False
    return True
