"""Give work, or ask what it would cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cli import output, request
from cli.commands.show import print_result, show_end
from cli.errors import Misused, exit_for
from cli.session import Json, Session, follow, session, wait_for_end

Prompt = Annotated[str | None, typer.Argument(help="What to do; `-` or nothing: read it from stdin.", show_default=False)]
File = Annotated[Path | None, typer.Option("--file", "-f", help="Read the prompt from this file.", show_default=False)]
Input = Annotated[
    Path | None, typer.Option("--input", "-i", help="Read the input of a type that takes one from this file of JSON.", show_default=False)
]
Type = Annotated[str | None, typer.Option("--type", "-t", help="The job type; see `headrace types`.", show_default=False)]
Priority = Annotated[str | None, typer.Option("--priority", "-p", help="urgent, high, normal or low.", show_default=False)]
Model = Annotated[str | None, typer.Option("--model", "-m", help="The OpenAI model.", show_default=False)]
Fallback = Annotated[
    list[str] | None,
    typer.Option(help="A model that may stand in while the circuit of the first is open; may be repeated.", show_default=False),
]
MaxTokens = Annotated[int | None, typer.Option(help="The longest answer.", show_default=False)]
Temperature = Annotated[float | None, typer.Option(help="0 to 2.", show_default=False)]
SystemPrompt = Annotated[str | None, typer.Option(help="Instructions before the prompt.", show_default=False)]
TypeOption = Annotated[list[str] | None, typer.Option("--option", "-o", help="An option of the type: name=value.", show_default=False)]
Metadata = Annotated[
    list[str] | None, typer.Option("--metadata", help="Something of yours to keep with it: name=value.", show_default=False)
]
Tag = Annotated[list[str] | None, typer.Option("--tag", help="A word to find it by; may be repeated.", show_default=False)]
DedupeKey = Annotated[str | None, typer.Option(help="A job with this key that has not ended is answered instead.", show_default=False)]
Durable = Annotated[bool, typer.Option("--durable", help="The answer outlives its worker: after a crash, and past 15 minutes.")]
Cache = Annotated[bool, typer.Option("--cache", help="An equal request of your tenant may share its answer, for a day.")]
CacheTtl = Annotated[float | None, typer.Option(help="The same, for so many seconds.", show_default=False)]
Timeout = Annotated[float | None, typer.Option(help="Seconds for one attempt.", show_default=False)]
Delay = Annotated[float | None, typer.Option(help="Seconds after which it may begin.", show_default=False)]
ExpiresIn = Annotated[float | None, typer.Option(help="Seconds within which it must have started.", show_default=False)]
DependsOn = Annotated[
    list[str] | None, typer.Option(help="A job to run after: job_... or name=job_...; may be repeated.", metavar="JOB", show_default=False)
]
OnParentFailure = Annotated[
    str | None, typer.Option(help="If one of those does not complete: cancel or run_anyway.", metavar="WHAT", show_default=False)
]
WebhookUrl = Annotated[str | None, typer.Option(help="Post a signed message here when it has ended.", show_default=False)]
Notify = Annotated[
    list[str] | None,
    typer.Option(help="Tell email:ADDRESS or slack:NAME, one that your tenant allows; may be repeated.", show_default=False),
]
Wait = Annotated[bool, typer.Option("--wait", "-w", help="Wait for the result and print it.")]
Watch = Annotated[bool, typer.Option("--watch", help="Watch the text as it is written.")]


def submit(
    ctx: typer.Context,
    prompt: Prompt = None,
    file: File = None,
    given: Input = None,
    job_type: Type = None,
    priority: Priority = None,
    model: Model = None,
    fallback: Fallback = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    system_prompt: SystemPrompt = None,
    option: TypeOption = None,
    metadata: Metadata = None,
    tag: Tag = None,
    dedupe_key: DedupeKey = None,
    durable: Durable = False,
    cache: Cache = False,
    cache_ttl: CacheTtl = None,
    timeout: Timeout = None,
    delay: Delay = None,
    expires_in: ExpiresIn = None,
    depends_on: DependsOn = None,
    on_parent_failure: OnParentFailure = None,
    webhook_url: WebhookUrl = None,
    notify: Notify = None,
    wait: Wait = False,
    watch: Watch = False,
    as_json: Json = False,
) -> None:
    """Submit a job.

    \b
    headrace submit "Say hello in five languages" --watch
    headrace submit --type security_analysis --priority high --file Vault.sol --watch
    headrace submit --type transcript_analysis --input debate.json -o 'analyses=["topics", "quality"]' --wait
    git diff | headrace submit --system-prompt "Review this change" --wait > review.md
    headrace submit "..." --json | jq -r .job_id
    headrace submit "Sum it up: {{parents.draft.output}}" --depends-on draft=job_01J...
    """
    if wait and watch:
        raise Misused("--wait prints the result at its end, --watch while it is written: choose one.")
    config = {
        "model": model,
        "fallback_models": fallback or None,
        "priority": priority,
        "max_tokens": max_tokens,
        "temperature": temperature,
        "system_prompt": system_prompt,
        "durable": durable or None,
        "cache": {"ttl": cache_ttl} if cache_ttl is not None else cache or None,
        "timeout": timeout,
    }
    body = request.body(
        request.content(prompt, file, given),
        config,
        job_type=job_type,
        options=request.pairs(option or [], "--option"),
        metadata=request.pairs(metadata or [], "--metadata"),
        tags=tag or [],
        dedupe_key=dedupe_key,
        delay=delay,
        expires_in=expires_in,
        depends_on=request.parents(depends_on or []),
        on_parent_failure=on_parent_failure,
        webhook_url=webhook_url,
        notify=notify or [],
    )
    current = session(ctx)
    accepted = current.api.post("/jobs", body)
    if watch:
        _watch(current, accepted, as_json)
    elif wait:
        _wait(current, accepted, as_json)
    elif as_json:
        output.print_json(accepted)
    else:
        _print_accepted(accepted)


def estimate(
    ctx: typer.Context,
    prompt: Prompt = None,
    file: File = None,
    given: Input = None,
    job_type: Type = None,
    priority: Priority = None,
    model: Model = None,
    fallback: Fallback = None,
    max_tokens: MaxTokens = None,
    option: TypeOption = None,
    as_json: Json = False,
) -> None:
    """What a job would cost and how long it would take; nothing is created.

    \b
    headrace estimate --type security_analysis --file Vault.sol
    """
    config = {"model": model, "fallback_models": fallback or None, "priority": priority, "max_tokens": max_tokens}
    options = request.pairs(option or [], "--option")
    body = request.body(request.content(prompt, file, given), config, job_type=job_type, options=options)
    answer = session(ctx).api.post("/jobs/estimate", body)
    if as_json:
        output.print_json(answer)
    else:
        shown = {name: value for name, value in answer.items() if name != "success" and not isinstance(value, dict | list)}
        output.print_fields((name.replace("_", " "), value) for name, value in shown.items())


def _watch(current: Session, accepted: dict[str, Any], as_json: bool) -> None:
    if not as_json:
        output.note(f"{accepted['job_id']}  {accepted['status']} in {accepted.get('queue')}")
    websocket = (accepted.get("links") or {}).get("websocket")
    assembly = follow(current.api, accepted["job_id"], as_json, websocket)
    raise typer.Exit(show_end(current.api, accepted["job_id"], assembly, as_json))


def _wait(current: Session, accepted: dict[str, Any], as_json: bool) -> None:
    """The id first, on stderr: whoever loses patience needs it."""
    output.note(accepted["job_id"])
    state = wait_for_end(current.api, accepted["job_id"])
    print_result(current.api.get(f"/jobs/{accepted['job_id']}/result"), as_json)
    raise typer.Exit(exit_for(state["status"]))


def _print_accepted(accepted: dict[str, Any]) -> None:
    job_id = accepted["job_id"]
    output.print_fields(
        [
            ("job", job_id),
            ("status", output.status_text(accepted["status"])),
            ("queue", accepted.get("queue")),
            ("position", accepted.get("queue_position")),
            ("expected", output.duration(accepted.get("estimated_duration_seconds"))),
            ("cost", _cost(accepted)),
            ("deduplicated", "yes, this job was there already" if accepted.get("deduplicated") else None),
            ("preliminary", "a first answer is there; --json shows it" if accepted.get("preliminary") else None),
        ]
    )
    output.note(f"\nheadrace watch {job_id}")


def _cost(accepted: dict[str, Any]) -> str | None:
    expected, most = (output.money(accepted.get(name), accepted.get("currency", "USD")) for name in ("estimated_cost", "max_cost"))
    return f"about {expected}, at most {most}" if expected and most else expected
