"""`make demo`: run one job from end to end on the laptop cloud and watch it live.

Without an OpenAI key the answer is scripted: the OpenAI mock streams
`examples/vulnerable_vault.reply.json`. Everything else is the product: the API, the queue, the
worker, the WebSocket.
"""

from __future__ import annotations

import os
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from cli import output
from cli.api import Api
from cli.error_handling import exit_on_error
from cli.errors import Exit, UsageError, exit_for
from cli.findings import print_findings
from cli.target import Target, checked_key, read_stack

EXAMPLES = Path(__file__).parents[1] / "examples"
CONTRACT = EXAMPLES / "vulnerable_vault.sol"
REPLY = EXAMPLES / "vulnerable_vault.reply.json"
FIRST_TOKEN_SECONDS = 0.6  # the delay of a model before its first token

Stack = dict[str, Any]


def demo() -> Exit:
    """Submit a job, watch it and show its result. The laptop cloud keeps running."""
    from cli.session import follow_job

    stack = read_stack()
    if stack is None or not isinstance(stack.get("tokens"), dict) or not isinstance(stack.get("openai_url"), str):
        raise UsageError("The laptop cloud is not running.", "`make up` starts it.")
    target = Target(stack["api_url"].rstrip("/"), checked_key(stack["tokens"].get("user"), ".local/stack.json"), stack.get("ws_url"))
    _print_intro(stack)
    scripted = not os.environ.get("OPENAI_API_KEY", "").strip()
    if scripted:
        with closing(Api(Target(stack["openai_url"], None))) as openai:
            script_reply(openai, _example(REPLY))
    with closing(Api(target)) as api:
        accepted = api.post("/jobs", submission(_example(CONTRACT)))
        job_id = accepted["job_id"]
        output.stdout().print(f"{job_id} is {accepted['status']} in {accepted['queue']}\n", markup=False)
        follow_job(api, job_id, as_json=False)
        answer = api.get(f"/jobs/{job_id}/result")
    _print_result(answer)
    _print_next_steps(stack, target, job_id)
    return exit_for(answer["status"])


def submission(contract: str) -> dict[str, Any]:
    return {
        "prompt": contract,
        "job_type": "security_analysis",
        "config": {"priority": "high"},
        "metadata": {"file": CONTRACT.name},
        "tags": ["demo"],
    }


def script_reply(openai: Api, reply: str) -> None:
    """Make the mock answer the next request with `reply`, unless the same reply is pending."""
    match = {"path": "/v1/responses", "stream": True}
    behaviours = [
        {"type": "slow_first_token", "seconds": FIRST_TOKEN_SECONDS, "match": match},
        {"type": "reply", "text": reply, "match": match},
    ]
    pending = openai.get("/_llmock/scenario")["pending"]
    if not any(behaviour.get("text") == reply for behaviour in pending):
        openai.post("/_llmock/scenario", {"behaviors": behaviours})


def _example(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError as missing:
        raise UsageError(f"{file} does not exist.", "The demo needs the examples/ folder of the checkout.") from missing


def _print_intro(stack: Stack) -> None:
    by = "OpenAI, with your key" if os.environ.get("OPENAI_API_KEY", "").strip() else "a mock of OpenAI on this machine, which needs no key"
    output.stdout().print(f"A security analysis of examples/{CONTRACT.name}, by {by}.", markup=False)


def _print_result(answer: dict[str, Any]) -> None:
    console = output.stdout()
    console.print()
    if answer.get("parsed"):
        print_findings(answer["parsed"])
    elif error := answer.get("error"):
        console.print(
            output.clean(f"{answer['status']}: {error.get('message')} {error.get('suggestion') or ''}"), style="red", markup=False
        )
    usage, timings = answer.get("usage") or {}, answer.get("timings") or {}
    speed = timings.get("tokens_per_second")
    console.print()
    output.print_fields(
        [
            ("status", output.status_text(answer["status"])),
            ("model", answer.get("model")),
            ("tokens", f"{usage['input_tokens']} in, {usage['output_tokens']} out" if usage else None),
            ("cost", output.money(answer.get("cost"), answer.get("currency", "USD"))),
            ("queue wait", output.duration(timings.get("queued"))),
            ("first token", output.duration(timings.get("time_to_first_token"))),
            ("speed", f"{speed:.0f} tokens per second" if speed else None),
            ("total", output.duration(timings.get("total"))),
        ]
    )


def _print_next_steps(stack: Stack, target: Target, job_id: str) -> None:
    """Print addresses and commands. Lines are never wrapped, so that they can be copied."""
    console = output.stdout()
    addresses = [("API", target.api_url), ("WebSocket", target.ws_url), ("health", f"{target.api_url}/health")]
    commands = [
        'headrace submit "Say hello in five languages" --watch',
        f"headrace result {job_id} --json",
        "headrace list",
        f'curl -H "Authorization: Bearer $(jq -r .tokens.user .local/stack.json)" {target.api_url}/jobs/{job_id}/result',
    ]
    console.print()
    for name, address in addresses:
        console.print(f"{name:<10} {address}", markup=False, soft_wrap=True)
    console.print(
        "\nEverything keeps running; `make down` stops it. What to try next (`. .venv/bin/activate` puts `headrace` on the path):",
        markup=False,
    )
    for command in commands:
        console.print(f"  {command}", markup=False, soft_wrap=True)


def main() -> None:
    with exit_on_error(as_json=False):
        sys.exit(demo())


if __name__ == "__main__":
    main()
