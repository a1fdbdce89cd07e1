"""Read the lines of OpenAI's own batch files: `custom_id`, `method`, `url`, and the request as `body`.

A row has a prompt, and all rows of a batch share one `config`. So the first row's body says the
config, and a row that asks for another one is refused. What has no counterpart here is named, never
dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from chalicelib.domain.batches.parsing.problems import ProblemCollector
from chalicelib.domain.errors import Detail, InvalidRequest
from chalicelib.domain.validation.schema_messages import shortened

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
URLS = (CHAT, RESPONSES)
_SYSTEM = ("system", "developer")
_TEXT_PARTS = ("text", "input_text")
_MESSAGES = (
    "is not taken: a prompt is one message of the user with one text, after at most one system message; "
    "put the rest into the text of that message"
)

_ONE_CONFIG = "all rows of a batch share one, so send this row in another batch"


class _NotTaken(Exception):
    """A field of the body has no counterpart. The message continues a sentence about it."""


def _same(name: str) -> Callable[[Any], dict[str, Any]]:
    return lambda value: {name: value}


def _openai(name: str) -> Callable[[Any], dict[str, Any]]:
    """Return the parameters that are passed to OpenAI unchanged."""
    return lambda value: {"openai": {name: value}}


def _default_only(*defaults: Any) -> Callable[[Any], dict[str, Any]]:
    """Return the rule of a field that may only say what happens anyway."""

    def check(value: Any) -> dict[str, Any]:
        if not any(type(value) is type(default) and value == default for default in defaults):
            raise _NotTaken("is not taken: Headrace has no such setting; remove the field")
        return {}

    return check


def _response_format(value: Any) -> dict[str, Any]:
    kind = value.get("type") if isinstance(value, Mapping) else None
    if kind == "text":
        return {}
    return {"response_format": "json" if kind == "json_object" else value}


def _text(value: Any) -> dict[str, Any]:
    """Read `text` of the Responses API, which holds the format."""
    if not isinstance(value, Mapping) or set(value) - {"format"}:
        raise _NotTaken("is not taken, except for its `format`")
    return _response_format(value["format"]) if value.get("format") is not None else {}


# Passed to OpenAI unchanged.
_PASSED = ("top_p", "service_tier", "store", "safety_identifier", "prompt_cache_key", "truncation", "metadata")
# What becomes of each field of a body.
_COMMON: dict[str, Callable[[Any], dict[str, Any]]] = {
    "model": _same("model"),
    "temperature": _same("temperature"),
    "stream": _default_only(False),
    **{name: _openai(name) for name in _PASSED},
}
_FIELDS: dict[str, dict[str, Callable[[Any], dict[str, Any]]]] = {
    CHAT: {
        **_COMMON,
        "max_tokens": _same("max_tokens"),
        "max_completion_tokens": _same("max_tokens"),
        "reasoning_effort": lambda value: {"openai": {"reasoning": {"effort": value}}},
        "response_format": _response_format,
        "n": _default_only(1),
        "frequency_penalty": _default_only(0, 0.0),
        "presence_penalty": _default_only(0, 0.0),
    },
    RESPONSES: {
        **_COMMON,
        "max_output_tokens": _same("max_tokens"),
        "instructions": _same("system_prompt"),
        "reasoning": _openai("reasoning"),
        "text": _text,
    },
}
_PROMPT_FIELD = {CHAT: "messages", RESPONSES: "input"}


def shared_config(first: Any) -> dict[str, Any]:
    """Return the config in the body of the first row; empty if it has none or cannot be read."""
    if not isinstance(first, Mapping) or not isinstance(first.get("body"), Mapping):
        return {}
    return _read(_url(first), first["body"])[1]


def with_shared_config(given: Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of the batch with the config of its rows' bodies.

    Raises:
        InvalidRequest: both say something, and not the same.
    """
    if not shared:
        return dict(given)
    config = dict(given["config"]) if isinstance(given.get("config"), Mapping) else {}
    said = {"model": given.get("model"), **{name: value for name, value in config.items() if value is not None}}
    differing = [name for name, value in shared.items() if said.get(name) not in (None, value)]
    if differing:
        details = (
            Detail(f"config.{name}", f"is {shortened(said[name])}, but {shortened(shared[name])} in the `body` of the rows")
            for name in differing
        )
        raise InvalidRequest(details=tuple(details))
    return {**given, "config": {**config, **shared}}


