"""The OpenAPI document: it is valid and complete, and agrees with what the API accepts and returns.

`data/openapi-3.1.schema.json` is the schema of the OpenAPI Initiative for 3.1 documents (2022-10-07, Apache License 2.0).
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from jsonschema_rs import validator_for

from chalicelib import bootstrap, job_types
from chalicelib.domain.validation.schema import schema_problems
from chalicelib.entrypoints.http.openapi.bodies import REQUEST_BODIES, REQUEST_SCHEMAS
from chalicelib.entrypoints.http.openapi.document import VERSION, document, rebase_refs
from chalicelib.entrypoints.http.openapi.parameters import REQUEST_HEADERS
from chalicelib.entrypoints.http.openapi.responses import RESPONSES
from chalicelib.entrypoints.http.server import ROUTES
from tests.kit.http import Api
from tests.kit.paths import ROOT
from tests.kit.work import work

META = json.loads((Path(__file__).parent / "data" / "openapi-3.1.schema.json").read_text())


@pytest.fixture
def described(api: Api) -> Any:
    """The document as it is served."""
    reply = api.call("GET", "/openapi.json", token=None)
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    return reply.json


def accepts(described: Any, name: str, value: Any) -> bool:
    """Whether a value is valid by a schema of the document."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": described["components"]}
    return bool(validator_for(schema).is_valid(value))


def test_the_document_conforms_to_openapi_3_1(described: Any) -> None:
    assert [str(error) for error in validator_for(META).iter_errors(described)] == []


def test_every_component_schema_is_valid(described: Any) -> None:
    for name, schema in described["components"]["schemas"].items():
        whole = {**schema, "components": described["components"]}
        assert schema_problems(whole) == (), name


def test_every_reference_resolves(described: Any) -> None:
    for reference in _references(described["paths"]):
        part = described
        for step in reference.removeprefix("#/").split("/"):
            part = part[step]


def test_the_document_is_served_without_a_key_or_a_store(api: Api) -> None:
    without_stores = SimpleNamespace(clock=api.container.clock, settings=api.container.settings)
    bootstrap.override(without_stores)

    assert api.call("GET", "/openapi.json", token=None).status == 200


def test_the_document_lists_exactly_the_routes_of_the_application(api: Api, described: Any) -> None:
    served = {(path, method) for path, methods in api.app.routes.items() for method in methods if method != "OPTIONS"}

    assert {(path, method.upper()) for path, methods in described["paths"].items() for method in methods} == served


def test_every_operation_names_its_minimum_role(described: Any) -> None:
    for route in ROUTES:
        operation = described["paths"][route.path][route.method.lower()]
        assert operation["x-least-role"] == (route.role.label if route.role else "public")
        assert operation["x-effect"] == route.effect.value
        assert ("security" in operation and operation["security"] == []) == (route.role is None)
        assert operation["summary"] == route.summary


def test_operation_ids_are_unique(described: Any) -> None:
    names = [operation["operationId"] for methods in described["paths"].values() for operation in methods.values()]

    assert len(set(names)) == len(names)


def test_route_descriptions_refer_only_to_existing_routes() -> None:
    served = {f"{route.method} {route.path}" for route in ROUTES}

    assert set(REQUEST_HEADERS) | set(REQUEST_BODIES) <= served
    assert set(RESPONSES) == served
    assert {name for name in REQUEST_BODIES.values() if name != "Submission"} <= set(REQUEST_SCHEMAS)


@pytest.mark.parametrize("name", [kind.name for kind in job_types.all_types()])
def test_the_document_contains_every_job_type_with_its_schemas(described: Any, name: str) -> None:
    kind, schemas = job_types.get(name), described["components"]["schemas"]

    assert {"$ref": f"#/components/schemas/Submission.{name}"} in schemas["Submission"]["oneOf"]
    assert schemas[f"Options.{name}"].items() >= json.loads(json.dumps(kind.options_schema)).items()
    assert (f"Input.{name}" in schemas) == (kind.input_schema is not None)
    assert (f"Output.{name}" in schemas) == (kind.response_schema is not None)


@pytest.mark.parametrize(
    "submission",
    [
        {"prompt": "Hi"},
        {"prompt": "Hi", "job_type": "general", "options": None, "config": {"cache": {"ttl": 60}}},
        {"prompt": "Hi", "job_type": "security_analysis", "options": {"focus": ["reentrancy"]}},
        {"prompt": "Hi", "type": "security_analysis", "options": {"focus": ["reentrancy"]}, "priority": "high"},
        {"prompt": "Hi", "type": "security_analysis", "job_type": "security_analysis"},
    ],
    ids=str,
)
def test_submissions_valid_in_the_document_are_accepted(api: Api, described: Any, submission: dict[str, Any]) -> None:
    assert accepts(described, "Submission", submission)
    assert api.call("POST", "/jobs/estimate", submission).status == 200


