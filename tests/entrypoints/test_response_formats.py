"""`config.response_format` and `config.openai` at the submission, and what results say of cut answers."""

from __future__ import annotations

from typing import Any

import pytest

from chalicelib.domain.jobs.job import Usage
from chalicelib.ports import ResponseEnded
from tests.kit.http import Api
from tests.kit.provider import MODEL, Script
from tests.kit.replies import field_errors
from tests.kit.work import work

PYDANTIC = {
    "title": "Person",
    "type": "object",
    "properties": {"name": {"type": "string"}, "born": {"type": "integer"}},
    "required": ["name"],
}
SCHEMA = "config.response_format.schema"


def submit(api: Api, path: str = "/jobs", **config: Any) -> Any:
    return api.call("POST", path, {"prompt": "Ada Lovelace, born 1815", "config": config})


def json_schema(schema: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "json_schema", "name": "person", "schema": schema, **more}


@pytest.mark.parametrize("path", ["/jobs", "/jobs/estimate"])
def test_a_strict_schema_that_openai_refuses_is_refused_with_its_places(api: Api, path: str) -> None:
    errors = field_errors(submit(api, path, response_format=json_schema(PYDANTIC, strict=True)))

    assert set(errors) == {f"{SCHEMA}.additionalProperties", f"{SCHEMA}.required"}
    assert "`born`" in errors[f"{SCHEMA}.required"]


def test_the_nested_form_of_a_strict_schema_is_refused_at_its_own_place(api: Api) -> None:
    nested = {"type": "json_schema", "json_schema": {"name": "person", "schema": PYDANTIC, "strict": True}}

    assert "config.response_format.json_schema.schema.additionalProperties" in field_errors(submit(api, response_format=nested))


@pytest.mark.parametrize("said", [{}, {"strict": False}])
def test_a_schema_that_is_not_said_to_be_strict_is_accepted_and_sent_so(api: Api, said: dict[str, bool]) -> None:
    assert submit(api, response_format=json_schema(PYDANTIC, **said)).status == 202

    work(api)

    [request] = api.container.provider.requests
    assert request.schema["strict"] is False


def test_a_pattern_with_look_around_is_refused_strict_or_not(api: Api) -> None:
    schema = {**PYDANTIC, "properties": {"name": {"type": "string", "pattern": "^(?!foo)\\S+$"}}}

    assert f"{SCHEMA}.properties.name.pattern" in field_errors(submit(api, "/jobs/estimate", response_format=json_schema(schema)))


@pytest.mark.parametrize(
    ("config", "path"),
    [
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a person", "schema": {}}}},
            "config.response_format.json_schema.name",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {}, "strict": "yes"}}},
            "config.response_format.json_schema.strict",
        ),
        ({"openai": {"metadata": {"run": 7}}}, "config.openai.metadata.run"),
        ({"openai": {"metadata": {"run": "x" * 513}}}, "config.openai.metadata.run"),
    ],
)
def test_what_openai_is_known_to_refuse_is_refused_at_the_submission(api: Api, config: dict[str, Any], path: str) -> None:
    assert path in field_errors(submit(api, **config))


def test_record_and_result_of_an_answer_without_text_say_what_helps() -> None:
    api = Api(Script(deltas=[], end=ResponseEnded(Usage(input=20, output=4_096, reasoning=4_096), MODEL, "max_tokens")))
    job_id = submit(api).json["job_id"]

    work(api)

    for path in (f"/jobs/{job_id}", f"/jobs/{job_id}/result"):
        details = api.call("GET", path).json["incomplete_details"]
        assert details["reason"] == "max_tokens"
        assert "Raise `config.max_tokens`" in details["message"]