def body_prompt(item: Mapping[str, Any], location: str, shared: Mapping[str, Any] | None, found: ProblemCollector) -> str | None:
    """Return the prompt in the body of a row; None after adding what cannot be taken from it to `found`.

    `shared`: the config of the first row. None: bodies cannot be read here.
    """
    if shared is None:
        found.add(f"{location}.body", "is not read here: submit OpenAI's batch lines as one file of JSON lines")
        return None
    prompt, config, problems = _read(_url(item), item["body"])
    for name in dict.fromkeys([*config, *shared]):
        if config.get(name) != shared.get(name):
            message = f"`{name}` {_said(config, name)}, but {_said(shared, name)} in the first row: {_ONE_CONFIG}"
            problems.append((name if name in item["body"] else "", message))
    found.extend([Detail(f"{location}.body.{name}".rstrip("."), message) for name, message in problems])
    return None if problems else prompt


def _said(config: Mapping[str, Any], name: str) -> str:
    return f"is {shortened(config[name])}" if name in config else "is not given"


def _url(item: Mapping[str, Any]) -> str:
    """Return the address of the request; without one, the field that holds the prompt tells it."""
    url = item.get("url")
    return url if url in URLS else (RESPONSES if "input" in item["body"] else CHAT)


def _read(url: str, body: Mapping[str, Any]) -> tuple[str | None, dict[str, Any], list[tuple[str, str]]]:
    """Return the prompt and the config of a body, and what is not taken: each field with the reason."""
    prompt, config, problems = None, dict[str, Any](), list[tuple[str, str]]()
    for name, value in body.items():
        if value is None:
            continue
        try:
            if name == _PROMPT_FIELD[url]:
                prompt, read = _prompt(value)
            elif name in _FIELDS[url]:
                read = _FIELDS[url][name](value)
            else:
                raise _NotTaken("is not taken: it has no counterpart here; remove the field, or send the rows with `prompt` instead")
        except _NotTaken as exc:
            problems.append((name, str(exc)))
            continue
        passed = {**config.get("openai", {}), **read.get("openai", {})}
        config = {**config, **read, **({"openai": passed} if passed else {})}
    if prompt is None and not any(name == _PROMPT_FIELD[url] for name, _ in problems):
        problems.append((_PROMPT_FIELD[url], "is missing"))
    return prompt, config, problems


def _prompt(value: Any) -> tuple[str, dict[str, Any]]:
    """Return the text of the user's only message, and the system message as config."""
    if isinstance(value, str):
        return value, {}
    messages = value if isinstance(value, list) else []
    if not messages or not all(isinstance(message, Mapping) and isinstance(message.get("role"), str) for message in messages):
        raise _NotTaken(_MESSAGES)
    roles = [message["role"] for message in messages]
    if roles[-1] != "user" or len(roles) > 2 or (len(roles) == 2 and roles[0] not in _SYSTEM):
        raise _NotTaken(_MESSAGES)
    texts = [_only_text(message) for message in messages]
    return texts[-1], {"system_prompt": texts[0]} if len(texts) == 2 else {}


def _only_text(message: Mapping[str, Any]) -> str:
    if set(message) - {"role", "content", "type"}:
        raise _NotTaken(_MESSAGES)
    content = message.get("content")
    parts = list(_text_parts(content)) if isinstance(content, list) else [content]
    if len(parts) != 1 or not isinstance(parts[0], str):
        raise _NotTaken(_MESSAGES)
    return parts[0]


def _text_parts(content: list[Any]) -> Iterator[Any]:
    for part in content:
        is_text = isinstance(part, Mapping) and part.get("type") in _TEXT_PARTS and set(part) == {"type", "text"}
        yield part["text"] if is_text else None
