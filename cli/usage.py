"""How arguments are read: prompts that begin with a dash, and errors of the argument parser as errors of ours."""

from __future__ import annotations

import re
from typing import Any

import typer
from typer.core import TyperCommand
from typer.exceptions import TyperException

from cli.errors import CliError, HelpShown, UsageError

_LONG_WITH_VALUE = re.compile(r"--[A-Za-z][\w-]*=")
_DASHED_PROMPT_HINT = "A prompt that begins with a dash comes after `--`: headrace submit -- '-5 degrees'"


class PromptCommand(TyperCommand):
    """A command whose prompt may begin with a dash, as a bullet does: `headrace submit "- summarise this"`.

    Only what no option could be is taken for a prompt: it has a blank in it and begins with none of
    the options. `--modle gpt-5` is still a wrong option, not a prompt that costs money.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        given, end, after = _split(args)
        takes_value = {name: not getattr(param, "is_flag", False) for param in self.get_params(ctx) for name in param.opts}
        options, prompts = list[str](), list[str]()
        remaining = iter(given)
        for arg in remaining:
            if _is_prompt(arg, takes_value):
                prompts.append(arg)
                continue
            options.append(arg)
            if takes_value.get(arg):  # the next argument is its value, whatever it looks like
                value = next(remaining, None)
                if value is None and not end:
                    break  # the value is missing, and no prompt may become it
                options += [value] if value is not None else []
        else:
            options += [*(end or (["--"] if prompts else [])), *prompts, *after]
        result: list[str] = super().parse_args(ctx, options)
        return result


def from_typer(error: Exception) -> CliError | None:
    """The parser's complaint as a usage error; None if the error is not from the parser."""
    if not isinstance(error, TyperException):
        return None
    ctx: Any = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        return HelpShown(error.format_message())
    if ctx is None:
        return UsageError(error.format_message())
    hint = f"{ctx.get_usage()}\n`{ctx.command_path} --help` explains it."
    option = str(getattr(error, "option_name", ""))
    if isinstance(ctx.command, PromptCommand) and re.match("-[^-]", option):
        hint = f"{_DASHED_PROMPT_HINT}\n{hint}"
    elif isinstance(ctx.command, PromptCommand) and "unexpected extra" in error.format_message():
        hint = f"A prompt of several words is one argument, in quotes.\n{hint}"
    return UsageError(error.format_message(), hint)


def text_id(kind: str) -> Any:
    """A check for the id of a job, batch or bulk operation, which becomes part of an address."""

    def check(value: str | None) -> str | None:
        from cli.checks.text_input import shown
        from cli.output import clean

        if value is not None and re.fullmatch(r"[A-Za-z0-9_-]{1,200}", value) is None:
            raise typer.BadParameter(f"{clean(shown(value[:60]))!r} is not the id of a {kind}.")
        return value

    return check


def text(value: str | None) -> str | None:
    """A check for an argument that becomes part of an address and may be any text."""
    from cli.checks.text_input import problem_of_text

    if value is not None and (problem := problem_of_text(value)):
        raise typer.BadParameter(f"it {problem}.")
    return value


def _split(args: list[str]) -> tuple[list[str], list[str], list[str]]:
    """The arguments before `--`, and those after it. A `--` that is the value of an option is left to the parser."""
    if "--" not in args:
        return args, [], []
    cut = args.index("--")
    return args[:cut], ["--"], args[cut + 1 :]


def _is_prompt(arg: str, options: dict[str, bool]) -> bool:
    if len(arg) < 2 or not arg.startswith("-") or not any(character.isspace() for character in arg):
        return False
    if arg.startswith("--"):
        return not _LONG_WITH_VALUE.match(arg)
    return arg[:2] not in options
