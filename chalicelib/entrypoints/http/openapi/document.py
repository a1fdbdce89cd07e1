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
from chalicelib.entrypoints.http.openapi.jobs import (
    HEADERS,
    NON_JSON_BODIES,
    QUERY,
    REQUEST_BODIES,
    REQUEST_HEADERS,
    REQUEST_SCHEMAS,
    RESPONSES,
    STATUS_DESCRIPTIONS,
    response_schemas,
)
from chalicelib.entrypoints.http.server import JSON, ROUTES, ApiRequest, ApiResponse, Route, endpoint

blueprint = Blueprint(__name__)

Schema = dict[str, Any]

VERSION = "0.1.0"
GENERAL = "general"  # the job type of a submission that names none
NULL: Schema = {"type": "null"}


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
        "components": {"schemas": _schemas(), "responses": {"Error": _error_response()}, "securitySchemes": _security()},
    }


def _operation(route: Route) -> Schema:
    name = f"{route.method} {route.path}"
    operation: Schema = {
        "operationId": "_".join([route.method.lower(), *re.findall(r"\w+", route.path)]),
        "summary": route.summary,
        "tags": [route.path.split("/")[1]],
        "x-least-role": route.role.label if route.role else "public",
        "x-effect": route.effect.value,
        "parameters": [*_path_parameters(route.path), *(_parameter(parameter) for parameter in (*route.query, *REQUEST_HEADERS.get(name, ())))],
        "responses": {**_responses(name), "default": {"$ref": "#/components/responses/Error"}},
    }
    if route.role is None:
        operation["security"] = []
    elif "ticket" in route.query:
        operation["security"] = [{"key": []}, {"ticket": []}]
    if route.accepts:
        operation["requestBody"] = _body(REQUEST_BODIES.get(name), NON_JSON_BODIES.get(name, {}))
    return operation


def _path_parameters(path: str) -> list[Schema]:
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in re.findall(r"\{(\w+)\}", path)]


def _parameter(name: str) -> Schema:
    schema = dict(QUERY.get(name) or HEADERS[name])
    text = schema.pop("description", None)
    description = {"description": text} if text else {}
    return {"name": name, "in": "query" if name in QUERY else "header", **description, "schema": schema}


def _body(name: str | None, others: dict[str, Schema]) -> Schema:
    schemas = {JSON: _ref(name) if name else {"type": "object"}, **others}
    return {"required": name == "Submission", "content": {kind: {"schema": schema} for kind, schema in schemas.items()}}


def _responses(name: str) -> Schema:
    return {status: _response(status, kind) for status, kind in RESPONSES.get(name, {"200": None}).items()}


def _response(status: str, kind: str | None) -> Schema:
    """A response; `kind` is a content type or the name of a schema, None a plain success."""
    response: Schema = {"description": STATUS_DESCRIPTIONS[status]}
    if kind is not None and "/" in kind:
        return {**response, "content": {kind: {"schema": {"type": "string"}}}}
    if status in ("204", "304"):
        return response
    return {**response, "content": {JSON: {"schema": _ref(kind or "Done")}}}


def _schemas() -> dict[str, Schema]:
    kinds = job_types.all_types()
    done = {"type": "object", "required": ["success"], "properties": {"success": {"const": True}}}
    submission = {"oneOf": [_ref(f"Submission.{kind.name}") for kind in kinds]}
    of_types = {name: schema for kind in kinds for name, schema in _job_type_schemas(kind).items()}
    return {"Done": done, "Error": _error(), **REQUEST_SCHEMAS, **response_schemas(), "Submission": submission, **of_types}


def _job_type_schemas(kind: JobType) -> dict[str, Schema]:
    """The schemas of a job type: submission, options and, if it has them, input and output."""
    parts = {"Options": kind.options_schema, "Input": kind.input_schema, "Output": kind.response_schema}
    named = {f"{part}.{kind.name}": rebase_refs(schema, f"{part}.{kind.name}") for part, schema in parts.items() if schema is not None}
    content = {"anyOf": [_ref(f"Input.{kind.name}"), NULL]} if kind.input_schema is not None else NULL
    names = ("job_type", "type")  # two names of one field
    special: Schema = {
        "title": kind.title,
        "description": kind.description,
        "x-least-role": kind.min_role,
        "properties": {
            **{name: {"enum": [kind.name, None]} for name in names},
            "options": {"anyOf": [_ref(f"Options.{kind.name}"), NULL]},
            "input": content,
        },
    }
    if kind.name != GENERAL:
        special["anyOf"] = [{"required": [name], "properties": {name: {"const": kind.name}}} for name in names]
    return {**named, f"Submission.{kind.name}": {"allOf": [_ref("SubmissionOfAnyType"), special]}}


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


def _error_response() -> Schema:
    return {"description": "Any error; all have this shape.", "content": {JSON: {"schema": _ref("Error")}}}


def _security() -> Schema:
    return {
        "key": {"type": "http", "scheme": "bearer", "bearerFormat": "hr_..."},
        "ticket": {"type": "apiKey", "in": "query", "name": "ticket", "description": "From `POST /stream-tickets`."},
    }


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}
