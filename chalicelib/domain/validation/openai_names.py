"""What a field of OpenAI's APIs is called here: for hints to people who bring their requests along."""

from __future__ import annotations

from typing import Any

_TOOLS = "tools are not available: an answer is text or JSON"
_ONE_ANSWER = "a job has one answer; submit as many jobs as you want answers"
_FORMAT = "write `config.response_format`"
_EFFORT = 'write `config.openai.reasoning`, such as {"effort": "low"}'

MEANT = {
    "messages": "write the text as `prompt`, and a system message as `config.system_prompt`",
    "instructions": "write `config.system_prompt`",
    "system": "write `config.system_prompt`",
    "developer": "write `config.system_prompt`",
    "max_completion_tokens": "write `config.max_tokens`",
    "max_output_tokens": "write `config.max_tokens`",
    "max_new_tokens": "write `config.max_tokens`",
    "reasoning_effort": _EFFORT,
    "effort": _EFFORT,
    "thinking": _EFFORT,
    "text": _FORMAT,
    "text_format": _FORMAT,
    "format": _FORMAT,
    "json_schema": _FORMAT,
    "response_model": _FORMAT,
    "stream": "every job streams; `config.streaming_mode` says how",
    "stream_options": "every job streams; `config.streaming_mode` says how",
    "background": "every job runs in the background; `config.durable` lets its answer outlive a worker",
    "max_retries": "write `config.max_attempts`",
    "user_id": "write `user`",
    "safety_user": "write `config.openai.safety_identifier`",
    "webhook": "write `webhook_url`",
    "callback_url": "write `webhook_url`",
    "custom_id": "write `dedupe_key`, or `id` in a row of a batch",
    "n": _ONE_ANSWER,
    "best_of": _ONE_ANSWER,
    "tools": _TOOLS,
    "tool_choice": _TOOLS,
    "functions": _TOOLS,
    "function_call": _TOOLS,
    "parallel_tool_calls": _TOOLS,
    "previous_response_id": "a job knows no other answers; `depends_on` inserts them into its prompt",
    "conversation": "a job knows no other answers; `depends_on` inserts them into its prompt",
    "seed": "it is not passed on to OpenAI",
    "stop": "it is not passed on to OpenAI",
    "logprobs": "it is not passed on to OpenAI",
    "top_logprobs": "it is not passed on to OpenAI",
    "logit_bias": "it is not passed on to OpenAI",
    "presence_penalty": "it is not passed on to OpenAI",
    "frequency_penalty": "it is not passed on to OpenAI",
    "verbosity": "it is not passed on to OpenAI; `config.system_prompt` can say how long the answer shall be",
    "include": "it is not passed on to OpenAI",
}


def find_meant(name: str, root: dict[str, Any], at: str) -> str | None:
    """Return what to write instead of an unknown field; None if it is no name that is known elsewhere.

    Args:
        root: the schema of the whole value, a request that has a `config`, or of a `config`.
        at: the path of the value, `config` for a schema of a config.
    """
    within = root if at == "config" else _field(root, "config")
    if within is None or (at and at != "config"):
        return None
    places = {"": {} if at == "config" else root, "config": within, "config.openai": _field(within, "openai") or {}}
    elsewhere = next((f"{place}.{name}".lstrip(".") for place, schema in places.items() if name in schema.get("properties", {})), None)
    if elsewhere is None:
        return MEANT.get(name.lower())
    return f"write `{elsewhere}`" if "." in elsewhere else f"write `{elsewhere}` beside `config`"


def _field(schema: dict[str, Any], name: str) -> dict[str, Any] | None:
    """The rule of an object's field that lists its own fields."""
    rule = schema.get("properties", {}).get(name)
    if not isinstance(rule, dict):
        return None
    return next((part for part in (rule, *rule.get("anyOf", ())) if "properties" in part), rule)
