"""Submit a job, or estimate what it would cost."""

from __future__ import annotations

from collections.abc import Mapping
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
    body = _body(request.job_content(prompt, file, input_file), ctx.params)
    accepted = session(ctx).api.post("/jobs", body)
    if watch:
        _watch(session(ctx), accepted, as_json)
    elif wait:
        _wait(session(ctx), accepted, as_json)
    else:
        _print_accepted(accepted, as_json)


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
    body = _body(request.job_content(prompt, file, input_file), ctx.params)
    answer = session(ctx).api.post("/jobs/estimate", body)
    if as_json:
        output.print_json(answer)
    else:
        shown = {name: value for name, value in answer.items() if name != "success" and not isinstance(value, dict | list)}
        output.print_fields((name.replace("_", " "), value) for name, value in shown.items())


def _body(content: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The submission of a job. `given` are the parameters of the command by name; one that it does not have is not given."""
    cache_ttl, cache = given.get("cache_ttl"), given.get("cache") or None
    config = {
        "fallback_models": list(given.get("fallback") or []) or None,
        "durable": given.get("durable") or None,
        "cache": cache if cache_ttl is None else {"ttl": cache_ttl},
        **{name: given.get(name) for name in ("model", "priority", "max_tokens", "temperature", "system_prompt", "timeout")},
    }
    return request.job_body(
        content,
        config,
        options=request.parse_pairs(given.get("option") or [], "--option"),
        metadata=request.parse_pairs(given.get("metadata") or [], "--metadata", as_typed=True),
        tags=list(given.get("tag") or []),
        notify=list(given.get("notify") or []),
        depends_on=request.parse_dependencies(given.get("depends_on") or []),
        **{name: given.get(name) for name in ("job_type", "dedupe_key", "delay", "expires_in", "on_parent_failure", "webhook_url")},
    )


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


def _print_accepted(accepted: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.print_json(accepted)
        return
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
