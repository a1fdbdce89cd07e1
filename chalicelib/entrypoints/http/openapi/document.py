"""The API as an OpenAPI 3.1 document, made of what serves it: the table of routes, the schemas that check requests, the job types.

What is asked of each job type is part of it: a submission is one of as many forms as there are types, each with its own options and input.
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
from chalicelib.entrypoints.http.openapi.jobs import ANSWERS, BODIES, HEADERS, OTHER_BODIES, PARAMETERS, QUERY, REQUESTS, SAID, answers
from chalicelib.entrypoints.http.server import JSON, ROUTES, ApiRequest, ApiResponse, Route, endpoint

blueprint = Blueprint(__name__)

Schema = dict[str, Any]

VERSION = "0.1.0"
GENERAL = "general"  # the type of a submission that names none
WITH_BODY = ("POST", "PATCH", "PUT")
NULL: Schema = {"type": "null"}


@endpoint(blueprint, "GET", "/openapi.json", None)
def openapi(_request: ApiRequest) -> ApiResponse:
    """The API as an OpenAPI document: every route with its least role, every request, the options of every job type."""
    return ApiResponse(body=_encoded(), headers={"Content-Type": JSON, "Cache-Control": "public, max-age=300"})


@cache  # routes and job types are those of the deployment
def _encoded() -> str:
    return json.dumps(document(), ensure_ascii=False, separators=(",", ":"))


def document() -> Schema:
    """The document. Addresses are relative to where it is served, which is below the API's stage."""
    paths: dict[str, Schema] = {}
    for route in sorted(ROUTES, key=lambda route: (route.path, route.method)):
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Headrace",
            "version": VERSION,
            "description": "Work for language models, run in the background and streamed. Rules and shapes: docs/api.md.",
        },
        "servers": [{"url": "."}],
        "security": [{"key": []}],
        "paths": paths,
        "components": {"schemas": _schemas(), "responses": {"Error": _error_answer()}, "securitySchemes": _security()},
    }


def _operation(route: Route) -> Schema:
    name = f"{route.method} {route.path}"
    operation: Schema = {
        "operationId": "_".join([route.method.lower(), *re.findall(r"\w+", route.path)]),
        "summary": route.summary,
        "tags": [route.path.split("/")[1]],
        "x-least-role": route.role.label if route.role else "public",
        "parameters": [*_path_parameters(route.path), *(_parameter(parameter) for parameter in PARAMETERS.get(name, ()))],
        "responses": {**_answers(name), "default": {"$ref": "#/components/responses/Error"}},
    }
    if route.role is None:
        operation["security"] = []
    elif "ticket" in PARAMETERS.get(name, ()):
        operation["security"] = [{"key": []}, {"ticket": []}]
    if route.method in WITH_BODY:
        operation["requestBody"] = _body(BODIES.get(name), OTHER_BODIES.get(name, {}))
    return operation


def _path_parameters(path: str) -> list[Schema]:
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in re.findall(r"\{(\w+)\}", path)]


def _parameter(name: str) -> Schema:
    schema = dict(QUERY.get(name) or HEADERS[name])
    about = schema.pop("description", None)
    described = {"description": about} if about else {}
    return {"name": name, "in": "query" if name in QUERY else "header", **described, "schema": schema}


def _body(name: str | None, others: dict[str, Schema]) -> Schema:
    schemas = {JSON: _ref(name) if name else {"type": "object"}, **others}
    return {"required": name == "Submission", "content": {kind: {"schema": schema} for kind, schema in schemas.items()}}


def _answers(name: str) -> Schema:
    return {status: _answer(status, kind) for status, kind in ANSWERS.get(name, {"200": None}).items()}


def _answer(status: str, kind: str | None) -> Schema:
    said: Schema = {"description": SAID[status]}
    if kind is not None and "/" in kind:
        return {**said, "content": {kind: {"schema": {"type": "string"}}}}
    if status in ("204", "304"):
        return said
    return {**said, "content": {JSON: {"schema": _ref(kind or "Done")}}}


def _schemas() -> dict[str, Schema]:
    kinds = job_types.all_types()
    done = {"type": "object", "required": ["success"], "properties": {"success": {"const": True}}}
    submission = {"oneOf": [_ref(f"Submission.{kind.name}") for kind in kinds]}
    of_types = {name: schema for kind in kinds for name, schema in _of_type(kind).items()}
    return {"Done": done, "Error": _error(), **REQUESTS, **answers(), "Submission": submission, **of_types}


def _of_type(kind: JobType) -> dict[str, Schema]:
    """What a job type adds: its options, its input if it takes one, the form of its answer if that has one, and its submission."""
    parts = {"Options": kind.options_schema, "Input": kind.input_schema, "Output": kind.response_schema}
    named = {f"{part}.{kind.name}": placed(schema, f"{part}.{kind.name}") for part, schema in parts.items() if schema is not None}
    content = {"anyOf": [_ref(f"Input.{kind.name}"), NULL]} if kind.input_schema is not None else NULL
    names = ("job_type", "type")  # either will do
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


def placed(schema: Any, name: str) -> Any:
    """A schema as a component: what it refers to within itself is now within that."""
    if isinstance(schema, list):
        return [placed(part, name) for part in schema]
    if not isinstance(schema, dict):
        return schema
    moved = {key: placed(part, name) for key, part in schema.items()}
    to = moved.get("$ref")
    return {**moved, "$ref": f"#/components/schemas/{name}{to[1:]}"} if isinstance(to, str) and to.startswith("#") else moved


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


def _error_answer() -> Schema:
    return {"description": "Anything that is wrong, in one shape.", "content": {JSON: {"schema": _ref("Error")}}}


def _security() -> Schema:
    return {
        "key": {"type": "http", "scheme": "bearer", "bearerFormat": "hr_..."},
        "ticket": {"type": "apiKey", "in": "query", "name": "ticket", "description": "From `POST /stream-tickets`."},
    }


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}