@pytest.mark.parametrize(
    "submission",
    [
        {"prompt": "Hi", "options": {"focus": ["reentrancy"]}},
        {"prompt": "Hi", "job_type": "security_analysis", "options": {"focus": ["everything"]}},
        {"prompt": "Hi", "job_type": "security_analysis", "options": {"depth": 3}},
        {"prompt": "Hi", "job_type": "poetry"},
        {"prompt": "Hi", "colour": "red"},
        {"prompt": "Hi", "config": {"temperature": 3}},
    ],
    ids=str,
)
def test_submissions_invalid_in_the_document_are_refused(api: Api, described: Any, submission: dict[str, Any]) -> None:
    assert not accepts(described, "Submission", submission)
    assert api.call("POST", "/jobs/estimate", submission).status in (400, 404)


def test_responses_match_the_document(api: Api, described: Any) -> None:
    reply = api.call("POST", "/jobs", {"prompt": "Hi"})
    assert accepts(described, "Accepted", reply.json)
    job_id = reply.json["job_id"]
    for path, name in (("", "Record"), ("/status", "Status"), ("/progress", "Progress")):
        assert accepts(described, name, api.call("GET", f"/jobs/{job_id}{path}").json)
    work(api)

    for path, name in (("", "Record"), ("/status", "Status"), ("/progress", "Progress"), ("/result", "Result")):
        body = api.call("GET", f"/jobs/{job_id}{path}").json
        assert accepts(described, name, body)
        assert set(body) <= set(described["components"]["schemas"][name]["properties"])


BATCHES = [
    {
        "items": [{"id": "a", "content": "x"}, {"id": "b", "content": "x", "depends_on": ["a"]}],
        "type": "general",
        "config": {"max_tokens": 20},
        "notify": [],
    },
    {"items": [{"content": "x", "priority": "high"}], "batch_size": 1, "delay": 0.5, "dry_run": True},
    ["plain", "list"],
]


@pytest.mark.parametrize("batch", BATCHES, ids=str)
def test_batches_valid_in_the_document_get_matching_responses(api: Api, described: Any, batch: Any) -> None:
    reply = api.call("POST", "/batches", batch)

    assert accepts(described, "BatchSubmission", batch)
    assert accepts(described, "Batch" if reply.status == 202 else "DryRun", reply.json), reply.text
    page = api.call("GET", "/batches").json
    assert accepts(described, "Batches", page)
    for found in page["data"]:
        path = f"/batches/{found['batch_id']}"
        for route, name in ((path, "Batch"), (f"{path}/export", "BatchExport"), (f"{path}/deliveries", "BatchDeliveries")):
            body = api.call("GET", route).json
            assert accepts(described, name, body), body
        assert accepts(described, "Batch", api.call("DELETE", path).json)


@pytest.mark.parametrize(
    "batch",
    [{"items": []}, {"items": ["a"], "upload_id": "upload_1"}, {"name": "nothing"}, {"items": ["a"], "config": {"temperature": 3}}],
    ids=str,
)
def test_batches_invalid_in_the_document_are_refused(api: Api, described: Any, batch: Any) -> None:
    assert not accepts(described, "BatchSubmission", batch)
    assert api.call("POST", "/batches", batch).status == 400


def test_the_document_describes_every_way_to_submit_a_batch(api: Api, described: Any) -> None:
    """Files are sent unchanged, with the options in the query."""
    operation = described["paths"]["/batches"]["post"]
    link = api.call("POST", "/uploads", {"size": 5})

    assert {"application/json", "text/csv", "text/plain", "application/x-ndjson"} <= set(operation["requestBody"]["content"])
    assert {"prompt_template", "webhook_url", "notify", "upload_id", "Idempotency-Key"} <= {one["name"] for one in operation["parameters"]}
    assert accepts(described, "UploadLink", link.json)


def test_error_responses_match_the_document(api: Api, described: Any) -> None:
    for reply in (api.call("GET", "/jobs", token=None), api.call("POST", "/jobs", {}), api.call("GET", "/jobs/job_1")):
        assert accepts(described, "Error", reply.json)


def test_documented_filters_of_the_job_list_match_the_accepted_filters(api: Api, described: Any) -> None:
    """The accepted filters are read from the error for an unknown filter."""
    refused = api.call("GET", "/jobs?colour=red").json["error"]["details"][0]["message"]
    named = {one["name"] for one in described["paths"]["/jobs"]["get"]["parameters"]}

    assert named == set(re.findall(r"\w+", refused.partition("known are ")[2]))


def test_internal_references_of_a_type_schema_are_relocated() -> None:
    """Each `$ref` is rewritten to the position of the schema in the document."""
    schema = {"$defs": {"name": {"type": "string"}}, "properties": {"who": {"$ref": "#/$defs/name"}}}
    whole = {"$ref": "#/components/schemas/Input.t", "components": {"schemas": {"Input.t": rebase_refs(schema, "Input.t")}}}

    assert validator_for(whole).is_valid({"who": "me"})
    assert not validator_for(whole).is_valid({"who": 3})


def test_the_document_has_the_version_of_the_project() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == VERSION
    assert document()["info"]["version"] == VERSION


def _references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for value in part.values():
            yield from _references(value)
    elif isinstance(part, list):
        for value in part:
            yield from _references(value)
