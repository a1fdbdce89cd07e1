"""Ask a server that speaks OpenAI's Responses API what Headrace would ask it, and say what works.

    OPENAI_API_KEY=... python -m infra.try_provider http://127.0.0.1:4000/v1 my-model

Nothing is deployed or stored. Each line is one small request, through the adapter that the workers
use: answers cost what they cost at that server. Exits with 1 if a plain answer cannot be had.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from dataclasses import dataclass
from typing import Any

import typer

from chalicelib.adapters.aws.openai_credentials import Credentials
from chalicelib.adapters.openai.address import problem_of
from chalicelib.adapters.openai.provider import OpenAIResponses
from chalicelib.domain.errors import HeadraceError
from chalicelib.domain.failures import AttemptFailed
from chalicelib.domain.validation.embedded_json import candidates
from chalicelib.ports import ModelRequest, ResponseEnded, TextDelta
from chalicelib.services.prompts.cache_scope import scope_to_tenant
from cli.checks.redaction import redact
from cli.checks.text_input import problem_of_text
from cli.errors import UsageError
from cli.http_client import new_client
from infra.error_handling import sentence
from infra.openai_key import checked_openai_key

TIMEOUT_SECONDS = 120.0
ANY_OTHER_HOST = "https://api.openai.com"  # the client of the workers makes all proxies ready, whatever host it calls
SCHEMA = {
    "name": "colour",
    "schema": {"type": "object", "properties": {"colour": {"type": "string"}}, "required": ["colour"], "additionalProperties": False},
    "strict": False,
}
REQUESTS: dict[str, dict[str, Any]] = {
    "streamed": {},
    "not streamed (`streaming_mode: none`)": {"stream": False},
    "JSON mode (`response_format: json`)": {"json": True, "prompt": "Name a colour, as JSON."},
    "a schema": {"schema": SCHEMA, "prompt": "Name a colour."},
    "instructions, `max_tokens`, `temperature`": {"instructions": "Be brief.", "max_tokens": 64, "temperature": 0.3},
}


@dataclass(frozen=True)
class Tried:
    """What became of one request. `answer` is None if it failed, and `words` say why."""

    name: str
    answer: str | None
    words: str


async def try_provider(provider: OpenAIResponses, model: str) -> list[Tried]:
    """Make each of the requests once, one after another."""
    return [await _try(provider, name, ModelRequest(**_fields(model, more))) for name, more in REQUESTS.items()]


def _fields(model: str, more: dict[str, Any]) -> dict[str, Any]:
    return {"model": model, "prompt": "Say hello in one word.", "timeout": TIMEOUT_SECONDS, **more}


async def _try(provider: OpenAIResponses, name: str, request: ModelRequest) -> Tried:
    texts, ended = [], None
    try:
        async with provider.stream(scope_to_tenant(request, "try", isolated=False)) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    texts.append(event.text)
                elif isinstance(event, ResponseEnded):
                    ended = event
    except AttemptFailed as exc:
        return Tried(name, None, f"{exc.code}: {exc.message}")
    text = "".join(texts)
    notes = [f"{len(texts)} pieces"] if request.stream else []
    notes += [] if text else ["there is no text"]
    notes += ["usage is not counted, so it is estimated"] if ended is None or ended.usage is None else []
    notes += (
        ["the answer is not JSON, so such jobs would be asked again"] if (request.json or request.schema) and not candidates(text) else []
    )
    return Tried(name, text, ", ".join(notes) or "complete")


async def _run(url: str, key: str, model: str) -> int:
    provider = OpenAIResponses(lambda: Credentials(key, url))
    tried = await try_provider(provider, model)
    for one in tried:
        print(f"{'failed' if one.answer is None else 'ok':6}  {one.name}: {one.words}")
    left_out = provider.left_out(model)
    if left_out:
        print(f"The server refuses what Headrace adds: set HEADRACE_OMIT_PARAMETERS={','.join(sorted(left_out))}")
    await provider.client().close()
    return 0 if tried[0].answer is not None else 1


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m infra.try_provider", description="Try a server in OpenAI's place. $OPENAI_API_KEY is its key."
    )
    parser.add_argument("url", help="its address, up to the part before /responses")
    parser.add_argument("model")
    options = parser.parse_args(arguments)
    if problem := problem_of(options.url):
        parser.error(f"url: {problem}")
    if problem := problem_of_text(options.model):
        parser.error(f"model: it {problem}")
    try:
        new_client(ANY_OTHER_HOST, TIMEOUT_SECONDS).close()  # says in one sentence which proxy or certificate cannot be used
        key = checked_openai_key(os.environ.get("OPENAI_API_KEY", "").strip() or "none")
        return asyncio.run(_run(options.url, key, options.model))
    except KeyboardInterrupt:
        return 130
    except typer.BadParameter as error:
        parser.error(error.message)
    except UsageError as error:
        sys.exit(f"Failed: {error.message} {error.hint or ''}".rstrip())
    except HeadraceError as error:
        sys.exit(f"Failed: {redact(str(error))}")
    except Exception as error:  # noqa: BLE001  the last resort: a traceback helps no user, and may quote a secret
        sys.exit(f"Failed: {sentence(error)}")


if __name__ == "__main__":
    raise SystemExit(main())
