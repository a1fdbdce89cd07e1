"""Generate the OpenAPI 3.1 document from the routes, the request schemas and the job types.

A submission is one of as many forms as there are job types, each with its own options and input.
"""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

from chalice import Blueprint

from chalicelib import job_types
from chalicelib.domain.jobs.job_type import JobType
from chalicelib.entrypoints.http.errors import STATUS
from chalicelib.entrypoints.http.openapi import bodies
from chalicelib.entrypoints.http.openapi.parameters import REQUEST_HEADERS, parameter, path_parameter
from chalicelib.entrypoints.http.openapi.responses import (
    EVENT_STREAM,
    MORE_CONTENT,
    RESPONSES,
    STATUS_DESCRIPTIONS,
    error_statuses,
    response_headers,
    response_schemas,
)
from chalicelib.entrypoints.http.request_body import JSON
from chalicelib.entrypoints.http.server import ROUTES, ApiRequest, ApiResponse, Route, endpoint

blueprint = Blueprint(__name__)

Schema = dict[str, Any]

VERSION = "0.1.0"
GENERAL = "general"  # the job type of a submission that names none
HEADERS: Schema = {  # of responses
    "X-Request-Id": {"required": True, "schema": {"type": "string"}},
    "Headrace-Version": {"required": True, "schema": {"const": "1"}},
    "RateLimit": {"schema": {"type": "string"}, "description": "What is left: a field of the RateLimit headers of the IETF."},
    "RateLimit-Policy": {"schema": {"type": "string"}},
    "Retry-After": {"schema": {"type": "string"}, "description": "Seconds."},
    "ETag": {"schema": {"type": "string"}},
    "Location": {"schema": {"type": "string"}},
    "Idempotent-Replayed": {"schema": {"const": "true"}, "description": "The request had been sent before."},
}


@endpoint(blueprint, "GET", "/openapi.json", None)
def openapi(_request: ApiRequest) -> ApiResponse:
    """Get the OpenAPI document: routes with their roles, request schemas, options of job types."""
    return ApiResponse(body=_encoded(), headers={"Content-Type": JSON, "Cache-Control": "public, max-age=300"})


@cache  # routes and job types change only with a deployment
def _encoded() -> str:
    return json.dumps(document(), ensure_ascii=False, separators=(",", ":"))


def document() -> Schema:
    """The OpenAPI document. Its server URL is relative, because the stage is part of the path."""
    paths: dict[str, Schema] = {}
    for route in sorted(ROUTES, key=lambda route: (route.path, route.method)):
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Headrace",
            "version": VERSION,
            "description": "Runs OpenAI jobs in the background and streams their output. Details: docs/api.md.",
        },
        "servers": [{"url": "."}],
        "security": [{"key": []}],
        "paths": paths,
        "components": {"schemas": _schemas(), "responses": _error_responses(), "headers": HEADERS, "securitySchemes": _security()},
    }


def _operation(route: Route) -> Schema:
    name = f"{route.method} {route.path}"
    sent = REQUEST_HEADERS.get(name, ())
    in_path = re.findall(r"\{(\w+)\}", route.path)
    operation: Schema = {
        "operationId": "_".join([route.method.lower(), *re.findall(r"\w+", route.path)]),
        "summary": route.summary,
        "tags": [route.path.split("/")[1]],
        "x-least-role": route.role.label if route.role else "public",
        "x-effect": route.effect.value,
        "parameters": [*map(path_parameter, in_path), *(parameter(name, each) for each in (*route.query, *sent))],
        "responses": {**_responses(name, route, sent), **_errors(name, route, has_parameters=bool(in_path))},
    }
    if route.role is None:
        operation["security"] = []
    elif "ticket" in route.query:
        operation["security"] = [{"key": []}, {"ticket": []}]
    if route.accepts:
        operation["requestBody"] = _body(name)
    return operation


def _body(route: str) -> Schema:
    name = bodies.REQUEST_BODIES[route]
    schemas = {JSON: _ref(name), **bodies.OTHER_BODIES.get(route, {})}
    return {"required": name in bodies.REQUIRED_BODIES, "content": {kind: {"schema": schema} for kind, schema in schemas.items()}}


