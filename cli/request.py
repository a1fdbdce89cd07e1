"""Build the body of a submission from the arguments of a command."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from cli.errors import UsageError


def read_prompt(prompt: str | None, file: Path | None) -> str:
    """The prompt from the argument, the file, or stdin. `-` names stdin too."""
    if prompt not in (None, "-") and file is not None:
        raise UsageError("Give the prompt or a file, not both.")
    if prompt not in (None, "-"):
        return str(prompt)
    if file is not None and str(file) != "-":
        return _read(file)
    if prompt is None and file is None and sys.stdin.isatty():
        raise UsageError(
            "There is no prompt.", 'Give it as an argument, with --file PATH, or pipe it in: echo "Say hello" | headrace submit'
        )
    return sys.stdin.read()


def job_content(prompt: str | None, file: Path | None, input_file: Path | None) -> dict[str, Any]:
    """The content of a job: `prompt`, or `input` from a JSON file. `-` names stdin."""
    if input_file is None:
        return {"prompt": read_prompt(prompt, file)}
    if prompt is not None or file is not None:
        raise UsageError("Give a prompt or --input, not both.")
    try:
        return {"input": json.loads(sys.stdin.read() if str(input_file) == "-" else _read(input_file))}
    except ValueError as error:
        raise UsageError(f"{input_file} is not JSON: {error}") from error


def parse_pairs(items: list[str], option: str) -> dict[str, Any]:
    """Parse `name=value` items.

    A value that is JSON is decoded: `n=3` is a number and `n="3"` is text.
    """
    values = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise UsageError(f"{option} {item}: write it as name=value.")
        values[name] = _decode(value)
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


def _decode(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} cannot be read: {error}") from error
