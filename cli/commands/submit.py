"""Submit a job, or estimate what it would cost."""

from __future__ import annotations

from typing import Any

import typer

from cli import output, request
from cli.commands import options
from cli.commands.show import print_result, show_end
from cli.errors import UsageError, exit_for
from cli.session import Json, Session, follow_job, session, wait_for_end


def submit(
    ctx: typer.Context,
    prompt: options.Prompt = None,
    file: options.File = None,
    input_file: options.InputFile = None,
    job_type: options.Type = None,
    priority: options.Priority = None,
    model: options.Model = None,
    fallback: options.Fallback = None,
    max_tokens: options.MaxTokens = None,
    temperature: options.Temperature = None,
    system_prompt: options.SystemPrompt = None,
    option: options.TypeOption = None,
    metadata: options.Metadata = None,
    tag: options.Tag = None,
    dedupe_key: options.DedupeKey = None,
    durable: options.Durable = False,
    cache: options.Cache = False,
    cache_ttl: options.CacheTtl = None,
    timeout: options.Timeout = None,
    delay: options.Delay = None,
    expires_in: options.ExpiresIn = None,
    depends_on: options.DependsOn = None,
    on_parent_failure: options.OnParentFailure = None,
    webhook_url: options.WebhookUrl = None,
    notify: options.Notify = None,
    wait: options.Wait = False,
    watch: options.Watch = False,
    as_json: Json = False,
) -> None:
    """Submit a job.

    \b
    headrace submit "Say hello in five languages" --watch
    headrace submit --type security_analysis --priority high --file Vault.sol --watch
    headrace submit --type transcript_analysis --input debate.json -o 'analyses=["topics", "quality"]' --wait
    git diff | headrace submit --system-prompt "Review this change" --wait > review.md
    headrace submit "..." --json | jq -r .job_id
    headrace submit "Summarize: {{parents.draft.output}}" --depends-on draft=job_01J...
    """
    if wait and watch:
        raise UsageError("--wait prints the result at the end, --watch prints the text as it is written. Choose one.")
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
    body = request.job_body(
        request.job_content(prompt, file, input_file),
        config,
        job_type=job_type,
        options=request.parse_pairs(option or [], "--option"),
        metadata=request.parse_pairs(metadata or [], "--metadata", as_typed=True),
        tags=tag or [],
        dedupe_key=dedupe_key,
        delay=delay,
        expires_in=expires_in,
        depends_on=request.parse_dependencies(depends_on or []),
        on_parent_failure=on_parent_failure,
        webhook_url=webhook_url,
        notify=notify or [],
    )
    accepted = session(ctx).api.post("/jobs", body)
    if watch:
        _watch(session(ctx), accepted, as_json)
    elif wait:
        _wait(session(ctx), accepted, as_json)
    elif as_json:
        output.print_json(accepted)
    else:
        _print_accepted(accepted)


def estimate(
    ctx: typer.Context,
    prompt: options.Prompt = None,
    file: options.File = None,
    input_file: options.InputFile = None,
    job_type: options.Type = None,
    priority: options.Priority = None,
    model: options.Model = None,
    fallback: options.Fallback = None,
    max_tokens: options.MaxTokens = None,
    option: options.TypeOption = None,
    as_json: Json = False,
) -> None:
    """Estimate cost and duration of a job without creating it.

    \b
    headrace estimate --type security_analysis --file Vault.sol
    """
    config = {"model": model, "fallback_models": fallback or None, "priority": priority, "max_tokens": max_tokens}
    content = request.job_content(prompt, file, input_file)
    body = request.job_body(content, config, job_type=job_type, options=request.parse_pairs(option or [], "--option"))
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
    assembly = follow_job(current.api, accepted["job_id"], as_json, websocket)
    raise typer.Exit(show_end(current.api, accepted["job_id"], assembly, as_json))


def _wait(current: Session, accepted: dict[str, Any], as_json: bool) -> None:
    """Wait for the result.

    The id is printed first, on stderr, so that the job can be found after Ctrl-C.
    """
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
            ("duration", output.duration(accepted.get("estimated_duration_seconds"))),
            ("cost", _cost(accepted)),
            ("deduplicated", "yes, this job existed already" if accepted.get("deduplicated") else None),
            ("preliminary", "a preliminary answer is available; --json shows it" if accepted.get("preliminary") else None),
        ]
    )
    output.note(f"\nheadrace watch {job_id}")


def _cost(accepted: dict[str, Any]) -> str | None:
    expected, maximum = (output.money(accepted.get(name), accepted.get("currency", "USD")) for name in ("estimated_cost", "max_cost"))
    return f"about {expected}, at most {maximum}" if expected and maximum else expected