def _responses(name: str, route: Route, sent: tuple[str, ...]) -> Schema:
    return {
        status: {
            "description": STATUS_DESCRIPTIONS[status],
            "headers": {header: _header(header) for header in response_headers(name, status, public=route.role is None, sent=sent)},
            **_content(kind, MORE_CONTENT.get(name, {}) if status == "200" else {}),
        }
        for status, kind in RESPONSES[name].items()
    }


def _content(kind: str | None, more: Schema) -> Schema:
    """The content of a response; `kind` is the name of a schema, None: it has no body."""
    if kind is None:
        return {}
    schemas: Schema = {EVENT_STREAM if kind == "Events" else JSON: _ref(kind), **more}
    return {"content": {content_type: {"schema": schema} for content_type, schema in schemas.items()}}


def _errors(name: str, route: Route, *, has_parameters: bool) -> Schema:
    public = route.role is None
    statuses = error_statuses(name, public=public, has_parameters=has_parameters, has_body=bool(route.accepts))
    if route.fallback_status is not None:  # it is sent instead
        statuses = [status for status in statuses if status < "500"]
    return {status: {"$ref": f"#/components/responses/{'Later' if status in ('429', '503') else 'Error'}"} for status in statuses}


def _header(name: str) -> Schema:
    return {"$ref": f"#/components/headers/{name}"}


def _schemas() -> dict[str, Schema]:
    kinds = job_types.all_types()
    submission = {"oneOf": [_ref(f"Submission.{kind.name}") for kind in kinds]}
    of_types = {name: schema for kind in kinds for name, schema in _job_type_schemas(kind).items()}
    return {"Error": _error(), **bodies.REQUEST_SCHEMAS, **response_schemas(), "Submission": submission, **of_types}


def _job_type_schemas(kind: JobType) -> dict[str, Schema]:
    """The schemas of a job type: submission, options and, if it has them, input and output."""
    parts = {"Options": kind.options_schema, "Input": kind.input_schema, "Output": kind.response_schema}
    named = {f"{part}.{kind.name}": rebase_refs(schema, f"{part}.{kind.name}") for part, schema in parts.items() if schema is not None}
    content = _ref(f"Input.{kind.name}") if kind.input_schema is not None else None
    options = _ref(f"Options.{kind.name}")
    return {**named, f"Submission.{kind.name}": bodies.submission(kind, named=kind.name != GENERAL, options=options, content=content)}


def rebase_refs(schema: Any, name: str) -> Any:
    """A schema as the component `name`: its local `$ref`s point into the component."""
    if isinstance(schema, list):
        return [rebase_refs(part, name) for part in schema]
    if not isinstance(schema, dict):
        return schema
    rebased = {key: rebase_refs(part, name) for key, part in schema.items()}
    ref = rebased.get("$ref")
    if isinstance(ref, str) and ref.startswith("#"):
        return {**rebased, "$ref": f"#/components/schemas/{name}{ref[1:]}"}
    return rebased


def _error() -> Schema:
    detail = {"type": "object", "properties": {"path": {"type": "string"}, "message": {"type": "string"}}}
    codes = {kind.code: status for kind, status in STATUS}
    error = {
        "type": "object",
        "required": ["code", "message", "request_id", "details"],
        "properties": {
            "code": {"type": "string", "examples": sorted(codes), "x-statuses": codes},
            "message": {"type": "string"},
            "request_id": {"type": "string"},
            "details": {"type": "array", "items": detail},
        },
    }
    return {"type": "object", "required": ["success", "error"], "properties": {"success": {"const": False}, "error": error}}


def _error_responses() -> Schema:
    content = {"content": {JSON: {"schema": _ref("Error")}}}
    headers = {name: _header(name) for name in ("X-Request-Id", "Headrace-Version", "RateLimit", "RateLimit-Policy")}
    return {
        "Error": {"description": "An error; all have this shape.", "headers": headers, **content},
        "Later": {
            "description": "An error that passes: ask again after `Retry-After` seconds, where it is given.",
            "headers": {**headers, "Retry-After": _header("Retry-After")},
            **content,
        },
    }


def _security() -> Schema:
    return {
        "key": {"type": "http", "scheme": "bearer", "bearerFormat": "hr_..."},
        "ticket": {"type": "apiKey", "in": "query", "name": "ticket", "description": "From `POST /stream-tickets`."},
    }


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}
