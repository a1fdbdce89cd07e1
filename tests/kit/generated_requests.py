"""Requests that schemathesis makes from the OpenAPI document, valid ones and invalid ones, and what
is wrong with an answer to them.

Each request is made once and sent with every key, because making it takes longer than answering it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from random import Random
from typing import Any

import requests
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, openapi
from schemathesis.checks import CheckFunction, not_a_server_error
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.core.parameters import ParameterLocation
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks as openapi_checks

Schema = dict[str, Any]

CHECKS: list[CheckFunction] = [
    not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_headers_conformance,
    openapi_checks.response_schema_conformance,
    openapi_checks.negative_data_rejection,
]
# Every HTTP answer has these, or CORS and the gateway add them.
PLAIN_HEADERS = frozenset(["content-type", "content-length", "cache-control", "connection", "date", "server", "vary", "x-accel-buffering"])
GATEWAY_HEADERS = ("access-control-", "x-amz", "apigw-")
# Why a request may be refused that is valid in the document: rules that need the stored data, the
# key, the clock or a template, each as the path and the message of a detail.
BEYOND_THE_DOCUMENT = re.compile(
    "|".join(
        [
            r"(cursor|limit): (is not a cursor|must be a whole number from 0 to \d+$|is only for)",
            r"attempt: must be at most",  # of the job
            r"(run_at|expires_at|delay|until|pause_until): (must be within|must be after|is too long)",
            r"(priority|model|type|job_type): is .* but .* is .*",  # two names of one field
            r"\w+: has two different values in the query, the body or the file",
            r"user: only an operator",
            r"depends_on.*: ",  # jobs that exist
            r"(notify|webhook_url|url|emails|slack|input\.notify|input\.to|input\.webhook_url)(\.[^:]*)?: ",  # the tenant's allowlist, DNS
            r"config\.response_format\.schema.*: ",  # any JSON Schema that can be used
            r"upload_id: ",  # an upload that exists, and no rows beside it
            r"(items|line|prompt_template|input|prompt|options|config)[^:]*: ",  # what a job type makes of its rows and of templates
            r"metadata.*: ",
            r"(delimiter|bom): is only of CSV",
            r"file: has no file",  # a part of a form is a file if it has a file name, which no schema can say
            r"jobs: must be given, because this key reads the jobs of all tenants",
            r"filter: ",
            r"shards: must be a power of two from \d+, which the tenant has now",
        ]
    )
)


@dataclass
class Answers:
    """What was answered, and what is wrong with it."""

    statuses: dict[str, Counter[int]] = field(default_factory=dict)  # by operation, to valid requests in JSON or without a body
    problems: dict[str, str] = field(default_factory=dict)  # the first example of each
    total: int = 0

    def add(self, what: str, example: str) -> None:
        """Add a problem, unless there is one like it."""
        self.problems.setdefault(what, example)

    def __str__(self) -> str:
        return "\n".join(f"{what}\n    {example}" for what, example in self.problems.items())


@dataclass(frozen=True)
class Sender:
    """Who sends the requests: a name, the header, and ids that exist for this key, by path parameter."""

    name: str
    authorization: str
    ids: Mapping[str, Sequence[str]]


def send_generated(
    document: Schema,
    base_url: str,
    session: requests.Session,
    senders: Sequence[Sender],
    valid: int,
    invalid: int,
    *,
    left_out: Collection[str] = (),
    prepare: Callable[[Case[Any]], None] = lambda _case: None,
    at_once: bool = False,
) -> Answers:
    """Send `valid` and `invalid` requests of each operation with each key.

    Args:
        left_out: operations that are not sent, such as `GET /jobs`.
        prepare: changes a request before it is sent.
        at_once: all keys send it at the same time.
    """
    answers, random = Answers(), Random(1)
    schema = openapi.from_dict(_closed(document))
    for result in schema.get_all_operations():
        operation: Any = result.ok()  # type: ignore[union-attr]  # the document is valid
        if f"{operation.method.upper()} {operation.path}" in left_out:
            continue
        for mode, count in ((GenerationMode.POSITIVE, valid), (GenerationMode.NEGATIVE, invalid)):
            for case in _cases(operation, mode, count):
                prepare(case)
                requests_made = [_request(case, mode, sender, base_url, random) for sender in senders]
                with ThreadPoolExecutor(len(senders) if at_once else 1) as threads:
                    responses = list(threads.map(lambda made: session.request(**made, allow_redirects=False), requests_made))
                for sender, response in zip(senders, responses, strict=True):
                    _judge(case, mode, sender, response, answers)
    return answers


def _cases(operation: Any, mode: GenerationMode, count: int) -> list[Case[Any]]:
    made: list[Case[Any]] = []

    @settings(
        max_examples=count, database=None, deadline=None, derandomize=True, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def make(case: Case[Any]) -> None:
        made.append(case)

    try:
        make()
    except Unsatisfiable:  # where nothing can be wrong
        return []
    return made


def _request(case: Case[Any], mode: GenerationMode, sender: Sender, base_url: str, random: Random) -> dict[str, Any]:
    """The arguments of `Session.request` for a request with this key."""
    if _is_valid_path(case):  # three of four name something that exists
        for parameter in case.path_parameters:
            if parameter in sender.ids and random.random() < 0.75:
                case.path_parameters[parameter] = random.choice(sender.ids[parameter])
    if isinstance(case.body, dict | list) and mode is GenerationMode.POSITIVE:
        case.body = _with_existing_ids(case.body, sender.ids.get("job_id", ()), random)
    case.headers["Authorization"] = sender.authorization
    made: dict[str, Any] = case.as_transport_kwargs(base_url=base_url)
    return {**made, "headers": dict(made["headers"])}


def _is_valid_path(case: Case[Any]) -> bool:
    components = case.meta.components if case.meta is not None else {}
    return ParameterLocation.PATH not in components or components[ParameterLocation.PATH].mode is GenerationMode.POSITIVE


def _judge(case: Case[Any], mode: GenerationMode, sender: Sender, response: requests.Response, answers: Answers) -> None:
    name = f"{case.operation.method.upper()} {case.operation.path}"
    answers.total += 1
    about = f"{sender.name}: {name}"
    example = f"{response.status_code} {response.text[:400]!r} to {response.request.url} {str(response.request.body)[:400]}"
    try:
        case.validate_response(response, checks=CHECKS)
    except FailureGroup as group:
        for failure in group.exceptions:
            title = failure.title if isinstance(failure, Failure) else str(failure)
            answers.add(f"{about}: {title}", f"{str(failure)[:600]} {example}")
    for header in _undeclared_headers(case, response):
        answers.add(f"{about}: undocumented header {header}", example)
    if mode is GenerationMode.POSITIVE:
        if case.media_type in (None, "application/json"):
            answers.statuses.setdefault(name, Counter())[response.status_code] += 1
        if refusal := _unexpected_refusal(response):
            answers.add(f"{about}: refused though valid", f"{refusal} {example}")


def _undeclared_headers(case: Case[Any], response: Any) -> Iterator[str]:
    definition = case.operation.responses.find_by_status_code(response.status_code)
    declared = {name.lower() for name, _ in definition.headers.items()} if definition is not None else set()
    for header in (name.lower() for name in response.headers):
        if header not in declared | PLAIN_HEADERS and not header.startswith(GATEWAY_HEADERS):
            yield header


def _unexpected_refusal(response: Any) -> str | None:
    """The first reason of a 400 that the document could have named."""
    if response.status_code != 400:
        return None
    details = response.json()["error"]["details"]
    reasons = (f"{detail['path']}: {detail['message']}" for detail in details)
    return next((reason for reason in reasons if not BEYOND_THE_DOCUMENT.match(reason)), None) if details else response.text


def _with_existing_ids(value: Any, ids: Sequence[str], random: Random) -> Any:
    """The body with ids of jobs that exist instead of made-up ones."""
    if isinstance(value, str):
        return random.choice(ids) if ids and re.fullmatch("job_[0-9A-Z]{26}", value) else value
    if isinstance(value, list):
        return [_with_existing_ids(part, ids, random) for part in value]
    if isinstance(value, dict):
        return {name: _with_existing_ids(part, ids, random) for name, part in value.items()}
    return value


def _closed(document: Schema) -> Schema:
    """The document with no further fields allowed in responses, so that an undocumented one is found."""
    schemas = {
        name: {**schema, "additionalProperties": False} if "success" in schema.get("properties", {}) else schema
        for name, schema in document["components"]["schemas"].items()
    }
    return {**document, "components": {**document["components"], "schemas": schemas}}
