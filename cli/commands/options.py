"""Arguments and options of `submit`, `estimate` and `batch submit`, with their help texts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Prompt = Annotated[
    str | None,
    typer.Argument(
        help="The prompt; `-` or none reads it from stdin. One that begins with a dash may need `--` before it.", show_default=False
    ),
]
File = Annotated[Path | None, typer.Option("--file", "-f", help="Read the prompt from this file.", show_default=False)]
InputFile = Annotated[
    Path | None,
    typer.Option("--input", "-i", help="Read the input from this JSON file, for job types that take one.", show_default=False),
]
Type = Annotated[str | None, typer.Option("--type", "-t", help="The job type; see `headrace types`.", show_default=False)]
Priority = Annotated[str | None, typer.Option("--priority", "-p", help="The lane: urgent, high, normal or low.", show_default=False)]
Model = Annotated[str | None, typer.Option("--model", "-m", help="The OpenAI model.", show_default=False)]
Fallback = Annotated[
    list[str] | None,
    typer.Option(help="A model to use while the circuit of the first model is open; repeatable.", show_default=False),
]
MaxTokens = Annotated[int | None, typer.Option(help="The maximum number of output tokens.", show_default=False)]
Temperature = Annotated[float | None, typer.Option(help="The sampling temperature, 0 to 2.", show_default=False)]
SystemPrompt = Annotated[str | None, typer.Option(help="Instructions for the model before the prompt.", show_default=False)]
TypeOption = Annotated[
    list[str] | None, typer.Option("--option", "-o", help="An option of the job type: name=value; repeatable.", show_default=False)
]
Metadata = Annotated[
    list[str] | None,
    typer.Option(
        "--metadata",
        help="Metadata to store with the job: name=value; repeatable. Numbers such as 1.10 or 1e5 stay text.",
        show_default=False,
    ),
]
Tag = Annotated[list[str] | None, typer.Option("--tag", help="A tag to filter by; repeatable.", show_default=False)]
DedupeKey = Annotated[
    str | None, typer.Option(help="Return the unfinished job that has this key instead of creating another one.", show_default=False)
]
Durable = Annotated[bool, typer.Option("--durable", help="The answer survives a worker crash and may take longer than 15 minutes.")]
Cache = Annotated[bool, typer.Option("--cache", help="Reuse the answer to an equal request of your tenant, for a day.")]
CacheTtl = Annotated[float | None, typer.Option(help="Like --cache, for this many seconds.", show_default=False)]
Timeout = Annotated[float | None, typer.Option(help="The maximum duration of one attempt, in seconds.", show_default=False)]
Delay = Annotated[float | None, typer.Option(help="Start the job after this many seconds.", show_default=False)]
ExpiresIn = Annotated[float | None, typer.Option(help="Expire the job if it has not started after this many seconds.", show_default=False)]
DependsOn = Annotated[
    list[str] | None,
    typer.Option(help="Run after this job: job_... or name=job_...; repeatable.", metavar="JOB", show_default=False),
]
OnParentFailure = Annotated[
    str | None, typer.Option(help="If one of those jobs does not complete: cancel or run_anyway.", metavar="ACTION", show_default=False)
]
WebhookUrl = Annotated[str | None, typer.Option(help="Send a signed webhook to this URL at the end.", show_default=False)]
Notify = Annotated[
    list[str] | None,
    typer.Option(help="Notify email:ADDRESS or slack:NAME at the end, if your tenant allows it; repeatable.", show_default=False),
]
Wait = Annotated[bool, typer.Option("--wait", "-w", help="Wait for the result and print it.")]
Watch = Annotated[bool, typer.Option("--watch", help="Watch the text as it is written.")]

Paths = Annotated[list[Path], typer.Argument(metavar="FILE|DIR", help="The files or the folder to send.", exists=True, show_default=False)]
Glob = Annotated[str | None, typer.Option(help="Which files of a folder to send, including its subfolders.", show_default=False)]
Template = Annotated[
    str | None,
    typer.Option(help="The prompt template, with {{input}} or any column; @FILE reads it from a file.", show_default=False),
]
Config = Annotated[
    list[str] | None, typer.Option("--config", help="A model setting of all rows: name=value; repeatable.", show_default=False)
]
BatchName = Annotated[str | None, typer.Option(help="A name for the batch.", show_default=False)]
BatchSize = Annotated[int | None, typer.Option(help="How many rows to release at a time.", show_default=False)]
ReleaseDelay = Annotated[float | None, typer.Option(help="Seconds between two releases.", show_default=False)]
ParallelLimit = Annotated[int | None, typer.Option(help="How many rows may run at the same time.", show_default=False)]
FailureTolerance = Annotated[
    float | None, typer.Option(help="The share of rows, 0 to 1, that may fail before the rest is cancelled.", show_default=False)
]
Delimiter = Annotated[
    str | None, typer.Option(help="The CSV delimiter: comma, semicolon, tab, pipe, or the character.", show_default=False)
]
AsWhat = Annotated[
    Literal["rows", "prompts"] | None,
    typer.Option("--as", help="Take the rows of all files, or each file as one prompt.", show_default="rows of tables"),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show the rows and the cost; submit nothing.")]
Monitor = Annotated[bool, typer.Option("--monitor", help="Watch the batch until it ends.")]
