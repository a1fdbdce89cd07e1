"""Shipped examples: every job type that calls a model has one that can be submitted unchanged."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace

import pytest

from chalicelib import job_types
from chalicelib.adapters.memory.all import InMemoryAdapters
from chalicelib.domain.auth.identity import Role
from chalicelib.domain.jobs.job import Status
from chalicelib.domain.jobs.job_type import JobType
from chalicelib.domain.text import repair_surrogates
from chalicelib.domain.validation.schema import problems
from chalicelib.services.jobs.plan_job import Plan, plan_job
from chalicelib.services.prompts.model_request import model_request, parsed_output
from infra.examples import EXAMPLES, EXAMPLES_WITHOUT_MODEL, FOLDER
from infra.print_docs import job_types_page
from tests.kit.paths import ROOT
from tests.kit.world import ALICE, World
from tests.unit.cli.server import FakeServer, run

MODEL_TYPES = [kind for kind in job_types.all_types() if kind.instructions]


def planned(kind: JobType) -> Plan:
    return plan_job(job_types.get, InMemoryAdapters().prices, ALICE, EXAMPLES[kind.name].submission(kind.name), 0)


@pytest.mark.parametrize("kind", MODEL_TYPES, ids=lambda kind: kind.name)
class TestEveryType:
    """Each job type that calls a model has one example."""

    def test_the_example_can_be_planned(self, kind: JobType) -> None:
        """The request asks for the type's schema and costs less than two cents."""
        plan = planned(kind)
        request = model_request(plan.spec, kind)

        assert (request.schema or {}).get("schema") is kind.schema_for(plan.spec.options)
        assert plan.estimate.expected_cost is None or plan.estimate.expected_cost < 20_000_000

    def test_the_content_is_delimited_once_in_the_prompt(self, kind: JobType) -> None:
        """For a type without `render`, the content is the whole prompt."""
        prompt, example = planned(kind).spec.prompt, EXAMPLES[kind.name]
        text = (ROOT / FOLDER / example.file).read_text(encoding="utf-8")
        if kind.render is None:
            assert prompt == text
            return
        fences = re.findall(r"^<<<([A-Z]+) ([0-9a-f]{16})>>>\n(.*?)\n<<<END \1 \2>>>$", prompt, re.MULTILINE | re.DOTALL)

        inside = fences[-1][2]
        parts = [inside] if example.is_input else [text]
        if example.is_input:
            assert all(repair_surrogates(json.dumps(part, ensure_ascii=False)) in inside for part in _texts(json.loads(text)))
        else:
            assert inside == text
        assert prompt.count(parts[0]) == 1
        assert prompt.endswith(f"<<<END {fences[-1][0]} {fences[-1][1]}>>>")

    def test_the_example_reply_matches_the_response_schema(self, kind: JobType) -> None:
        """Its fields come in the order in which a model writes them."""
        spec, answer = planned(kind).spec, EXAMPLES[kind.name].answer()
        if kind.response_schema is None:
            assert answer == ""
            return

        parsed = parsed_output(answer, spec, kind)

        assert list(parsed) == list(kind.response_schema["properties"])
        assert problems(kind.response_schema, parsed) == ()

    def test_the_printed_command_submits_the_example(self, kind: JobType, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
        """The job types page prints the same command."""
        monkeypatch.chdir(ROOT)
        example = EXAMPLES[kind.name]
        command = example.command(kind.name)

        assert run(*shlex.split(command)[1:-1]) == 0

        sent, expected = server.sent("POST /jobs")[0][3], example.submission(kind.name)
        assert (sent["job_type"], sent.get("options", {})) == (kind.name, expected.options)
        assert (sent.get("prompt"), sent.get("input")) == (expected.prompt, expected.input)
        assert command in job_types_page()

    def test_the_readme_lists_the_example_and_its_command(self, kind: JobType) -> None:
        readme, example = (ROOT / FOLDER / "README.md").read_text(), EXAMPLES[kind.name]

        assert f"| `{example.file}` | `{kind.name}` |" in readme
        assert example.command(kind.name) in readme


@pytest.mark.parametrize("name", EXAMPLES_WITHOUT_MODEL)
def test_the_examples_of_task_types_run_as_shipped(name: str, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command submits the example, the pages list it, and a worker completes it."""
    example, world = EXAMPLES_WITHOUT_MODEL[name], World()
    monkeypatch.chdir(ROOT)
    command = example.command(name)
    caller = replace(ALICE, role=Role.named(job_types.get(name).min_role))
    job = world.submit(None, job_type=name, input=example.submission(name).input, caller=caller)

    world.deliver()

    assert run(*shlex.split(command)[1:-1]) == 0
    assert server.sent("POST /jobs")[0][3]["input"] == example.submission(name).input
    readme = (ROOT / FOLDER / "README.md").read_text()
    assert command in readme
    assert f"| `{example.file}` | `{name}` |" in readme
    assert command in job_types_page()
    assert world.job(job).status is Status.COMPLETED


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    parts = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return [text for part in parts for text in _texts(part)]
