"""The body of a submission, from what was typed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from cli.errors import Misused


def read_prompt(prompt: str | None, file: Path | None) -> str:
    """From the argument, the file, or what is piped in; `-` is stdin too."""
    if prompt not in (None, "-") and file is not None:
        raise Misused("Give the prompt or a file, not both.")
    if prompt not in (None, "-"):
        return str(prompt)
    if file is not None and str(file) != "-":
        return _read(file)
    if prompt is None and file is None and sys.stdin.isatty():
        raise Misused("There is no prompt.", 'Give it as an argument, with --file PATH, or pipe it in: echo "Say hello" | headrace submit')
    return sys.stdin.read()


def content(prompt: str | None, file: Path | None, given: Path | None) -> dict[str, Any]:
    """What a job works on: `prompt`, or an `input` from a file of JSON; `-` is stdin."""
    if given is None:
        return {"prompt": read_prompt(prompt, file)}
    if prompt is not None or file is not None:
        raise Misused("Give a prompt or --input, not both.")
    try:
        return {"input": json.loads(sys.stdin.read() if str(given) == "-" else _read(given))}
    except ValueError as problem:
        raise Misused(f"{given} is not JSON: {problem}") from problem


def pairs(given: list[str], option: str) -> dict[str, Any]:
    """`name=value` as a dict; a value that is JSON is taken as JSON, so `n=3` is a number and `n="3"` is text."""
    found = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise Misused(f"{option} {item}: write it as name=value.")
        found[name] = _value(value)
    return found


def parents(given: list[str]) -> list[str] | dict[str, str]:
    """Jobs to run after: a list of ids; with names, if any of them has one."""
    if not any("=" in one for one in given):
        return given
    named: dict[str, str] = {}
    for one in given:
        name, equals, job = one.partition("=")
        if (name if equals else one) in named:
            raise Misused(f"--depends-on {one}: there is another {name}.")
        named[name if equals else one] = job if equals else one
    return named


def body(content: dict[str, Any], config: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Only what was given: defaults are the API's."""
    given = {name: value for name, value in config.items() if value is not None}
    rest = {name: value for name, value in more.items() if value not in (None, [], {})}
    return {**content, **rest} | ({"config": given} if given else {})


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise Misused(f"{file} cannot be read: {problem}") from problem
