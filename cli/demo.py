"""`make demo`: one real job from end to end on the laptop cloud, watched live.

Without a key of OpenAI's the answer is scripted: the stand-in says what `examples/vulnerable_vault.reply.json` says, word by word. All else
is the product: the API, the queue, the worker, the socket.
"""

from __future__ import annotations

import os
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from cli import output
from cli.api import Api
from cli.ending import ending
from cli.errors import Exit, Misused, exit_for
from cli.findings import print_findings
from cli.session import follow
from cli.target import Target, read_stack

EXAMPLES = Path(__file__).parents[1] / "examples"
CONTRACT = EXAMPLES / "vulnerable_vault.sol"
REPLY = EXAMPLES / "vulnerable_vault.reply.json"
FIRST_TOKEN_SECONDS = 0.6  # as a model takes its time before it begins

Stack = dict[str, Any]


def demo() -> Exit:
    """Submit, watch, show. The stack stays up."""
    stack = read_stack(Path.cwd())
    if stack is None or "tokens" not in stack:
        raise Misused("Nothing is up here.", "`make up` starts everything.")
    target = Target(stack["api_url"].rstrip("/"), stack["tokens"]["user"], stack.get("ws_url"))
    _introduce(stack)
    scripted = not os.environ.get("OPENAI_API_KEY")
    if scripted:
        with closing(Api(Target(stack["openai_url"], None))) as openai:
            script_reply(openai, _example(REPLY))
    with closing(Api(target)) as api:
        accepted = api.post("/jobs", submission(_example(CONTRACT)))
        job_id = accepted["job_id"]
        output.stdout().print(f"{job_id} is {accepted['status']} in {accepted['queue']}\n", markup=False)
        follow(api, job_id, as_json=False)
        answer = api.get(f"/jobs/{job_id}/result")
    _show(answer)
    _go_on(stack, target, job_id)
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
    """Have the stand-in answer the next request so, unless a demo that was broken off left the same waiting."""
    match = {"path": "/v1/responses", "stream": True}
    behaviours = [
        {"type": "slow_first_token", "seconds": FIRST_TOKEN_SECONDS, "match": match},
        {"type": "reply", "text": reply, "match": match},
    ]
    waiting = openai.get("/_llmock/scenario")["pending"]
    if not any(behaviour.get("text") == reply for behaviour in waiting):
        openai.post("/_llmock/scenario", {"behaviors": behaviours})


def _example(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError as missing:
        raise Misused(f"{file} is not here.", "The demo needs the examples of the checkout.") from missing


def _introduce(stack: Stack) -> None:
    by = "OpenAI, with your key" if os.environ.get("OPENAI_API_KEY") else "a stand-in for OpenAI on this machine, which needs no key"
    output.stdout().print(f"A security analysis of examples/{CONTRACT.name}, by {by}.", markup=False)


def _show(answer: dict[str, Any]) -> None:
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
            ("speed", f"{speed:.0f} tokens a second" if speed else None),
            ("total", output.duration(timings.get("total"))),
        ]
    )


def _go_on(stack: Stack, target: Target, job_id: str) -> None:
    """Whole lines, unbroken at any width, so that they can be copied."""
    console = output.stdout()
    addresses = [("API", target.api_url), ("WebSocket", target.ws_url), ("health", f"{target.api_url}/health")]
    commands = [
        'headrace submit "Say hello in five languages" --watch',
        f"headrace result {job_id} --json",
        "headrace list",
        f"curl -H 'Authorization: Bearer {target.key}' {target.api_url}/jobs/{job_id}/result",
    ]
    console.print()
    for name, address in addresses:
        console.print(f"{name:<10} {address}", markup=False, soft_wrap=True)
    console.print(
        "\nEverything stays up; `make down` stops it. To go on (`. .venv/bin/activate` puts `headrace` on the path):", markup=False
    )
    for command in commands:
        console.print(f"  {command}", markup=False, soft_wrap=True)


def main() -> None:
    with ending(as_json=False):
        sys.exit(demo())


if __name__ == "__main__":
    main()
