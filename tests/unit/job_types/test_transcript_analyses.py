"""The response schema of transcript analyses: built from the options, with or without bounds."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chalicelib import job_types
from chalicelib.domain.jobs.job import Job, Status
from chalicelib.domain.jobs.submission import Submission
from chalicelib.services.jobs.plan_job import plan_job
from infra.examples import EXAMPLES
from tests.kit.provider import Script
from tests.kit.world import ALICE, World

WHOLE: dict[str, Any] = json.loads(EXAMPLES["transcript_analysis"].answer())
TOPICS = {name: WHOLE[name] for name in ("participants", "topics", "conclusion")}
DEBATE = EXAMPLES["transcript_analysis"].submission("transcript_analysis").input


def analysed(answer: Any, **fields: Any) -> tuple[World, Job]:
    text = json.dumps(answer)
    world = World(Script(deltas=[text[:40], text[40:]]))
    config = {"max_attempts": 1, **fields.pop("config", {})}
    job = world.submit(prompt=None, job_type="transcript_analysis", input=DEBATE, config=config, **fields)  # type: ignore[arg-type]
    world.deliver()
    return world, world.job(job)


def test_only_the_chosen_analyses_are_requested_and_accepted() -> None:
    world, job = analysed(TOPICS, options={"analyses": ["topics"]})

    [request] = world.provider.requests
    assert request.schema is not None
    assert list(request.schema["schema"]["properties"]) == ["participants", "topics", "conclusion"]
    assert "Analyse the transcript below: topics." in request.prompt
    kept = world.container.results.get(job.id, 1)
    assert job.status is Status.COMPLETED
    assert kept is not None
    assert kept.parsed == TOPICS


@pytest.mark.parametrize(
    ("answer", "options"), [(WHOLE, {"analyses": ["topics"]}), (TOPICS, {"analyses": ["topics", "quality"]}), (TOPICS, {})]
)
def test_an_answer_with_more_or_fewer_analyses_is_invalid(answer: Any, options: dict[str, Any]) -> None:
    _, job = analysed(answer, options=options)

    assert job.error is not None
    assert job.error.code == "output_invalid"


def test_fewer_analyses_lower_the_estimate() -> None:
    """The response schema is part of the request, so the estimate includes it."""

    def tokens(options: dict[str, Any]) -> int:
        submission = Submission(job_type="transcript_analysis", input=DEBATE, options=options)
        return plan_job(job_types.get, World().container.prices, ALICE, submission, 0).estimate.input_tokens

    assert tokens({"analyses": ["sentiment"]}) < tokens({}) - 200


def test_a_fine_tuned_model_gets_a_schema_without_bounds() -> None:
    """It would refuse them; its answer is validated against the bounds nevertheless."""
    beyond = {**WHOLE, "quality": {**WHOLE["quality"], "quality_score": 11}}
    world, job = analysed(beyond, config={"model": "ft:gpt-4o-mini:acme::abc"})

    schema = json.dumps(world.provider.requests[0].schema)
    assert '"minimum"' not in schema
    assert job.error is not None
    assert "quality.quality_score must be a number between 0 and 10, not 11" in job.error.message
